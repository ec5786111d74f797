//! `/v1/submissions/{id}/attachments`: requests of tus go to `service/submissions` as they come, a byte at a
//! time as it were, and its answers back.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use hydrant_sdk::{Code, Config, Context, Error, Fault};

use super::refusal::Refusal;
use super::{Front, identity, no_such_method};
use crate::attachments::tus::say_version;

/// How long a connection to the node may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The largest answer that is passed on, in bytes: a problem.
const MAX_ANSWER: usize = 64 * 1024;

/// What of a request is passed on.
const ASKED: [HeaderName; 11] = [
    HeaderName::from_static("tus-resumable"),
    HeaderName::from_static("upload-length"),
    HeaderName::from_static("upload-defer-length"),
    HeaderName::from_static("upload-offset"),
    HeaderName::from_static("upload-metadata"),
    HeaderName::from_static("upload-concat"),
    HeaderName::from_static("upload-checksum"),
    HeaderName::from_static("idempotency-key"),
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::EXPECT,
];
/// What of an answer is passed back.
const TOLD: [HeaderName; 13] = [
    HeaderName::from_static("tus-version"),
    HeaderName::from_static("tus-extension"),
    HeaderName::from_static("tus-max-size"),
    HeaderName::from_static("tus-checksum-algorithm"),
    HeaderName::from_static("upload-length"),
    HeaderName::from_static("upload-defer-length"),
    HeaderName::from_static("upload-offset"),
    HeaderName::from_static("upload-metadata"),
    HeaderName::from_static("upload-concat"),
    HeaderName::from_static("upload-expires"),
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
];
/// What a client sends in POST whose HTTP can't send the method itself.
const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The way to `service/submissions`, through the node, for what is streamed.
pub(super) struct Passage {
    client: reqwest::Client,
    /// Ends with a slash.
    base: String,
    token: Option<HeaderValue>,
}

impl Passage {
    pub(super) fn new(config: &Config) -> Self {
        let url = config.url.to_string();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        Self {
            client: client.build().unwrap_or_default(),
            base: format!("{}/service/submissions/", url.trim_end_matches('/')),
            token: config.token.clone(),
        }
    }

    /// Sends a request on. Bytes have no time limit here: the keeper has one for silence.
    async fn send(
        &self,
        method: Method,
        path: &str,
        asked: &HeaderMap,
        body: Body,
    ) -> Result<reqwest::Response, Error> {
        let mut headers = HeaderMap::new();
        for name in ASKED {
            let values = asked.get_all(&name).iter().cloned();
            headers.extend(values.map(|value| (name.clone(), value)));
        }
        if let Some(token) = &self.token {
            headers.insert(hydrant_contracts::header::TOKEN, token.clone());
        }
        if let Some(context) = Context::current() {
            context.forward(&mut headers);
        }
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = match body.is_end_stream() {
            true => request,
            false => request.body(reqwest::Body::wrap_stream(body.into_data_stream())),
        };
        let answer = request.headers(headers).send().await;
        answer.map_err(|error| away(&error))
    }
}

pub(super) fn routes() -> Router<Front> {
    Router::new()
        .route("/v1/submissions/{id}/attachments", any(all))
        .route("/v1/submissions/{id}/attachments/{upload}", any(one))
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(say_version))
}

async fn all(
    State(front): State<Front>,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = identity::of_path(&id)?;
    if !matches!(method, Method::OPTIONS | Method::POST) {
        return Err(not_allowed());
    }
    let path = format!("v1/submissions/{id}/attachments");
    let answer = front.0.uploads.send(method, &path, &headers, body).await?;
    Ok(passed_back(answer, Some(&id)).await?)
}

async fn one(
    State(front): State<Front>,
    Path((id, upload)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let id = identity::of_path(&id)?;
    let upload = identity::of_upload(&upload)?;
    let method = meant(method, &headers)?;
    let path = format!("v1/submissions/{id}/attachments/{upload}");
    let answer = front.0.uploads.send(method, &path, &headers, body).await?;
    Ok(passed_back(answer, None).await?)
}

/// The method that the client means.
fn meant(method: Method, headers: &HeaderMap) -> Result<Method, Refusal> {
    let other = headers.get(OVERRIDE).filter(|_| method == Method::POST);
    let method = match other {
        Some(other) => Method::from_bytes(other.as_bytes()).map_err(|_| not_allowed())?,
        None => method,
    };
    match method {
        Method::OPTIONS | Method::HEAD | Method::PATCH | Method::DELETE => Ok(method),
        _ => Err(not_allowed()),
    }
}

/// The answer, for the client. The URL of a new upload is below that of the submission.
async fn passed_back(answer: reqwest::Response, new: Option<&str>) -> Result<Response, Error> {
    let (status, told) = (answer.status(), answer.headers().clone());
    let body = match answer.content_length() {
        Some(length) if length > MAX_ANSWER as u64 => return Err(away(&"its answer is too long")),
        _ => answer.bytes().await.map_err(|error| away(&error))?,
    };
    let mut answer = (status, body).into_response();
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for name in TOLD {
        headers.extend(told.get(&name).map(|value| (name.clone(), value.clone())));
    }
    let location = told.get(header::LOCATION).and_then(|at| at.to_str().ok());
    let upload = location.and_then(|location| location.rsplit('/').next());
    if let (Some(id), Some(upload)) = (new, upload) {
        // The router puts the prefix of the service in front.
        let location = HeaderValue::try_from(format!("/v1/submissions/{id}/attachments/{upload}"));
        headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    }
    Ok(answer)
}

fn not_allowed() -> Refusal {
    Refusal::with_status(no_such_method(), StatusCode::METHOD_NOT_ALLOWED)
}

/// Why is for operators, in the log.
fn away(why: &dyn std::fmt::Display) -> Error {
    tracing::warn!(%why, "a request of tus can't be passed on to service/submissions");
    let message = "the attachment could not be passed on to service/submissions";
    let mut error = Error::new(Code::Unavailable, "service_unavailable", message)
        .fault(Fault::Ours)
        .mend("ask with HEAD, and go on at `Upload-Offset`");
    error.retryable = true;
    error
}
