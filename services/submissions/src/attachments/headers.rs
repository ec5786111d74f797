//! The headers of tus.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::checksum::{ALGORITHMS, Checksum};
use super::metadata::Metadata;
use super::refusal::{Refusal, bad_header, wrong_content_type, wrong_version};
use super::rows::{State, Upload};

pub(super) const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub(super) const VERSION: HeaderName = HeaderName::from_static("tus-version");
pub(super) const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub(super) const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub(super) const ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const DEFER: HeaderName = HeaderName::from_static("upload-defer-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const BYTES: &str = "application/offset+octet-stream";
/// The longest `Upload-Concat`, in bytes.
const MAX_CONCAT: usize = 16 * 1024;

/// What an upload is in a concatenation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concat {
    Partial,
    /// The header, and the ids of the parts.
    Final(String, Vec<String>),
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(bad_header(
            name.as_str(),
            "it stands there twice, or is not ASCII",
        )),
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(text) = text(headers, name)? else {
        return Ok(None);
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<i64>().ok().filter(|_| is_number);
    match number {
        Some(number) => Ok(Some(number.unsigned_abs())),
        None => Err(bad_header(name.as_str(), "it is no number of bytes")),
    }
}

/// # Errors
///
/// 412, if the request speaks another version of tus, or none.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match text(headers, &RESUMABLE)? {
        Some(super::tus::VERSION) => Ok(()),
        _ => Err(wrong_version()),
    }
}

pub(super) fn offset(headers: &HeaderMap) -> Result<u64, Refusal> {
    let missing = || bad_header(OFFSET.as_str(), "it is missing");
    number(headers, &OFFSET)?.ok_or_else(missing)
}

/// The length of an upload; none when it is said later.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    number(headers, &LENGTH)
}

/// The same, of a new upload.
pub(super) fn length_of_new(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    match (number(headers, &LENGTH)?, text(headers, &DEFER)?) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some("1")) => Ok(None),
        (None, None) => Err(bad_header(LENGTH.as_str(), "it is missing")),
        _ => Err(bad_header(
            DEFER.as_str(),
            "it is 1, and then there is no Upload-Length",
        )),
    }
}

pub(super) fn another_length(length: u64) -> Refusal {
    bad_header(
        LENGTH.as_str(),
        &format!("{length} bytes were said before, or came"),
    )
}

pub(super) fn metadata(headers: &HeaderMap) -> Result<Metadata, Refusal> {
    let text = text(headers, &METADATA)?.unwrap_or_default();
    Metadata::parse(text).map_err(|why| bad_header(METADATA.as_str(), &why))
}

pub(super) fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Refusal> {
    let Some(text) = text(headers, &CHECKSUM)? else {
        return Ok(None);
    };
    let why = format!("it is one of {ALGORITHMS}, a space, and the hash in base64");
    let checksum = Checksum::parse(text).ok_or_else(|| bad_header(CHECKSUM.as_str(), &why));
    checksum.map(Some)
}

pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    match is_bytes(headers) {
        true => Ok(()),
        false => Err(wrong_content_type()),
    }
}

/// Whether the body is bytes of an upload.
pub(super) fn is_bytes(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(BYTES.as_bytes()))
}

/// How long the body is, when that is known.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// The id that a client has made for a new upload, so that a repeat makes no second one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(text) = text(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let text = text.trim_matches('"');
    let uuid = uuid::Uuid::try_parse(text)
        .ok()
        .filter(|_| text.len() == 36);
    match uuid {
        Some(uuid) => Ok(Some(uuid.to_string())),
        None => Err(bad_header(IDEMPOTENCY_KEY.as_str(), "it is no UUID")),
    }
}

/// The parts of a final upload are named by their URLs, of which the last segment counts.
pub(super) fn concat(headers: &HeaderMap) -> Result<Option<Concat>, Refusal> {
    let Some(text) = text(headers, &CONCAT)? else {
        return Ok(None);
    };
    if text == "partial" {
        return Ok(Some(Concat::Partial));
    }
    let urls = text
        .strip_prefix("final;")
        .filter(|_| text.len() <= MAX_CONCAT);
    let why = "it is `partial`, or `final;` and the URLs of the parts";
    let urls = urls.ok_or_else(|| bad_header(CONCAT.as_str(), why))?;
    let last = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let ids: Vec<_> = urls.split_ascii_whitespace().map(last).collect();
    match ids.is_empty() {
        true => Err(bad_header(CONCAT.as_str(), why)),
        false => Ok(Some(Concat::Final(text.to_owned(), ids))),
    }
}

/// How an upload stands, for its client.
pub(super) fn of_upload(upload: &Upload) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, text: String| {
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
    };
    put(OFFSET, upload.received.to_string());
    match upload.length {
        Some(length) => put(LENGTH, length.to_string()),
        None => put(DEFER, "1".into()),
    }
    if !upload.meta.text.is_empty() {
        put(METADATA, upload.meta.text.clone());
    }
    if let Some(concat) = &upload.concat {
        put(CONCAT, concat.clone());
    }
    if matches!(upload.state, State::Open | State::Part) {
        put(EXPIRES, http_date(upload.expires_ms));
    }
    headers
}

fn http_date(unix_ms: i64) -> String {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let time = jiff::Timestamp::from_millisecond(unix_ms);
    let text = time.and_then(|time| printer.timestamp_to_rfc9110_string(&time));
    text.unwrap_or_default()
}
