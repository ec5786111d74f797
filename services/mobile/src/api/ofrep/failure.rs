//! Errors as OFREP writes them: `{"key"?, "errorCode", "errorDetails"}`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_flags::EvaluationError;
use serde_json::{Value, json};

use super::{JSON, REVISION};
use crate::api::gate::Refusal;

/// The codes of OpenFeature that are used.
pub(super) mod code {
    pub(in crate::api) const PARSE_ERROR: &str = "PARSE_ERROR";
    pub(in crate::api) const INVALID_CONTEXT: &str = "INVALID_CONTEXT";
    pub(in crate::api) const FLAG_NOT_FOUND: &str = "FLAG_NOT_FOUND";
    pub(in crate::api) const GENERAL: &str = "GENERAL";
}

/// Why a request has no evaluation for an answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    details: String,
    headers: Box<HeaderMap>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, details: impl Into<String>) -> Self {
        let no_store = HeaderValue::from_static("no-store");
        Self {
            status,
            code,
            details: details.into(),
            headers: Box::new([(header::CACHE_CONTROL, no_store)].into_iter().collect()),
        }
    }

    /// A flag that could not be evaluated.
    pub(super) fn of(error: &EvaluationError) -> Self {
        let status = match error {
            EvaluationError::FlagNotFound(_) => StatusCode::NOT_FOUND,
            EvaluationError::General(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, code_of(error), error.to_string())
    }

    /// The same, of an answer that was made from a revision.
    pub(super) fn of_revision(self, revision: u64) -> Self {
        self.with(REVISION, revision.into())
    }

    pub(super) fn with(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// As an answer; that of a single flag names it.
    pub(super) fn answer(self, key: Option<&str>) -> Response {
        let mut body = json!({ "errorDetails": self.details });
        // An error of the server has no code: none of the codes says that it is not the client's.
        if !self.status.is_server_error() {
            body["errorCode"] = self.code.into();
            if let Some(key) = key {
                body["key"] = Value::from(key);
            }
        }
        let mut answer = (self.status, body.to_string()).into_response();
        answer.headers_mut().extend(*self.headers);
        answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
        answer
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.error().to_string();
        let mut failure = Self::new(refusal.status(), code::GENERAL, details);
        refusal.describe(&mut failure.headers);
        failure
    }
}

/// The code of an error, in a single answer and in the list of all.
pub(super) fn code_of(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::FlagNotFound(_) => code::FLAG_NOT_FOUND,
        EvaluationError::General(_) => code::GENERAL,
    }
}
