//! Answers over HTTP: conditional, and in the coding that the client takes best.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;

use crate::api::cache::Body;
use crate::api::conditional::is_named;
use crate::api::encoding::{self, Coding};
use crate::api::serving::Serving;
use crate::keys::Caller;

/// Above this size a coding is not made on a thread that answers, in bytes.
const MAX_INLINE: usize = 64 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const VARY: HeaderValue = HeaderValue::from_static("accept-encoding, authorization, x-api-key");

/// What a body is sent with.
pub(crate) struct Reply {
    body: Arc<Body>,
    coding: Option<Coding>,
    is_known: bool,
    response: Response,
}

impl Reply {
    /// An answer that may be kept, for who asked with these headers. Its body follows in
    /// [`Reply::send`], unless they have it.
    pub(crate) fn new(body: Arc<Body>, asked: &HeaderMap) -> Self {
        let coding = encoding::choose(asked, body.bytes().len());
        let strong = body.etag(None).to_str().unwrap_or_default();
        let names = |value: &HeaderValue| is_named(value.as_bytes(), strong);
        let is_known = asked.get_all(header::IF_NONE_MATCH).iter().any(names);
        Self {
            body,
            coding,
            is_known,
            response: Response::default(),
        }
    }

    /// The headers that a 304 has too.
    pub(crate) fn describe(mut self, serving: &Serving, caller: &Caller) -> Self {
        let cache = match caller {
            Caller::Anonymous => NO_CACHE,
            Caller::Holder(_) => PRIVATE,
        };
        let etag = self.body.etag(self.coding).clone();
        let headers = self.headers();
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, cache);
        headers.insert(header::VARY, VARY);
        headers.insert("hydrant-revision", serving.revision.clone());
        self
    }

    pub(crate) fn headers(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }

    pub(crate) async fn send(mut self) -> Response {
        if self.is_known {
            *self.response.status_mut() = StatusCode::NOT_MODIFIED;
            return self.response;
        }
        self.headers().insert(header::CONTENT_TYPE, JSON);
        let bytes = self.coded().await;
        *self.response.body_mut() = bytes.into();
        self.response
    }

    /// The body in its coding; as it is where that can't be made.
    async fn coded(&mut self) -> Bytes {
        let Some(coding) = self.coding else {
            return self.body.bytes().clone();
        };
        if !self.body.has(coding) && self.body.bytes().len() > MAX_INLINE {
            let body = Arc::clone(&self.body);
            let made = tokio::task::spawn_blocking(move || drop(body.coded(coding).cloned()));
            let _ = made.await;
        }
        match self.body.coded(coding).cloned() {
            Some(bytes) => {
                self.headers()
                    .insert(header::CONTENT_ENCODING, coding.header());
                bytes
            }
            None => {
                let strong = self.body.etag(None).clone();
                self.headers().insert(header::ETAG, strong);
                self.body.bytes().clone()
            }
        }
    }
}

/// An answer that is right for this moment only: nobody keeps it.
pub(crate) fn for_now(bytes: Vec<u8>, serving: &Serving) -> Response {
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert("hydrant-revision", serving.revision.clone());
    response
}
