//! Bodies of requests, within their limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt as _;
use hydrant_sdk::{Code, Error};
use tokio::time::timeout;

use super::refusal::Refusal;

/// How long a body may take, and how long nothing may come.
const WHOLE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(10);

/// The whole body of at most `limit` bytes.
///
/// # Errors
///
/// 413 if it is larger, 408 if it is too slow, 400 if it breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Vec<u8>, Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let read = timeout(WHOLE, gather(body, limit)).await;
    read.unwrap_or_else(|_| Err(too_slow()))
}

async fn gather(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    loop {
        match timeout(SILENCE, stream.next()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => return Ok(whole),
            Ok(Some(Err(_))) => return Err(broken_off()),
            Ok(Some(Ok(chunk))) if whole.len() + chunk.len() > limit => {
                return Err(too_large(limit));
            }
            Ok(Some(Ok(chunk))) => whole.extend_from_slice(&chunk),
        }
    }
}

fn too_large(limit: usize) -> Refusal {
    let message = format!("the body has more than {limit} bytes");
    let error = Error::new(Code::OutOfRange, "too_large", message)
        .mend("send what is large as an attachment");
    Refusal::with_status(error, StatusCode::PAYLOAD_TOO_LARGE)
}

fn too_slow() -> Refusal {
    let message = "the body did not come in time";
    let mut error = Error::new(Code::DeadlineExceeded, "too_slow", message)
        .mend("send it again under the same Correlation-Id");
    error.retryable = true;
    Refusal::with_status(error, StatusCode::REQUEST_TIMEOUT)
}

fn broken_off() -> Refusal {
    let message = "the body broke off";
    let mut error = Error::new(Code::InvalidArgument, "broken_off", message)
        .mend("send it again under the same Correlation-Id");
    error.retryable = true;
    error.into()
}
