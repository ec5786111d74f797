//! `POST /v1/images?reason=…&alt=…`: who has a key of the role admin adds an image.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRef, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_sdk::{Code, Error, Problem};
use serde::Deserialize;

use super::Window;
use crate::api::gate::{Admitted, Gate};
use crate::keys::Role;

/// How long an image may take to come in and to be made smaller.
const PATIENCE: Duration = Duration::from_secs(180);

/// The largest answer of the service that is passed on, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    reason: String,
    alt: Option<String>,
}

impl FromRef<Window> for Gate {
    fn from_ref(window: &Window) -> Self {
        window.answers.gate.clone()
    }
}

/// Passes the image on to the service, as it comes in. The author is the name of the key.
pub(super) async fn add(
    admitted: Admitted,
    State(window): State<Window>,
    Query(told): Query<Told>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = admitted.caller.key().ok_or_else(no_key)?;
    if key.role != Role::Admin {
        return Err(not_admin(&key.name).into());
    }
    let mut query = vec![("author", key.name.as_str()), ("reason", &told.reason)];
    query.extend(told.alt.as_deref().map(|alt| ("alt", alt)));
    let request = window.origin.post("v1/images", &query)?.timeout(PATIENCE);
    let length = headers.get(header::CONTENT_LENGTH).cloned();
    let request = length.into_iter().fold(request, |request, length| {
        request.header(header::CONTENT_LENGTH, length)
    });
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let answer = request
        .body(body)
        .send()
        .await
        .map_err(|error| away(&error))?;
    Ok(passed_on(answer).await?)
}

async fn passed_on(answer: reqwest::Response) -> Result<Response, Error> {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let length = answer.content_length().unwrap_or(0);
    if length > MAX_ANSWER as u64 {
        return Err(away(&"its answer is too long"));
    }
    let body = answer.bytes().await.map_err(|error| away(&error))?;
    let mut passed = (status, body).into_response();
    if let Some(kind) = kind {
        passed.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Ok(passed)
}

fn no_key() -> Error {
    let message = "images are added with a key of the role admin, and there is none";
    Error::new(Code::Unauthenticated, "no_key", message)
        .mend("send it as `Authorization: Bearer KEY`")
}

fn not_admin(name: &str) -> Error {
    let message =
        format!("images are added with a key of the role admin, and `{name}` has another");
    Error::new(Code::PermissionDenied, "not_admin", message)
        .mend("make one: `hydrant mobile key create NAME --role admin`")
}

fn away(why: &dyn std::fmt::Display) -> Error {
    tracing::warn!(%why, "an image can't be passed on to service/mobile");
    let message = "the image could not be passed on to service/mobile";
    Error::new(Code::Unavailable, "service_unavailable", message)
}
