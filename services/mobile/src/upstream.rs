use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hydrant_runtime::Clock;
use hydrant_sdk::{Error, Service, Tier};
use serde::Serialize;
use serde_json::json;

use crate::VERSION;
use crate::api::conditional::{etag_of, is_named};

/// How long the demo's catalogue stays the same, in milliseconds.
const CHANGES_EVERY: i64 = 60_000;
/// The most pollers that are told apart.
const MAX_POLLERS: usize = 100;

/// Runs `api/demo-upstream`: a small web server that stands for somebody else's, so that there is
/// an HTTP source to poll.
///
/// - `GET /v1/catalog`: a document that changes once a minute, with an ETag.
/// - `GET /v1/count`: how often that was asked for, and by whom.
/// - `POST /v1/break`, `POST /v1/mend`: from now on it fails, or is good again.
///
/// # Errors
///
/// As [`Service::run`].
pub async fn run_demo_upstream() -> Result<(), Error> {
    Service::new(Tier::Api, "demo-upstream", VERSION)?
        .http(routes(Clock::system()))
        .run()
        .await
}

#[derive(Clone)]
struct Upstream {
    clock: Clock,
    seen: Arc<Mutex<Seen>>,
}

/// What the upstream has seen since it started.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    /// All requests for the catalogue.
    polls: u64,
    /// Those that were answered with 304.
    not_modified: u64,
    /// All requests, by the `hydrant-instance` that they name.
    pollers: BTreeMap<String, u64>,
    broken: bool,
}

fn routes(clock: Clock) -> Router {
    let upstream = Upstream {
        clock,
        seen: Arc::default(),
    };
    Router::new()
        .route("/v1/catalog", get(catalog))
        .route("/v1/count", get(count))
        .route("/v1/break", post(|state| set_broken(state, true)))
        .route("/v1/mend", post(|state| set_broken(state, false)))
        .with_state(upstream)
}

async fn catalog(State(upstream): State<Upstream>, headers: HeaderMap) -> Response {
    let generation = upstream.clock.unix_ms() / CHANGES_EVERY;
    let body = document(generation);
    let etag = etag_of(body.as_bytes());
    let unchanged = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| is_named(value.as_bytes(), &etag));
    let mut seen = upstream.seen();
    seen.count(poller(&headers), unchanged);
    if seen.broken {
        return (StatusCode::INTERNAL_SERVER_ERROR, "broken on purpose").into_response();
    }
    let headers = [
        (header::ETAG, etag),
        (header::CONTENT_TYPE, "application/json".into()),
    ];
    match unchanged {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, body).into_response(),
    }
}

fn document(generation: i64) -> String {
    let cents = 900 + generation.rem_euclid(100);
    json!({
        "generation": generation,
        "items": [
            { "id": "apples", "priceCents": cents },
            { "id": "bread", "priceCents": 349 },
        ],
    })
    .to_string()
}

async fn count(State(upstream): State<Upstream>) -> Json<Seen> {
    Json(upstream.seen().clone())
}

async fn set_broken(State(upstream): State<Upstream>, broken: bool) -> StatusCode {
    upstream.seen().broken = broken;
    StatusCode::NO_CONTENT
}

/// Who asks: bounded, because it comes from outside.
fn poller(headers: &HeaderMap) -> String {
    headers
        .get("hydrant-instance")
        .and_then(|value| value.to_str().ok())
        .map_or_else(|| "unknown".into(), |name| name.chars().take(100).collect())
}

impl Upstream {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn count(&mut self, poller: String, unchanged: bool) {
        self.polls += 1;
        self.not_modified += u64::from(unchanged);
        let known = self.pollers.contains_key(&poller) || self.pollers.len() < MAX_POLLERS;
        let name = if known { poller } else { "others".into() };
        *self.pollers.entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn it_counts_who_polls_and_changes_slowly() {
        let clock = Clock::manual(UNIX_EPOCH);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = routes(clock.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = reqwest::Client::new();
        let poll = async |tag: &str| {
            let request = client.get(format!("{base}/catalog"));
            let request = request
                .header("hydrant-instance", "mobile-1")
                .header("if-none-match", tag);
            request.send().await.unwrap()
        };
        let first = poll("").await;
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(poll(&tag).await.status(), 304);
        clock.advance(Duration::from_secs(60));
        assert_eq!(poll(&tag).await.status(), 200);
        client.post(format!("{base}/break")).send().await.unwrap();
        assert_eq!(poll(&tag).await.status(), 500);
        let seen = client.get(format!("{base}/count")).send().await.unwrap();
        let seen: Value = seen.json().await.unwrap();
        assert_eq!(
            seen,
            json!({"polls": 4, "notModified": 1, "pollers": {"mobile-1": 4}, "broken": true})
        );
    }

    #[test]
    fn the_number_of_pollers_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..1000 {
            seen.count(format!("poller-{number}"), false);
        }
        assert_eq!(seen.pollers.len(), MAX_POLLERS + 1);
        assert_eq!(seen.pollers["others"], 900);
    }
}
