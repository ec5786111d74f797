//! `GET /v1/preview?token=…`: an entry before it is published, for who has a signed link.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use connectrpc::client::CallOptions;
use hydrant_sdk::{Code, Error, Problem, Transport};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Window;
use crate::content::preview::page;
use crate::content::preview::token::may_be_token;
use crate::proto::{ContentClient, ReadPreviewRequest};

/// How many questions to the service are under way at most: anybody can make up tokens.
const QUESTIONS: usize = 8;
/// How long a question waits for its place, and for its answer.
const TURN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the service what a link leads to.
#[derive(Clone)]
pub(super) struct Previews {
    client: ContentClient<Transport>,
    room: Arc<Semaphore>,
}

#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    token: String,
}

impl Previews {
    pub(super) fn new(client: ContentClient<Transport>) -> Self {
        Self {
            client,
            room: Arc::new(Semaphore::new(QUESTIONS)),
        }
    }

    async fn read(&self, token: String) -> Result<Value, Error> {
        if !may_be_token(&token) {
            return Err(no_link());
        }
        let _place = match timeout(TURN, self.room.acquire()).await {
            Ok(Ok(place)) => place,
            _ => return Err(busy()),
        };
        let request = ReadPreviewRequest {
            token,
            ..Default::default()
        };
        let options = CallOptions::default().with_timeout(PATIENCE);
        let answer = self
            .client
            .read_preview_with_options(request, options)
            .await;
        let answer = answer.map_err(|error| Error::from_connect(&error))?;
        serde_json::from_str(answer.into_owned().preview.as_str())
            .map_err(|error| Error::new(Code::Internal, "bad_preview", error.to_string()))
    }
}

pub(super) async fn preview(
    State(window): State<Window>,
    Query(link): Query<Link>,
    headers: HeaderMap,
) -> Response {
    let mut answer = match window.previews.read(link.token).await {
        Ok(preview) if wants_page(&headers) => page_of(page::page(&preview)),
        Ok(preview) => Json(preview).into_response(),
        Err(error) => refuse(error, wants_page(&headers)),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("vary", "accept"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whether a person's browser asks: it names HTML, and wants nothing else as much.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    accept.any(|value| {
        let mut kinds = value
            .split(',')
            .map(|kind| kind.split(';').next().unwrap_or("").trim());
        kinds.any(|kind| kind.eq_ignore_ascii_case("text/html"))
    })
}

fn page_of(page: String) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, page::policy())];
    (policy, Html(page)).into_response()
}

/// What is over is gone; for the rest the usual status.
fn refuse(error: Error, wants_page: bool) -> Response {
    let status = match &*error.reason {
        "preview_expired" | "preview_revoked" => StatusCode::GONE,
        _ => StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    if wants_page {
        let page = page::refusal(&error.message, &error.mend);
        return (status, page_of(page)).into_response();
    }
    Problem(error).with_status(status)
}

fn no_link() -> Error {
    let message = "this is not a link to a preview that was made here";
    Error::new(Code::PermissionDenied, "preview_forged", message)
        .mend("copy the whole link, or ask for a new one")
}

fn busy() -> Error {
    let message = "too many previews are under way";
    Error::new(Code::Unavailable, "busy", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_json() {
        for (accept, expected) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("TEXT/HTML;q=0.9", true),
            ("*/*", false),
            ("application/json", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_page(&headers), expected, "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }
}
