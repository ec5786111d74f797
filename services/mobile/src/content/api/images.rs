//! `GET /v1/images/{sha256}/{width}.{ext}`: images, from memory or from `service/mobile`.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use hydrant_sdk::{Code, Config, Error, Problem};

use super::Window;
use crate::api::conditional::is_named;
use crate::content::image::Variant;
use crate::content::images::scale::sha256_of;

/// How long the service may take to give an image.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);

/// The URL of an image names its bytes, which never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Where the bytes of images come from: `service/mobile`, through the node.
#[derive(Clone)]
pub(super) struct Origin {
    client: reqwest::Client,
    /// Ends with a slash.
    base: String,
    token: Option<HeaderValue>,
}

impl Origin {
    pub(super) fn new(config: &Config) -> Self {
        let url = config.url.to_string();
        let base = format!("{}/service/mobile/", url.trim_end_matches('/'));
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        Self {
            client: client.build().unwrap_or_default(),
            base,
            token: config.token.clone(),
        }
    }

    /// A request to the service that changes something.
    pub(super) fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder, Error> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), query);
        let url = url.map_err(|error| away(&error))?;
        Ok(self.as_self(self.client.post(url)))
    }

    fn as_self(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.header(hydrant_contracts::header::TOKEN, token),
            None => request,
        }
    }

    /// The bytes of a variant, checked by their hash.
    async fn fetch(self, variant: Variant) -> Result<Bytes, Error> {
        let url = format!("{}v1/objects/{}", self.base, variant.sha256);
        let answer = self.as_self(self.client.get(url)).send().await;
        let answer = answer.map_err(|error| away(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(away(&format_args!("it answered {}", answer.status())));
        }
        let bytes = read(answer, variant.bytes).await?;
        match sha256_of(&bytes) == variant.sha256 {
            true => Ok(bytes),
            false => Err(away(&"it gave other bytes than those of the image")),
        }
    }
}

/// A body of so many bytes.
async fn read(mut answer: reqwest::Response, length: u64) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| away(&error))? {
        if (bytes.len() + chunk.len()) as u64 > length {
            return Err(away(&"it gave more bytes than the image has"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

pub(super) async fn image(
    State(window): State<Window>,
    Path((sha256, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let variant = {
        let serving = window.answers.served.load();
        let image = serving.compiled.content.image(&sha256);
        let variants = image.map(|image| &image.variants[..]).unwrap_or_default();
        variants.iter().find(|one| one.file() == file).cloned()
    };
    let variant = variant.ok_or_else(no_such_image)?;
    let etag = format!("\"{}\"", &variant.sha256[..32]);
    let unchanged = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| is_named(value.as_bytes(), &etag));
    if unchanged {
        return Ok((StatusCode::NOT_MODIFIED, lasting(etag)).into_response());
    }
    let kind = [(header::CONTENT_TYPE, variant.media_type())];
    let name = variant.sha256.clone();
    let fetch = || window.origin.clone().fetch(variant);
    let bytes = window.shelf.get(&name, fetch).await?;
    Ok((kind, lasting(etag), bytes).into_response())
}

/// The headers that a 304 has too.
fn lasting(etag: String) -> [(HeaderName, String); 4] {
    [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, FOR_EVER.into()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin".into(),
        ),
    ]
}

fn no_such_image() -> Error {
    let message = "the current content has no such image, or not in this width";
    Error::new(Code::NotFound, "no_such_image", message)
        .mend("take the URL from the content: an image field has it in `src` and `variants`")
}

/// Why is for operators, in the log.
fn away(why: &dyn std::fmt::Display) -> Error {
    tracing::warn!(%why, "an image can't be fetched from service/mobile");
    let message = "the image can't be had at the moment";
    Error::new(Code::Unavailable, "image_unavailable", message)
}
