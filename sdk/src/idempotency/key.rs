//! What a request is known by: its key, and the fingerprint of its content.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, Method};
use hydrant_contracts::header::{CALLER, CORRELATION_ID, IDEMPOTENCY_KEY};
use hydrant_contracts::{Code, Error};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The key that the client made: a UUID with its hyphens in `Idempotency-Key`, with or without quotes, in small
/// letters; `None` when there is no such header.
///
/// # Errors
///
/// `bad_idempotency_key` if the header is no UUID, or is there twice.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(None);
    }
    uuid(headers, IDEMPOTENCY_KEY).ok_or_else(bad_key).map(Some)
}

/// The correlation id when a client made it: the router gives requests that have none one without hyphens.
pub(super) fn correlation_id(headers: &HeaderMap) -> Option<String> {
    uuid(headers, CORRELATION_ID)
}

fn uuid(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else {
        return None;
    };
    let text = value.trim().trim_matches('"');
    let is_hyphenated = text.len() == 36;
    let uuid = Uuid::try_parse(text).ok().filter(|_| is_hyphenated)?;
    Some(uuid.to_string())
}

/// Where the key of this caller stands in the state.
pub(super) fn place(key: &str, headers: &HeaderMap, scopes: &[HeaderName]) -> String {
    let mut hash = Sha256::new();
    add(&mut hash, key.as_bytes());
    add(&mut hash, value(headers, CALLER));
    for scope in scopes {
        add(&mut hash, value(headers, scope.as_str()));
    }
    format!("idempotency/{}", hex(&hash.finalize()))
}

/// What tells two contents under one key apart.
pub(super) fn fingerprint(method: &Method, path: &str, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    add(&mut hash, method.as_str().as_bytes());
    add(&mut hash, path.as_bytes());
    add(&mut hash, body);
    hex(&hash.finalize())
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a [u8] {
    headers.get(name).map_or(&[], |value| value.as_bytes())
}

/// With its length in front, so that no two lists of parts are the same bytes.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bad_key() -> Error {
    let message = "the Idempotency-Key is no UUID";
    Error::new(Code::InvalidArgument, "bad_idempotency_key", message)
        .mend("write it as Idempotency-Key: \"3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50\"")
}
