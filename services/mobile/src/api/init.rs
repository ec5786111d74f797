//! `GET` and `POST /v1/init`: all that an app needs at its start, in one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hydrant_sdk::{Code, Context, Error, Problem};

use crate::api::Answers;
use crate::api::body::{Composed, Patience, compose};
use crate::api::cache::{Body, Call, Key};
use crate::api::gate::Refusal;
use crate::api::parameters::{Parameters, refuse};
use crate::api::reply::{Reply, for_now};
use crate::api::serving::Serving;
use crate::keys::Caller;

/// The largest body of a request: a context.
const MAX_BODY: usize = 64 * 1024;
/// The longest that an answer is worked on.
const MAX_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn routes() -> axum::Router<Answers> {
    let call = get(by_query).post(by_body);
    axum::Router::new().route("/v1/init", call.layer(DefaultBodyLimit::max(MAX_BODY)))
}

async fn by_query(State(answers): State<Answers>, request: Request) -> Response {
    let question = request.uri().query().unwrap_or_default().as_bytes();
    let read = || Parameters::from_query(request.uri());
    let outcome = prepare(&answers, request.headers(), Call::Init, question, read);
    send(outcome).await
}

async fn by_body(
    State(answers): State<Answers>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) => return Problem(unreadable(&error)).into_response(),
    };
    let read = || Parameters::from_body(&body);
    let outcome = prepare(&answers, &headers, Call::InitByBody, &body, read);
    send(outcome).await
}

/// What is answered.
enum Outcome {
    /// A body that may be kept.
    Lasting(Reply),
    /// What there was time for.
    Partial(Response),
}

async fn send(outcome: Result<Outcome, Response>) -> Response {
    match outcome {
        Ok(Outcome::Lasting(reply)) => reply.send().await,
        Ok(Outcome::Partial(answer)) | Err(answer) => answer,
    }
}

fn prepare(
    answers: &Answers,
    headers: &HeaderMap,
    call: Call,
    question: &[u8],
    read: impl FnOnce() -> Result<Parameters, Error>,
) -> Result<Outcome, Response> {
    let serving = answers.served.load();
    let caller = caller(&serving, headers).map_err(Refusal::into_response)?;
    let now = answers.clock.unix_ms();
    let key = Key::new(call, &caller, question);
    let body = match serving.cache.get(&key, now) {
        Some(body) => body,
        None => {
            let composed = work(&serving, &caller, read, now);
            let composed = composed.map_err(|error| Problem(error).into_response())?;
            match keep(&serving, key, composed) {
                Ok(body) => body,
                Err(partial) => {
                    let mut answer = for_now(partial, &serving);
                    describe(answer.headers_mut(), answers, &serving, now);
                    return Ok(Outcome::Partial(answer));
                }
            }
        }
    };
    let mut reply = Reply::new(body, headers).describe(&serving, &caller);
    describe(reply.headers(), answers, &serving, now);
    Ok(Outcome::Lasting(reply))
}

/// Who asks. Before the first revision no key is known, and there is nothing that needs one.
fn caller(serving: &Serving, headers: &HeaderMap) -> Result<Caller, Refusal> {
    match serving.compiled.revision {
        0 => Ok(Caller::Anonymous),
        _ => serving
            .compiled
            .keys
            .caller(headers)
            .map_err(Refusal::WrongKey),
    }
}

fn work(
    serving: &Serving,
    caller: &Caller,
    read: impl FnOnce() -> Result<Parameters, Error>,
    now: i64,
) -> Result<Composed, Error> {
    let parameters = read()?;
    if serving.compiled.revision == 0 && serving.feed.is_none() {
        return Err(no_snapshot());
    }
    let waits = Context::current().and_then(|context| context.time_left());
    let limits = [parameters.deadline, waits, Some(MAX_PATIENCE)];
    let patience = Patience::of(limits.into_iter().flatten().min());
    Ok(compose(serving, caller, &parameters, now, &patience))
}

/// Keeps a body that is whole; one that is not comes back.
fn keep(serving: &Serving, key: Key, composed: Composed) -> Result<Arc<Body>, Vec<u8>> {
    match composed.is_whole {
        true => Ok(serving.cache.put(key, composed.bytes, composed.until)),
        false => Err(composed.bytes),
    }
}

/// What is new with every request: the ages of what is stale. They stand in headers, not in the
/// body, which the ETag covers.
fn describe(headers: &mut HeaderMap, answers: &Answers, serving: &Serving, now: i64) {
    if let Some(feed) = &serving.feed {
        headers.insert("hydrant-snapshot-epoch", feed.epoch().into());
    }
    let age = |since: i64| now.saturating_sub(since).max(0) / 1000;
    let state = answers.sight.age().map(|age| format!("*;age={age}"));
    let revision = serving.refused.as_ref().map(|refused| {
        let age = age(refused.since);
        format!("config;age={age}, content;age={age}, flags;age={age}")
    });
    let sources = serving.feed.as_ref().and_then(|feed| feed.stale(now));
    let stale: Vec<String> = [state, revision, sources].into_iter().flatten().collect();
    if stale.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&stale.join(", ")) {
        headers.insert("hydrant-stale", value);
    }
}

fn no_snapshot() -> Error {
    let message = "the sources have not been asked yet";
    Error::new(Code::Unavailable, "no_snapshot", message)
}

fn unreadable(error: &BytesRejection) -> Error {
    refuse(format!(
        "the body can't be read, or is larger than {MAX_BODY} bytes: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use std::sync::Arc;
    use std::time::Duration;

    use hydrant_runtime::Clock;

    use super::*;
    use crate::api::compose::Feed;
    use crate::api::ofrep;
    use crate::api::routes;
    use crate::api::serving::{Served, swap_feed};
    use crate::api::sight::Sight;
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
