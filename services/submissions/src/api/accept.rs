//! `POST /v1/submissions`: takes a submission in, once, however often it comes.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_sdk::{Code, Error, IDEMPOTENCY_REMEMBERED, IDEMPOTENCY_REPLAYED};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use super::{Front, body, identity, shown};
use crate::forms::{Form, MAX_FIELDS};
use crate::proto::AcceptRequest;

/// What stands around the fields, in bytes, at most.
const AROUND: usize = 16 * 1024;
/// How long the answer to an id is remembered, in seconds: as long as the submission is kept, and that is 90
/// days at least.
const REMEMBERED: HeaderValue = HeaderValue::from_static("7776000");

/// The body as a client writes it. The fields are kept as they were written: a number with many digits has
/// them all at the consumer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `form` and `fields`")]
struct Sent<'a> {
    form: String,
    #[serde(borrow)]
    fields: &'a RawValue,
}

pub(super) async fn accept(
    State(front): State<Front>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = identity::id(&headers);
    let known = id.clone().unwrap_or_default();
    let taken = match id {
        Ok(id) => take_in(&front, &headers, id, body).await,
        Err(error) => Err(error.into()),
    };
    taken.inspect_err(|refusal| front.0.refused.note(refusal, &headers, &known))
}

async fn take_in(
    front: &Front,
    headers: &HeaderMap,
    id: String,
    body: Body,
) -> Result<Response, Refusal> {
    let origin = identity::origin(headers)?;
    let body = body::read(headers, body, MAX_FIELDS.get() as usize + AROUND).await?;
    let text = std::str::from_utf8(&body).map_err(|_| no_text())?;
    let sent = parse(text)?;
    let form = front.0.forms.form(&sent.form);
    let form = form.ok_or_else(|| unknown_form(front, &sent.form))?;
    let of_form = |refusal: Refusal| refusal.of_form(&form.name);
    check_fields(form, sent.fields.get()).map_err(of_form)?;
    let request = AcceptRequest {
        id: id.clone(),
        form: sent.form,
        fields: sent.fields.get().to_owned(),
        origin: origin.into(),
        ..Default::default()
    };
    let accepted = front.0.keeper.accept(request).await;
    let accepted = accepted.map_err(|error| of_form(Error::from_connect(&error).into()))?;
    let accepted = accepted.into_owned();
    let mut answer = (StatusCode::CREATED, shown::accepted(&id, &accepted)).into_response();
    let headers = answer.headers_mut();
    // The router puts the prefix of the service in front.
    let location = HeaderValue::try_from(format!("/v1/submissions/{id}"));
    headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    headers.insert(IDEMPOTENCY_REMEMBERED, REMEMBERED);
    if accepted.replayed {
        let yes = HeaderValue::from_static("true");
        headers.insert(IDEMPOTENCY_REPLAYED, yes);
    }
    Ok(answer)
}

fn parse(text: &str) -> Result<Sent<'_>, Refusal> {
    // The whole first, so that a mistake in the fields has its place in the body.
    let broken = |error| Refusal::from(broken_json(&error));
    serde_json::from_str::<IgnoredAny>(text).map_err(broken)?;
    serde_json::from_str(text).map_err(broken)
}

fn check_fields(form: &Form, fields: &str) -> Result<(), Refusal> {
    if fields.len() > form.max_fields {
        let most = form.max_fields;
        let message = format!("the fields of `{}` have at most {most} bytes", form.name);
        let error = Error::new(Code::OutOfRange, "too_large", message)
            .mend("send what is large as an attachment");
        return Err(Refusal::with_status(error, StatusCode::PAYLOAD_TOO_LARGE));
    }
    let value: Value = serde_json::from_str(fields).map_err(|error| broken_json(&error))?;
    let mistakes = form.schema.mistakes(&value);
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Refusal::of_fields(mistakes)),
    }
}

/// What serde says names a place and a rule; values that stand there are not told.
fn broken_json(error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        serde_json::error::Category::Data => {
            "the body is not an object with `form` and `fields` and nothing else"
        }
        serde_json::error::Category::Eof => "the body ends too soon",
        _ => "the body is no JSON",
    };
    let message = format!("{what}: line {line}, column {column}");
    Error::new(Code::InvalidArgument, "broken_json", message)
        .mend(r#"send {"form": "demo", "fields": {"name": "Ada"}}"#)
}

fn no_text() -> Error {
    Error::new(
        Code::InvalidArgument,
        "broken_json",
        "the body is not UTF-8",
    )
    .mend(r#"send {"form": "demo", "fields": {"name": "Ada"}}"#)
}

fn unknown_form(front: &Front, form: &str) -> Refusal {
    let form: String = form.chars().take(100).collect();
    let message = format!("there is no form `{}`", form.escape_debug());
    Error::new(Code::InvalidArgument, "unknown_form", message)
        .mend(format!("one of: {}", front.0.forms.names()))
        .into()
}
