//! OFREP 0.3, the remote evaluation protocol of OpenFeature: one flag, or all that who asks may see.
//!
//! - `POST /ofrep/v1/evaluate/flags/{key}`
//! - `POST /ofrep/v1/evaluate/flags`, with an `ETag` over the whole answer, and so over the context
//! - `GET /ofrep/v1/events`, the stream that tells clients to ask again: [`events`]

mod answer;
mod changes;
mod events;
mod failure;
mod leaving;
mod request;
mod seats;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hydrant_flags::{Context, EvaluationError};

use crate::api::Answers;
use crate::api::conditional::{etag_of, is_named};
use crate::api::encoding;
use crate::api::gate::Admitted;
pub(crate) use answer::write_flag;
pub(crate) use changes::{Changes, Heard, changes};
use failure::{Failure, code};
pub(crate) use leaving::leave_when_drained;
use request::Asked;
pub(crate) use seats::Seats;

/// The largest body of a request: a context.
const MAX_BODY: usize = 64 * 1024;
/// The largest answer whose room a thread keeps for the next one.
const MAX_KEPT: usize = 1 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const REVISION: &str = "hydrant-revision";

pub(crate) fn routes() -> axum::Router<Arc<Answers>> {
    axum::Router::new()
        .route("/ofrep/v1/evaluate/flags", post(all).fallback(only_post))
        .route(
            "/ofrep/v1/evaluate/flags/{*key}",
            post(one).fallback(only_post),
        )
        .route("/ofrep/v1/events", get(events::events))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn only_post() -> Response {
    let mut answer = Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        code::GENERAL,
        "flags are evaluated with POST and a context",
    )
    .answer(None);
    let allowed = HeaderValue::from_static("POST, OPTIONS");
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

async fn one(State(answers): State<Arc<Answers>>, mut request: Request) -> Response {
    let key = match request.extract_parts::<Path<String>>().await {
        Ok(Path(key)) => key,
        Err(error) => {
            let details = format!("the key of the flag can't be read: {error}");
            let failure = Failure::new(StatusCode::BAD_REQUEST, code::PARSE_ERROR, details);
            return failure.answer(Some(""));
        }
    };
    let answered = evaluate_one(&answers, &key, request).await;
    answered.unwrap_or_else(|failure| failure.answer(Some(&key)))
}

async fn evaluate_one(
    answers: &Answers,
    key: &str,
    mut request: Request,
) -> Result<Response, Failure> {
    let headers = std::mem::take(request.headers_mut());
    let admitted = answers.gate.admit(&headers)?;
    let asked = Asked::read(request, &headers).await?;
    let context = asked.context(&answers.clock);
    let body = one_body(&admitted, key, &context);
    let body = body.map_err(|failure| failure.of_revision(admitted.compiled.revision))?;
    let mut answer = ([(header::CONTENT_TYPE, JSON)], body).into_response();
    describe(answer.headers_mut(), &admitted);
    Ok(answer)
}

/// A flag that somebody may not see is not there for them: nothing tells that it exists.
fn one_body(admitted: &Admitted, key: &str, context: &Context<'_>) -> Result<Vec<u8>, Failure> {
    let compiled = &admitted.compiled;
    let flag = compiled.flags.get(key);
    let flag = flag
        .filter(|flag| admitted.caller.may_see(flag))
        .ok_or_else(|| Failure::of(&EvaluationError::FlagNotFound(key.to_owned())))?;
    let evaluated = compiled.evaluate_flag(flag, context);
    let evaluated = evaluated.map_err(|error| Failure::of(&error))?;
    let mut body = Vec::with_capacity(512);
    answer::write_answer(&mut body, &evaluated);
    Ok(body)
}

async fn all(State(answers): State<Arc<Answers>>, request: Request) -> Response {
    let answered = evaluate_all(&answers, request).await;
    answered.unwrap_or_else(|failure| failure.answer(None))
}

async fn evaluate_all(answers: &Answers, mut request: Request) -> Result<Response, Failure> {
    let headers = std::mem::take(request.headers_mut());
    let admitted = answers.gate.admit(&headers)?;
    let asked = Asked::read(request, &headers).await?;
    let context = asked.context(&answers.clock);
    let mut answer = with_room(|room| {
        answer::write_bulk(room, &admitted, &context);
        conditional(room, &headers)
    });
    describe(answer.headers_mut(), &admitted);
    Ok(answer)
}

/// The whole answer, or 304 without it when the client has it. The tag is over every byte, so it covers
/// the context as far as the context matters.
fn conditional(body: &[u8], asked: &HeaderMap) -> Response {
    let strong = etag_of(body);
    let mut known = asked.get_all(header::IF_NONE_MATCH).iter();
    let coding = encoding::choose(asked, body.len());
    let (mut answer, etag) = if known.any(|value| names(value.as_bytes(), &strong)) {
        (StatusCode::NOT_MODIFIED.into_response(), strong)
    } else if let Some((coding, Ok(bytes))) = coding.map(|coding| (coding, coding.encode(body))) {
        let headers = [
            (header::CONTENT_TYPE, JSON),
            (header::CONTENT_ENCODING, coding.header()),
        ];
        // Other bytes than those of the strong tag, with the same meaning.
        ((headers, bytes).into_response(), format!("W/{strong}"))
    } else {
        let bytes = Bytes::copy_from_slice(body);
        (
            ([(header::CONTENT_TYPE, JSON)], bytes).into_response(),
            strong,
        )
    };
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    answer
}

/// Whether `If-None-Match` names a tag. Some clients take the quotes off before they keep it.
fn names(if_none_match: &[u8], etag: &str) -> bool {
    let bare = if_none_match.trim_ascii();
    let bare = bare.strip_prefix(b"W/").unwrap_or(bare);
    bare == etag.trim_matches('"').as_bytes() || is_named(if_none_match, etag)
}

/// What is the same for every answer of a revision, 304 among them.
fn describe(headers: &mut HeaderMap, admitted: &Admitted) {
    let private = HeaderValue::from_static("private, no-cache");
    headers.insert(header::CACHE_CONTROL, private);
    headers.insert(REVISION, admitted.compiled.revision.into());
}

/// Writes into room that a thread keeps from one answer to the next.
fn with_room<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    ROOM.with_borrow_mut(|room| {
        room.clear();
        let written = write(room);
        if room.capacity() > MAX_KEPT {
            *room = Vec::new();
        }
        written
    })
}
