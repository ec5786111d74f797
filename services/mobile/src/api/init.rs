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
use crate::api::gate::{Gate, Refusal};
use crate::api::parameters::{Parameters, refuse};
use crate::api::reply::{Reply, for_now};
use crate::api::serving::Serving;
use crate::keys::Caller;

/// The largest body of a request: a context.
const MAX_BODY: usize = 64 * 1024;
/// The longest that an answer is worked on.
const MAX_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn routes() -> axum::Router<Arc<Answers>> {
    let call = get(by_query).post(by_body);
    axum::Router::new().route("/v1/init", call.layer(DefaultBodyLimit::max(MAX_BODY)))
}

async fn by_query(State(answers): State<Arc<Answers>>, request: Request) -> Response {
    let question = request.uri().query().unwrap_or_default().as_bytes();
    let read = || Parameters::from_query(request.uri());
    let outcome = prepare(&answers, request.headers(), Call::Init, question, read);
    send(outcome).await
}

async fn by_body(
    State(answers): State<Arc<Answers>>,
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

async fn send(outcome: Result<Outcome, Box<Response>>) -> Response {
    match outcome {
        Ok(Outcome::Lasting(reply)) => reply.send().await,
        Ok(Outcome::Partial(answer)) => answer,
        Err(refusal) => *refusal,
    }
}

fn prepare(
    answers: &Answers,
    headers: &HeaderMap,
    call: Call,
    question: &[u8],
    read: impl FnOnce() -> Result<Parameters, Error>,
) -> Result<Outcome, Box<Response>> {
    let serving = answers.served.load();
    let caller = caller(&answers.gate, &serving, headers);
    let caller = caller.map_err(|refusal| Box::new(refusal.into_response()))?;
    let now = answers.clock.unix_ms();
    let key = Key::new(call, &caller, question);
    let body = match serving.cache.get(&key, now) {
        Some(body) => body,
        None => {
            let composed = work(&serving, &caller, read, now);
            let composed = composed.map_err(|error| Box::new(Problem(error).into_response()))?;
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
fn caller(gate: &Gate, serving: &Serving, headers: &HeaderMap) -> Result<Caller, Refusal> {
    match serving.has_revision {
        false => Ok(Caller::Anonymous),
        true => gate.admit_cached(&serving.compiled, headers),
    }
}

fn work(
    serving: &Serving,
    caller: &Caller,
    read: impl FnOnce() -> Result<Parameters, Error>,
    now: i64,
) -> Result<Composed, Error> {
    let parameters = read()?;
    if !serving.has_revision && serving.feed.is_none() {
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
mod tests;
