//! Pages of other origins in browsers: the CORS protocol of the Fetch standard, with the headers of tus.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Front;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, OPTIONS");
/// What a page may send beyond what every page may.
const SENT: HeaderValue = HeaderValue::from_static(
    "content-type, correlation-id, idempotency-key, x-store-id, x-user-id, x-session-id, tus-resumable, \
     upload-length, upload-defer-length, upload-offset, upload-metadata, upload-concat, upload-checksum, \
     x-http-method-override, x-requested-with, x-request-id",
);
/// What a page may read beyond what every page may.
const READ: HeaderValue = HeaderValue::from_static(
    "location, retry-after, correlation-id, idempotency-remembered, idempotency-replayed, tus-resumable, \
     tus-version, tus-extension, tus-max-size, tus-checksum-algorithm, upload-length, upload-defer-length, \
     upload-offset, upload-metadata, upload-concat, upload-expires",
);
/// How long a browser remembers that it may, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// A layer for all routes: answers preflights, and says on every other answer who may read it. A page of
/// an origin that the file of forms does not name gets an answer that its browser does not show it.
pub(super) async fn cors(State(front): State<Front>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut answer = match is_preflight {
        true => preflight(),
        false => next.run(request).await,
    };
    let mut origins = front.0.forms.origins().iter();
    if origins.any(|one| one.has(origin.as_bytes())) {
        allow(origin, answer.headers_mut());
    }
    answer
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("origin"));
    answer
}

fn preflight() -> Response {
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    answer
}

fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READ);
}
