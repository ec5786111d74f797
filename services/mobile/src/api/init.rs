//! `GET /v1/init`: all that an app needs at its start, in one answer.

use axum::extract::rejection::QueryRejection;
use axum::extract::{self, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hydrant_sdk::{Code, Error, Problem};

use crate::api::Answers;
use crate::api::compose::Feed;
use crate::api::conditional::{etag_of, is_named};
use crate::api::parameters::{Parameters, Query, refuse};
use crate::api::sight::Sight;

pub(crate) fn routes() -> axum::Router<Answers> {
    axum::Router::new().route("/v1/init", get(init))
}

async fn init(
    State(answers): State<Answers>,
    query: Result<extract::Query<Query>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let extract::Query(query) = query.map_err(|error| refuse(error.body_text()))?;
    let parameters = Parameters::check(query)?;
    let serving = answers.served.load();
    let feed = serving.feed.as_ref().ok_or_else(no_snapshot)?;
    let body = feed.body(&parameters);
    let etag = etag_of(&body);
    let unchanged = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| is_named(value.as_bytes(), &etag));
    let mut answer = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let stale = [
        all_stale(&answers.sight),
        feed.stale(answers.clock.unix_ms()),
    ];
    describe(answer.headers_mut(), feed, etag, &stale);
    Ok(answer)
}

/// The headers that a 304 has too. Ages stand here, not in the body: they change with every
/// request, and the ETag must not.
fn describe(headers: &mut HeaderMap, feed: &Feed, etag: String, stale: &[Option<String>]) {
    let mut insert = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    };
    insert("etag", etag);
    insert("cache-control", "no-cache".into());
    insert("hydrant-snapshot-epoch", feed.epoch().to_string());
    let stale: Vec<&str> = stale.iter().flatten().map(String::as_str).collect();
    if !stale.is_empty() {
        insert("hydrant-stale", stale.join(", "));
    }
}

/// As `*;age=12`: while the state is away, every source may be so many seconds behind.
fn all_stale(sight: &Sight) -> Option<String> {
    sight.age().map(|age| format!("*;age={age}"))
}

fn no_snapshot() -> Error {
    let message = "the sources have not been asked yet";
    Error::new(Code::Unavailable, "no_snapshot", message)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use std::sync::Arc;
    use std::time::Duration;

    use hydrant_runtime::Clock;

    use super::*;
    use crate::api::ofrep;
    use crate::api::routes;
    use crate::api::serving::{Served, swap_feed};
    use crate::sources::snapshot::{Found, Snapshot};

    const INIT: &str = "/v1/init?platform=ios&version=7.2.1&locale=en-US";

    struct Api {
        base: String,
        served: Served,
        sight: Sight,
        clock: Clock,
        client: reqwest::Client,
    }

    impl Api {
        async fn start() -> Self {
            let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(100));
            let answers = Answers::new(clock.clone(), ofrep::changes().1);
            let (served, sight) = (Arc::clone(&answers.served), answers.sight.clone());
            let routes = routes(answers);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, routes).await });
            let client = reqwest::Client::new();
            Self {
                base,
                served,
                sight,
                clock,
                client,
            }
        }

        fn publish(&self, value: Value, stale: Option<i64>) {
            let found = Found::with(Some(&value.to_string()), 5, stale);
            let snapshot = Snapshot {
                epoch: 3,
                sources: [("content".to_owned(), Arc::new(found))].into(),
            };
            swap_feed(&self.served, Arc::new(Feed::new(snapshot)));
        }

        async fn get(&self, path: &str, tag: &str) -> reqwest::Response {
            let request = self.client.get(format!("{}{path}", self.base));
            request.header("if-none-match", tag).send().await.unwrap()
        }
    }

    #[tokio::test]
    async fn the_same_answer_is_sent_once() {
        let api = Api::start().await;
        api.publish(json!("hello"), None);
        let first = api.get(INIT, "\"other\"").await;
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()["cache-control"], "no-cache");
        assert_eq!(first.headers()["hydrant-snapshot-epoch"], "3");
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        let body: Value = first.json().await.unwrap();
        assert_eq!(body["sources"]["content"]["value"], "hello");
        for tag in [etag.clone(), format!("\"x\", W/{etag}"), "*".into()] {
            let again = api.get(INIT, &tag).await;
            assert_eq!(again.status(), 304, "{tag}");
            assert_eq!(again.headers()["etag"], etag.as_str());
            assert!(again.bytes().await.unwrap().is_empty());
        }
        api.publish(json!("good day"), None);
        assert_eq!(api.get(INIT, &etag).await.status(), 200);
        let german = INIT.replace("en-US", "de");
        assert_eq!(api.get(&german, &etag).await.status(), 200);
    }

    #[tokio::test]
    async fn a_growing_age_does_not_change_the_tag() {
        let api = Api::start().await;
        api.publish(json!(1), Some(90_000));
        let first = api.get(INIT, "").await;
        assert_eq!(first.headers()["hydrant-stale"], "content;age=10");
        api.clock.advance(Duration::from_secs(5));
        api.sight.saw(api.clock.unix_ms());
        let later = api
            .get(INIT, first.headers()["etag"].to_str().unwrap())
            .await;
        assert_eq!(later.status(), 304);
        assert_eq!(later.headers()["hydrant-stale"], "content;age=15");
    }

    #[tokio::test]
    async fn while_the_state_is_away_all_may_be_stale() {
        let api = Api::start().await;
        api.publish(json!(1), Some(90_000));
        let stale = async || api.get(INIT, "").await.headers()["hydrant-stale"].clone();
        assert_eq!(stale().await, "content;age=10");
        api.clock.advance(Duration::from_secs(8));
        assert_eq!(stale().await, "*;age=8, content;age=18");
        // The node's memory is of a time when the state was there.
        api.sight.saw(api.clock.unix_ms() - 6000);
        assert_eq!(stale().await, "*;age=6, content;age=18");
        api.sight.saw(api.clock.unix_ms() - 1000);
        assert_eq!(stale().await, "content;age=18");
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_a_problem_document() {
        let api = Api::start().await;
        for (path, status, reason) in [
            (INIT, 503, "no_snapshot"),
            ("/v1/init", 400, "bad_request"),
            (
                "/v1/init?platform=ios&platform=ios&version=1.0.0&locale=en",
                400,
                "bad_request",
            ),
            (
                "/v1/init?platform=ios&version=1&locale=en",
                400,
                "bad_request",
            ),
            ("/v1/other", 404, "no_such_page"),
        ] {
            let answer = api.get(path, "").await;
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["reason"], reason, "{path}");
        }
    }
}
