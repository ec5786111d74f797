//! What a client asks: its context.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use hydrant_flags::Context;
use hydrant_runtime::Clock;
use serde_json::{Map, Value};

use super::MAX_BODY;
use super::failure::{Failure, code};

/// How long a client may take to send its context.
const PATIENCE: Duration = Duration::from_secs(10);
const TARGETING_KEY: &str = "targetingKey";

/// The body of a request, read and checked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    attributes: Map<String, Value>,
}

impl Asked {
    /// Reads `{"context": {…}}`. A context may be missing, or have no `targetingKey`, as the SDKs send
    /// it for somebody who is not known; what is there must be what it should be. `headers` are those of
    /// the request, which were taken out of it.
    pub(super) async fn read(request: Request, headers: &HeaderMap) -> Result<Self, Failure> {
        check_kind(headers)?;
        let body = tokio::time::timeout(PATIENCE, Bytes::from_request(request, &())).await;
        let body = body
            .map_err(|_| too_slow())?
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => too_large(),
                status => Failure::new(status, code::PARSE_ERROR, rejection.body_text()),
            })?;
        Self::parse(&body)
    }

    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let body = serde_json::from_slice(body).map_err(|error| {
            let details = format!("the body is not the JSON {{\"context\": {{…}}}}: {error}");
            Failure::new(StatusCode::BAD_REQUEST, code::PARSE_ERROR, details)
        })?;
        let Value::Object(mut body) = body else {
            return Err(invalid("the body is a JSON object with a `context`"));
        };
        let attributes = match body.remove("context") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(attributes)) => attributes,
            Some(_) => return Err(invalid("`context` is a JSON object")),
        };
        match attributes.get(TARGETING_KEY) {
            None | Some(Value::String(_)) => Ok(Self { attributes }),
            Some(_) => Err(invalid("`targetingKey` is a string")),
        }
    }

    pub(super) fn context(&self, clock: &Clock) -> Context<'_> {
        Context {
            targeting_key: self.attributes.get(TARGETING_KEY).and_then(Value::as_str),
            attributes: &self.attributes,
            now_unix: clock.unix_ms().div_euclid(1000),
        }
    }
}

/// A body is JSON, in UTF-8, as it is; one whose kind is not said is taken for that.
fn check_kind(headers: &HeaderMap) -> Result<(), Failure> {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| !is_json(kind.as_bytes())) {
        let details = "the body of a request is `content-type: application/json`";
        return Err(unsupported(details));
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let details = "the body of a request is not compressed";
            let identity = HeaderValue::from_static("identity");
            Err(unsupported(details).with("accept-encoding", identity))
        }
        _ => Ok(()),
    }
}

fn is_json(kind: &[u8]) -> bool {
    let lower = kind.to_ascii_lowercase();
    let Ok(text) = std::str::from_utf8(&lower) else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_json = essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json");
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    is_json && charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8")
}

fn invalid(details: &str) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, code::INVALID_CONTEXT, details)
}

fn unsupported(details: &str) -> Failure {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Failure::new(status, code::PARSE_ERROR, details)
}

fn too_large() -> Failure {
    let details = format!("the body of a request has at most {MAX_BODY} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, code::PARSE_ERROR, details)
}

fn too_slow() -> Failure {
    let details = format!("the body did not come within {} s", PATIENCE.as_secs());
    Failure::new(StatusCode::REQUEST_TIMEOUT, code::PARSE_ERROR, details)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_counts_as_json() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; version=2", true),
            ("application/vnd.shop+json", true),
            ("application/json; charset=latin-1", false),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn a_context_may_be_missing_and_not_be_something_else() {
        for good in [
            "{}",
            r#"{"context": null}"#,
            r#"{"context": {}}"#,
            r#"{"context": {"targetingKey": "", "age": 1e400}, "more": 1}"#,
        ] {
            let parsed = Asked::parse(good.as_bytes());
            assert_eq!(parsed.is_ok(), !good.contains("1e400"), "{good}");
        }
        for (bad, expected) in [
            ("", code::PARSE_ERROR),
            ("{", code::PARSE_ERROR),
            ("[]", code::INVALID_CONTEXT),
            ("null", code::INVALID_CONTEXT),
            (r#"{"context": []}"#, code::INVALID_CONTEXT),
            (r#"{"context": "ada"}"#, code::INVALID_CONTEXT),
            (r#"{"context": {"targetingKey": 7}}"#, code::INVALID_CONTEXT),
            (
                r#"{"context": {"targetingKey": null}}"#,
                code::INVALID_CONTEXT,
            ),
        ] {
            let failure = Asked::parse(bad.as_bytes()).unwrap_err();
            let text = format!("{failure:?}");
            assert!(text.contains(expected), "{bad}: {text}");
        }
        let deep = "[".repeat(100_000);
        Asked::parse(deep.as_bytes()).unwrap_err();
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Asked::parse(&body);
        }

        #[test]
        fn any_kind_is_taken_or_not(kind in proptest::collection::vec(any::<u8>(), 0..60)) {
            is_json(&kind);
        }
    }
}
