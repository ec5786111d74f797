//! What apps report: which arm they showed, and what they measured. It is handed to `service/mobile`,
//! and answered when it is durable there.
//!
//! - `POST /v1/exposures`: `{"exposures": [{"experiment", "subject", "arm", "at"?}]}`
//! - `POST /v1/metrics`: `{"metrics": [{"id", "metric", "subject", "experiment"?, "value"}]}`
//!
//! Requests that come while one is on its way are handed on together: under load there are no more
//! transactions, only larger ones.

mod forward;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use hydrant_sdk::{Code, Error, Problem};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::Answers;
use crate::api::gate::Admitted;
use crate::experiments::MAX_ITEMS;
use crate::keys::Caller;
use crate::proto::{Exposure, Measurement, Refusal};
pub(crate) use forward::Reports;

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// The most items of one request.
const MAX_OF_ONE: usize = 500;
/// How long an app waits until what it reports is durable.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the service is called again when it fails, so that the app hears why.
const AGAIN: Duration = Duration::from_secs(8);

const _: () = assert!(MAX_OF_ONE <= MAX_ITEMS, "a request fits into a batch");

pub(crate) fn routes() -> axum::Router<Arc<Answers>> {
    axum::Router::new()
        .route("/v1/exposures", post(exposures).fallback(only_post))
        .route("/v1/metrics", post(metrics).fallback(only_post))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn only_post() -> Response {
    let message = "what apps saw and measured is sent with POST";
    let error = Error::new(Code::InvalidArgument, "only_post", message);
    let mut answer = Problem(error).with_status(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = HeaderValue::from_static("POST, OPTIONS");
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

async fn exposures(
    admitted: Admitted,
    State(answers): State<Arc<Answers>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let items = read(body, "exposures").map_err(refuse)?;
    let (items, refused) = sort_out(items, |item: ExposureItem| item.checked(&admitted));
    let number = items.len() + refused.len();
    let told = answers.reports.exposures.hand_over(items, PATIENCE).await;
    Ok(answer(number, refused, told.map_err(refuse)?))
}

async fn metrics(
    admitted: Admitted,
    State(answers): State<Arc<Answers>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let items = read(body, "metrics").map_err(refuse)?;
    let (items, refused) = sort_out(items, |item: MetricItem| item.checked(&admitted));
    let number = items.len() + refused.len();
    let told = answers.reports.metrics.hand_over(items, PATIENCE).await;
    Ok(answer(number, refused, told.map_err(refuse)?))
}

/// An exposure as an app writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ExposureItem {
    experiment: String,
    subject: String,
    arm: String,
    at: Option<String>,
}

/// A measurement as an app writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct MetricItem {
    id: String,
    metric: String,
    subject: String,
    experiment: Option<String>,
    value: f64,
}

impl ExposureItem {
    fn checked(self, admitted: &Admitted) -> Result<Exposure, Refusal> {
        may_know(admitted, &self.experiment)?;
        let at = self.at.map(|at| at.parse::<jiff::Timestamp>());
        let at = at
            .transpose()
            .map_err(|_| refusal("bad_item", "`at` is no time as 2026-12-01T09:00:00Z".into()))?;
        Ok(Exposure {
            experiment: self.experiment,
            subject: self.subject,
            arm: self.arm,
            at_unix_ms: at.map(jiff::Timestamp::as_millisecond),
            ..Default::default()
        })
    }
}

impl MetricItem {
    fn checked(self, admitted: &Admitted) -> Result<Measurement, Refusal> {
        if let Some(experiment) = &self.experiment {
            may_know(admitted, experiment)?;
        }
        Ok(Measurement {
            id: self.id,
            metric: self.metric,
            subject: self.subject,
            experiment: self.experiment.unwrap_or_default(),
            value: self.value,
            ..Default::default()
        })
    }
}

/// An experiment on a flag that somebody may not see is not there for them.
fn may_know(admitted: &Admitted, experiment: &str) -> Result<(), Refusal> {
    let compiled = &admitted.compiled;
    let flag = compiled.experiments.definition(experiment);
    let flag = flag.and_then(|experiment| compiled.flags.get(&experiment.flag));
    match (&admitted.caller, flag) {
        (Caller::Anonymous, Some(flag)) if !admitted.caller.may_see(flag) => {
            let message = format!("there is no experiment `{}`", experiment.escape_debug());
            Err(refusal("unknown_experiment", message))
        }
        _ => Ok(()),
    }
}

fn refusal(reason: &str, message: String) -> Refusal {
    Refusal {
        reason: reason.into(),
        message,
        ..Default::default()
    }
}

/// The items of a body.
fn read(body: Result<Bytes, BytesRejection>, member: &'static str) -> Result<Vec<Value>, Error> {
    let body = body.map_err(|rejection| {
        let message = format!("the body is larger than {MAX_BODY} bytes, or broke off");
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Error::new(Code::OutOfRange, "too_large", message).mend("send it in parts")
            }
            _ => Error::new(Code::InvalidArgument, "bad_body", message),
        }
    })?;
    let form = format!("{{\"{member}\": [{{ … }}]}}");
    let bad = |what: String| {
        let message = format!("the body {what}");
        Error::new(Code::InvalidArgument, "bad_body", message)
            .mend(format!("send {form} with at most {MAX_OF_ONE} items"))
    };
    let mut body: Value =
        serde_json::from_slice(&body).map_err(|error| bad(format!("is not JSON: {error}")))?;
    match body.get_mut(member).map(Value::take) {
        Some(Value::Array(items)) if items.len() <= MAX_OF_ONE => Ok(items),
        Some(Value::Array(items)) => Err(bad(format!("has {} items", items.len()))),
        _ => Err(bad(format!("has no list `{member}`"))),
    }
}

/// The items that can be handed on, with their places, and those that are refused here.
fn sort_out<Item: DeserializeOwned, Sent>(
    items: Vec<Value>,
    check: impl Fn(Item) -> Result<Sent, Refusal>,
) -> (Vec<(u32, Sent)>, Vec<Refusal>) {
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for (item, index) in items.into_iter().zip(0..) {
        let read = serde_json::from_value(item);
        let read = read.map_err(|error| refusal("bad_item", error.to_string()));
        match read.and_then(&check) {
            Ok(one) => good.push((index, one)),
            Err(refusal) => refused.push(Refusal { index, ..refusal }),
        }
    }
    (good, refused)
}

/// A repeat is answered as the first was: it says what is refused, never what is new.
fn answer(number: usize, mut refused: Vec<Refusal>, told: Vec<Refusal>) -> Response {
    refused.extend(told);
    refused.sort_by_key(|refusal| refusal.index);
    let shown =
        |one: &Refusal| json!({"index": one.index, "reason": one.reason, "detail": one.message});
    let body = json!({
        "accepted": number - refused.len(),
        "refused": refused.iter().map(shown).collect::<Vec<_>>(),
    });
    Json(body).into_response()
}

fn refuse(error: Error) -> Response {
    let (retry, too_large) = (error.retryable, error.code == Code::OutOfRange);
    let mut answer = match too_large {
        true => Problem(error).with_status(StatusCode::PAYLOAD_TOO_LARGE),
        false => Problem(error).into_response(),
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}
