//! Which submission a request is about, and who sends it.

use axum::http::{HeaderMap, HeaderName};
use hydrant_contracts::header::CORRELATION_ID;
use hydrant_sdk::{Code, Error, idempotency_key};
use uuid::Uuid;

use crate::proto::Origin;

const STORE: HeaderName = HeaderName::from_static("x-store-id");
const USER: HeaderName = HeaderName::from_static("x-user-id");
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

/// The longest text that a client may say of itself, in bytes.
const MAX_ORIGIN: usize = 100;

/// The id that the client made for what it sends: a UUID in `Correlation-Id`, or in `Idempotency-Key`, with or
/// without quotes. In small letters.
///
/// # Errors
///
/// If there is none, it is no UUID, or there are two that differ.
pub(super) fn id(headers: &HeaderMap) -> Result<String, Error> {
    let correlation = uuid(headers, CORRELATION_ID);
    match (idempotency_key(headers)?, correlation) {
        (None, correlation) => correlation.ok_or_else(no_id),
        (Some(key), Some(other)) if other != key => Err(two_ids()),
        (Some(key), _) => Ok(key),
    }
}

/// A UUID with its hyphens: the router gives requests that have no correlation id one without.
fn uuid(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else {
        return None;
    };
    parse(value.trim().trim_matches('"'))
}

/// The id of a path, in small letters.
///
/// # Errors
///
/// If it is no UUID.
pub(super) fn of_path(id: &str) -> Result<String, Error> {
    parse(id).ok_or_else(|| {
        let message = "the id of a submission is a UUID, and this is none";
        Error::new(Code::NotFound, "unknown_submission", message)
            .mend("take the URL from the header `Location` of the answer to the POST")
    })
}

/// The id of an upload, of a path.
///
/// # Errors
///
/// If it is no UUID.
pub(super) fn of_upload(id: &str) -> Result<String, Error> {
    parse(id).ok_or_else(|| {
        let message = "the id of an upload is a UUID, and this is none";
        Error::new(Code::NotFound, "unknown_upload", message)
            .mend("take the URL from the header `Location` of the answer to the POST")
    })
}

fn parse(text: &str) -> Option<String> {
    let is_hyphenated = text.len() == 36;
    let uuid = Uuid::try_parse(text).ok().filter(|_| is_hyphenated)?;
    Some(uuid.to_string())
}

/// Who sends, as the client says it.
///
/// # Errors
///
/// If a text of it can't be kept.
pub(super) fn origin(headers: &HeaderMap) -> Result<Origin, Error> {
    Ok(Origin {
        store: text(headers, &STORE)?,
        user: text(headers, &USER)?,
        session: text(headers, &SESSION)?,
        ..Default::default()
    })
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<String, Error> {
    let Some(value) = headers.get(name) else {
        return Ok(String::new());
    };
    let text = value.to_str().map(str::trim);
    match text {
        Ok(text) if text.len() <= MAX_ORIGIN => Ok(text.to_owned()),
        _ => Err(bad_origin(name)),
    }
}

fn no_id() -> Error {
    let message =
        "a submission needs an id that the client made, and there is none, or it is no UUID";
    Error::new(Code::InvalidArgument, "no_correlation_id", message).mend(
        "make a UUID once for each submission, send it as `Correlation-Id: \
         3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50`, and send the same one when you repeat it",
    )
}

fn two_ids() -> Error {
    let message = "Idempotency-Key and Correlation-Id are two different UUIDs";
    Error::new(Code::InvalidArgument, "two_ids", message)
        .mend("they mean the same here: send one of them, or the same in both")
}

fn bad_origin(name: &HeaderName) -> Error {
    let message = format!("the header {name} is not at most {MAX_ORIGIN} visible ASCII characters");
    Error::new(Code::InvalidArgument, "bad_header", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50";
    const OTHER: &str = "00000000-0000-4000-8000-000000000000";

    fn read(pairs: &[(&'static str, &str)]) -> Result<String, String> {
        let pairs = pairs.iter();
        let headers =
            pairs.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        id(&headers).map_err(|error| error.reason.into_owned())
    }

    #[test]
    fn both_headers_mean_the_same() {
        let upper = ONE.to_uppercase();
        let quoted = format!("\"{ONE}\"");
        for pairs in [
            &[("correlation-id", ONE)][..],
            &[("correlation-id", upper.as_str())],
            &[("idempotency-key", quoted.as_str())],
            &[("idempotency-key", ONE), ("correlation-id", ONE)],
            &[("idempotency-key", ONE), ("correlation-id", "order-7")],
        ] {
            assert_eq!(read(pairs).as_deref(), Ok(ONE), "{pairs:?}");
        }
    }

    #[test]
    fn what_the_router_made_is_no_clients_id() {
        let made = hydrant_sdk::CorrelationId::generate();
        for (pairs, reason) in [
            (&[][..], "no_correlation_id"),
            (&[("correlation-id", made.as_str())], "no_correlation_id"),
            (&[("correlation-id", "order-7")], "no_correlation_id"),
            (&[("idempotency-key", "7")], "bad_idempotency_key"),
            (
                &[("idempotency-key", ONE), ("correlation-id", OTHER)],
                "two_ids",
            ),
        ] {
            assert_eq!(read(pairs), Err(reason.into()), "{pairs:?}");
        }
    }
}
