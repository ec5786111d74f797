//! Why a request is not run, in the notation of its protocol.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use hydrant_contracts::{Code, Error, Fault};

use super::IDEMPOTENCY_LEASE;
use crate::problem::Problem;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Problem,
    Connect,
}

/// An error, with a status that its code does not map to, and with headers.
pub(super) struct Refusal {
    error: Error,
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            error,
            status: None,
            headers: Vec::new(),
        }
    }
}

impl Refusal {
    fn with_status(error: Error, status: StatusCode) -> Self {
        Self {
            status: Some(status),
            ..error.into()
        }
    }

    pub(super) fn into_answer(self, style: Style, is_grpc: bool) -> Response {
        let usual = StatusCode::from_u16(self.error.http_status());
        let status = self
            .status
            .unwrap_or(usual.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        let mut answer = match style {
            _ if is_grpc => grpc(&self.error),
            Style::Problem => Problem(self.error).with_status(status),
            Style::Connect => connect(&self.error, status),
        };
        answer.headers_mut().extend(self.headers);
        answer
    }
}

fn connect(error: &Error, status: StatusCode) -> Response {
    let mut answer = Response::new(error.to_connect_json().into());
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn grpc(error: &Error) -> Response {
    let mut answer = Response::default();
    let kind = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    for (name, value) in error.to_grpc_trailers() {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

pub(super) fn no_key(takes_correlation_id: bool) -> Refusal {
    let also = match takes_correlation_id {
        true => ", or as `Correlation-Id`",
        false => "",
    };
    let message = "this request needs a key that the client made, and there is none";
    Error::new(Code::InvalidArgument, "no_idempotency_key", message)
        .mend(format!(
            "make a UUID once for each request, send it as `Idempotency-Key: \
             3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50`{also}, and send the same one when you repeat it"
        ))
        .into()
}

/// It says when the lease ends; a client may ask sooner, because most handlers end sooner.
pub(super) fn in_progress(lease: Duration) -> Refusal {
    let seconds = lease.as_millis().div_ceil(1000);
    let message = format!(
        "another request with this key is in progress; its lease ends in {seconds} seconds, unless it is renewed"
    );
    let error = Error::new(Code::Aborted, "in_progress", message)
        .mend("send it again, as it was, to get the outcome of the first one");
    let lease = HeaderValue::try_from(seconds.to_string());
    let lease = lease.unwrap_or(HeaderValue::from_static("1"));
    Refusal {
        headers: vec![
            (header::RETRY_AFTER, HeaderValue::from_static("1")),
            (IDEMPOTENCY_LEASE, lease),
        ],
        ..error.into()
    }
}

pub(super) fn reused() -> Refusal {
    let message = "this key was used for a request with another method, path or body";
    let mut error = Error::new(Code::AlreadyExists, "key_reused", message)
        .mend("make a new key for each request, and repeat one as it was");
    error.retryable = false;
    Refusal::with_status(error, StatusCode::UNPROCESSABLE_ENTITY)
}

pub(super) fn too_large(limit: usize) -> Refusal {
    let message = format!("the body has more than {limit} bytes");
    let error = Error::new(Code::OutOfRange, "too_large", message);
    Refusal::with_status(error, StatusCode::PAYLOAD_TOO_LARGE)
}

pub(super) fn too_slow() -> Refusal {
    let message = "the body did not come in time";
    let mut error = Error::new(Code::DeadlineExceeded, "too_slow", message)
        .mend("send it again under the same key");
    error.retryable = true;
    Refusal::with_status(error, StatusCode::REQUEST_TIMEOUT)
}

pub(super) fn broken_off() -> Refusal {
    let mut error = Error::new(Code::InvalidArgument, "broken_off", "the body broke off")
        .mend("send it again under the same key");
    error.retryable = true;
    error.into()
}

pub(super) fn overloaded() -> Refusal {
    let message = "too many requests with a key are in progress here";
    Error::new(Code::Unavailable, "overloaded", message)
        .mend("send it again later, under the same key")
        .into()
}

/// The state does not answer.
pub(super) fn no_state(error: &Error) -> Refusal {
    let message = format!("the key can't be looked up: {}", error.message);
    let code = match error.code {
        Code::Internal => Code::Internal,
        _ => Code::Unavailable,
    };
    Error::new(code, "keys_unavailable", message)
        .mend("send it again later, under the same key")
        .into()
}

/// The handler has run, and nobody can promise that its outcome is remembered.
pub(super) fn not_stored(error: &Error) -> Refusal {
    let message = format!("the outcome can't be stored: {}", error.message);
    Error::new(Code::Unavailable, "outcome_not_stored", message)
        .mend("send it again later, under the same key")
        .into()
}

pub(super) fn answer_too_large(limit: usize) -> Refusal {
    let message =
        format!("the answer has more than {limit} bytes, so it can't be stored under a key");
    Error::new(Code::Internal, "answer_too_large", message)
        .mend("the service answers with less, or says `answers_up_to`")
        .fault(Fault::Theirs)
        .into()
}

pub(super) fn panicked() -> Refusal {
    Error::new(Code::Internal, "panicked", "the handler broke off")
        .mend("send it again under the same key; the log of the service says more")
        .into()
}

pub(super) fn grpc_with_key() -> Refusal {
    let message = "keys are for Connect over POST; the answers of gRPC are not stored";
    Error::new(Code::Unimplemented, "no_keys_in_grpc", message)
        .mend("call with Connect, or without a key where none is required")
        .into()
}
