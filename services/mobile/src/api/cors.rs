//! Pages of other origins in browsers: the CORS protocol of the Fetch standard.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::api::serving::Served;
use crate::settings::Cors;

/// What a page may send beyond what every page may.
const SENT: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-none-match, x-api-key");
/// What a page may read beyond what every page may.
const READ: HeaderValue =
    HeaderValue::from_static("etag, retry-after, hydrant-revision, hydrant-stale");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
const PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_TOO: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// A layer for all routes: answers preflights, and says on every other answer who may read it.
pub(crate) async fn cors(State(served): State<Served>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let compiled = std::sync::Arc::clone(&served.load().compiled);
    let cors = &compiled.settings.cors;
    let mut answer = if is_preflight(&request) {
        preflight(cors, request.headers())
    } else {
        next.run(request).await
    };
    allow(cors, &origin, answer.headers_mut());
    answer
}

fn is_preflight(request: &Request) -> bool {
    let asked = header::ACCESS_CONTROL_REQUEST_METHOD;
    request.method() == Method::OPTIONS && request.headers().contains_key(asked)
}

fn preflight(cors: &Cors, asked: &HeaderMap) -> Response {
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age_seconds.into());
    // A page from the internet that asks a server in the office: no more than others may ask.
    if asked.contains_key(PRIVATE) {
        headers.insert(PRIVATE_TOO, HeaderValue::from_static("true"));
    }
    answer
}

/// A page that may not ask gets an answer that its browser does not show it.
fn allow(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    if !cors.is_open() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(allowed) = cors.allowed(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }
}
