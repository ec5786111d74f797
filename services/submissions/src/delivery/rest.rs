//! Consumers that are web services: one request, under the submission's id as its key, and one reference.

use std::time::Duration;

use hydrant_outbound::{client_config, headers};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::facts::Facts;
use super::outcome::{Done, Failure, Trouble};
use crate::forms::{Body, Reference, Rest};
use crate::proto::Task;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer, in bytes, and the longest reference, in characters.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_REFERENCE: usize = 200;

/// The way to a web service.
pub(super) struct RestCourier {
    client: Client,
}

impl RestCourier {
    pub(super) fn new(rest: &Rest) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(concat!("hydrant-delivery/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .tls_backend_preconfigured(client_config(rest.ca.as_deref())?)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client })
    }

    /// Sends a submission, and reads the reference.
    pub(super) async fn deliver(&self, rest: &Rest, task: &Task) -> Result<Done, Failure> {
        let facts = Facts::new(task).ok_or_else(|| Failure::ours("the fields are no JSON"))?;
        let body = match &rest.body {
            Body::Whole => facts.whole(&[]),
            Body::Document(document) => facts.document(document),
        };
        let request = self
            .client
            .request(rest.method.clone(), facts.text(&rest.url, escape))
            .header(CONTENT_TYPE, "application/json")
            .headers(headers(&rest.headers, rest.credentials.as_ref()).await?)
            .headers(keys(&task.id))
            .body(body);
        let exchange =
            async { read(rest, request.send().await.map_err(|error| told(&error))?).await };
        timeout(rest.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::failing("it did not answer in time")))
    }
}

/// The key is the same at each attempt: a consumer that honours it counts them as one.
fn keys(id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in ["idempotency-key", "correlation-id"] {
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(name, id);
        }
    }
    headers
}

async fn read(rest: &Rest, mut answer: Response) -> Result<Done, Failure> {
    let status = answer.status().as_u16();
    let already = rest.already.iter().find(|rule| rule.status == status);
    let reference = match already {
        Some(rule) => &rule.reference,
        None if (200..=299).contains(&status) => &rest.reference,
        None => return Err(refusal(rest, status, answer.headers())),
    };
    let body = match reference {
        Reference::Pointer(_) => read_body(&mut answer).await?,
        Reference::Header(_) => Vec::new(),
    };
    match find(reference, answer.headers(), &body) {
        Some(reference) => Ok(Done {
            reference: Some(reference),
            evidence: json!({ "status": status }),
        }),
        // What else it says with this status is an answer about the submission.
        None if already.is_some() => Err(refusal(rest, status, answer.headers())),
        None => Err(Failure::failing(format!(
            "it answered {status} without a readable reference"
        ))),
    }
}

fn refusal(rest: &Rest, status: u16, headers: &HeaderMap) -> Failure {
    let reason = match status {
        300..=399 => format!("it answered {status}: redirects are not followed"),
        _ => format!("it answered {status}"),
    };
    let trouble = match status {
        _ if rest.refusals.contains(&status) => Trouble::Refused,
        // Who may not speak to it at all says nothing of the submission: a token that has run out must not
        // park a day's submissions.
        401 | 407 | 429 | 502..=504 => Trouble::Away,
        408 | 500..=599 => Trouble::Failing,
        _ if rest.retry.contains(&status) => Trouble::Failing,
        _ => Trouble::Refused,
    };
    let retry_after = match trouble {
        Trouble::Refused => None,
        _ => retry_after(headers),
    };
    Failure {
        trouble,
        reason,
        retry_after,
    }
}

/// How long a consumer wants to be left alone, in seconds; a date is too rarely one of the same clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

async fn read_body(answer: &mut Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| told(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Failure::failing("its answer has more than 64 kB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn find(reference: &Reference, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let text = match reference {
        Reference::Header(name) => headers.get(name)?.to_str().ok()?.trim().to_owned(),
        Reference::Pointer(pointer) => {
            let body: Value = serde_json::from_slice(body).ok()?;
            match body.pointer(pointer)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            }
        }
    };
    let is_good = (1..=MAX_REFERENCE).contains(&text.chars().count());
    (is_good && !text.chars().any(char::is_control)).then_some(text)
}

/// What went wrong, without the URL, whose query may hold secrets.
fn told(error: &reqwest::Error) -> Failure {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause: String = innermost.to_string().chars().take(200).collect();
    match error.is_connect() {
        true => Failure::away(format!("it can't be reached: {cause}")),
        false => Failure::failing(format!("the connection broke: {cause}")),
    }
}

/// As a part of a URL: all but letters, digits and `-._~` by their bytes.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests;
