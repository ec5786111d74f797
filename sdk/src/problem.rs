use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydrant_contracts::{Code, Error};

/// An error as the answer of a plain HTTP route: `application/problem+json` (RFC 9457). A handler
/// that returns `Result<_, Problem>` may use `?` on an [`Error`].
#[derive(Clone, Debug)]
pub struct Problem(pub Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status());
        let mut answer = Response::new(self.0.to_problem_json().into());
        *answer.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.0.retryable && self.0.code == Code::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_status_and_kind() {
        let error = Error::new(Code::Unavailable, "no_snapshot", "not yet");
        let answer = Problem(error).into_response();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["retry-after"], "1");
    }
}
