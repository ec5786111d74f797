use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydrant_contracts::{Code, Error};

/// An error as the answer of a plain HTTP route: `application/problem+json` (RFC 9457). A handler
/// that returns `Result<_, Problem>` may use `?` on an [`Error`].
#[derive(Clone, Debug)]
pub struct Problem(pub Error);

impl Problem {
    /// The answer with a status that no code maps to, as 413: in its head and in its body.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Response {
        let mut answer = Response::new(self.0.to_problem_json_of(status.as_u16()).into());
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.0.retryable && self.0.code == Code::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status());
        self.with_status(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
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

    #[tokio::test]
    async fn a_status_of_its_own_stands_in_head_and_body() {
        let error = Error::new(Code::OutOfRange, "too_large", "it is too large");
        let answer = Problem(error).with_status(StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.status(), 413);
        let body = axum::body::to_bytes(answer.into_body(), 1000)
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&body).contains("\"status\":413"));
    }
}
