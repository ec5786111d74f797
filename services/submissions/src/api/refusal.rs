//! Why a request is refused, as `application/problem+json`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydrant_sdk::{Code, Error, Problem};
use serde_json::{Value, json};

use crate::forms::Mistake;

/// How soon a client may try again, in seconds.
const AGAIN: HeaderValue = HeaderValue::from_static("1");

/// A commit whose answer did not come: it has happened, or it has not, and the same request tells.
const UNCERTAIN: &str = "records_uncertain";

/// An error, with a status that its code does not map to, or with more in its body.
#[derive(Debug)]
pub(super) struct Refusal {
    error: Error,
    status: Option<StatusCode>,
    mistakes: Box<[Mistake]>,
    /// The form that it is about, when it is one.
    form: Box<str>,
}

impl Refusal {
    /// Says which form it is about.
    pub(super) fn of_form(mut self, form: &str) -> Self {
        self.form = form.into();
        self
    }

    pub(super) fn form(&self) -> &str {
        &self.form
    }

    /// Why, when it is for what the client has sent. That something here is away is no refusal.
    pub(super) fn reason(&self) -> Option<&str> {
        self.status()
            .is_client_error()
            .then_some(&*self.error.reason)
    }

    fn status(&self) -> StatusCode {
        let usual = StatusCode::from_u16(self.error.http_status());
        self.status
            .unwrap_or(usual.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }

    pub(super) fn with_status(error: Error, status: StatusCode) -> Self {
        Self {
            error,
            status: Some(status),
            mistakes: Box::default(),
            form: "".into(),
        }
    }

    /// 422, with the places of what does not fit.
    pub(super) fn of_fields(mistakes: Vec<Mistake>) -> Self {
        let message = "the fields do not fit the schema of the form";
        let error = Error::new(Code::InvalidArgument, "fields_invalid", message)
            .mend("mend what `errors` names; `GET /api/submissions/v1/forms` shows the schema");
        Self {
            error,
            status: Some(StatusCode::UNPROCESSABLE_ENTITY),
            mistakes: mistakes.into(),
            form: "".into(),
        }
    }
}

/// What the keeper says: some of it has a status of its own.
impl From<Error> for Refusal {
    fn from(mut error: Error) -> Self {
        let status = match &*error.reason {
            "key_reused" | "unknown_form" => Some(StatusCode::UNPROCESSABLE_ENTITY),
            UNCERTAIN => Some(StatusCode::SERVICE_UNAVAILABLE),
            _ => None,
        };
        // All that clients ask here may be asked again.
        error.retryable |= error.reason == UNCERTAIN;
        Self {
            error,
            status,
            mistakes: Box::default(),
            form: "".into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let is_retryable = self.error.retryable;
        let mut answer = match self.mistakes.is_empty() {
            true => Problem(self.error).with_status(status),
            false => with_mistakes(&self.error, status, &self.mistakes),
        };
        if is_retryable {
            answer.headers_mut().insert(header::RETRY_AFTER, AGAIN);
        }
        answer
    }
}

fn with_mistakes(error: &Error, status: StatusCode, mistakes: &[Mistake]) -> Response {
    let problem = error.to_problem_json_of(status.as_u16());
    let mut problem: Value = serde_json::from_slice(&problem).unwrap_or_default();
    problem["errors"] = json!(mistakes);
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_know_whether_it_has_happened_asks_again() {
        let error = Error::new(Code::Unknown, UNCERTAIN, "it may have happened or not");
        let answer = Refusal::from(error).into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
    }
}
