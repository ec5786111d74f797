//! `POST /v1/submissions/{id}/submit`: closes a submission, and waits for the reference as long as the form
//! has patience.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_sdk::Error;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::{Front, identity, shown};
use crate::proto::{GetRequest, Status, SubmitRequest};

pub(super) async fn submit(
    State(front): State<Front>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let id = identity::of_path(&id)?;
    let submitted = close(&front, &id, &headers).await;
    submitted.inspect_err(|refusal| front.0.refused.note(refusal, &headers, &id))
}

async fn close(front: &Front, id: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let request = SubmitRequest {
        id: id.to_owned(),
        origin: identity::origin(headers)?.into(),
        ..Default::default()
    };
    let status = front.0.keeper.submit(request).await;
    let status = status.map_err(|error| Error::from_connect(&error))?;
    let status = front.until_it_has_a_reference(status.into_owned()).await?;
    let code = match has_ended(&status) {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    let mut answer = (code, Json(shown::status(&status))).into_response();
    if code == StatusCode::ACCEPTED {
        let again = HeaderValue::from_static("1");
        answer.headers_mut().insert(header::RETRY_AFTER, again);
    }
    Ok(answer)
}

/// Whether waiting longer would tell the user more: the reference is there, or there will be none.
fn has_ended(status: &Status) -> bool {
    let is_on_its_way = status.state == "submitted";
    status.reference.is_some() || !is_on_its_way
}

impl Front {
    async fn until_it_has_a_reference(&self, mut status: Status) -> Result<Status, Error> {
        let form = self.0.forms.form(&status.form);
        let patience = form.map_or(Duration::ZERO, |form| form.patience);
        let deadline = Instant::now() + patience;
        while !has_ended(&status) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = GetRequest {
                id: status.id.clone(),
                known_version: status.version,
                wait_ms: left.as_millis() as u32,
                ..Default::default()
            };
            match self.0.keeper.get(request).await {
                Ok(answer) => status = answer.into_owned(),
                // It is submitted: that the keeper is away now changes nothing for the client.
                Err(_) => break,
            }
        }
        Ok(status)
    }
}
