//! Images come in, and their bytes go out to `api/mobile`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::StreamExt as _;
use hydrant_sdk::{Code, Error, Problem};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::ContentDesk;
use crate::content::image::{Image, is_sha256};
use crate::content::images::scale::{self, Made, Refused, sha256_of};
use crate::content::images::store::Store;
use crate::documents::{DocumentId, Kind};
use crate::service::Edit;

/// The largest file that is taken, in bytes.
pub(crate) const MAX_FILE: usize = 20 * 1024 * 1024;

/// The longest text that says what an image shows, in bytes.
const MAX_ALT: usize = 1000;

/// How long a file may take to come in, and how long nothing may come.
const UPLOAD: Duration = Duration::from_secs(120);
const SILENCE: Duration = Duration::from_secs(15);

/// How many files come in at a time, how many images are made at a time, and how many are sent.
const UPLOADS: usize = 4;
const MAKES: usize = 1;
const SENDS: usize = 16;

/// How long somebody waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bounds what is in memory at a time.
pub(super) struct Room {
    uploads: Semaphore,
    makes: Semaphore,
    sends: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            uploads: Semaphore::new(UPLOADS),
            makes: Semaphore::new(MAKES),
            sends: Semaphore::new(SENDS),
        }
    }
}

/// What is said of an image that comes in.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    author: String,
    #[serde(default)]
    reason: String,
    alt: Option<String>,
}

/// - `POST /v1/images?author=…&reason=…&alt=…`: takes an image in. Its body is the file.
/// - `GET /v1/objects/{sha256}`: the bytes of a variant.
pub(super) fn routes(desk: ContentDesk) -> axum::Router {
    axum::Router::new()
        .route("/v1/images", post(add).layer(DefaultBodyLimit::disable()))
        .route("/v1/objects/{sha256}", get(object))
        .with_state(desk)
}

async fn add(
    State(desk): State<ContentDesk>,
    Query(told): Query<Told>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_FILE) {
        return Err(too_large());
    }
    if told.alt.as_ref().is_some_and(|alt| alt.len() > MAX_ALT) {
        let message = format!("what an image shows is told in at most {MAX_ALT} bytes");
        return Err(Refusal::from(Error::new(
            Code::InvalidArgument,
            "alt_too_long",
            message,
        )));
    }
    let _place = place(&desk.0.room.uploads).await?;
    let file = timeout(UPLOAD, receive(body)).await;
    let file = file.unwrap_or_else(|_| Err(too_slow().into()))?;
    desk.add(file, told).await
}

/// The whole body, unless it is too large or too slow.
async fn receive(body: Body) -> Result<Bytes, Refusal> {
    let mut stream = body.into_data_stream();
    let mut file = Vec::new();
    loop {
        let chunk = timeout(SILENCE, stream.next()).await;
        match chunk.map_err(|_| too_slow())? {
            None => return Ok(file.into()),
            Some(Err(_)) => return Err(broken_off().into()),
            Some(Ok(chunk)) if file.len() + chunk.len() > MAX_FILE => return Err(too_large()),
            Some(Ok(chunk)) => file.extend_from_slice(&chunk),
        }
    }
}

impl ContentDesk {
    async fn add(&self, file: Bytes, told: Told) -> Result<Response, Refusal> {
        let sha256 = sha256_of(&file);
        let current = self.0.desk.current().await?;
        let known = current.content.image(&sha256).cloned();
        let (image, is_new) = match known {
            Some(known) if told.alt.as_ref().is_none_or(|alt| *alt == known.alt) => {
                return Ok(answer(StatusCode::OK, &sha256, &known, current.revision));
            }
            Some(known) => (known, false),
            None => (self.keep(&sha256, file).await?, true),
        };
        let image = Image {
            alt: told.alt.unwrap_or_default(),
            ..image
        };
        let edit = edit(&sha256, &image)?;
        let applied = self.0.desk.apply(&told.author, &told.reason, vec![edit]);
        let revision = applied.await.map_err(|refused| refused.error)?;
        let status = if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(answer(status, &sha256, &image, revision))
    }

    /// Puts an image that comes with the program into the store, unless it is there.
    ///
    /// # Errors
    ///
    /// If there is no store, or it does not take the image.
    pub(crate) async fn bring(&self, file: &'static [u8]) -> Result<(), Error> {
        let sha256 = sha256_of(file);
        if self.store().await?.get(&sha256).await?.is_some() {
            return Ok(());
        }
        let kept = self.keep(&sha256, Bytes::from_static(file)).await;
        kept.map(drop).map_err(|refusal| refusal.error)
    }

    /// Makes the variants, and keeps them and the file in the store.
    async fn keep(&self, sha256: &str, file: Bytes) -> Result<Image, Refusal> {
        let store = self.store().await?;
        let made = self.make(file.clone()).await?;
        let image = Image {
            media_type: made.media_type.into(),
            bytes: file.len() as u64,
            width: made.width,
            height: made.height,
            alt: String::new(),
            variants: made.variants.iter().map(|(one, _)| one.clone()).collect(),
        };
        put_all(store, sha256, file, made).await?;
        Ok(image)
    }

    /// In a thread that may block, few at a time: each may take half a gigabyte.
    async fn make(&self, file: Bytes) -> Result<Made, Refusal> {
        let _place = place(&self.0.room.makes).await?;
        let made = tokio::task::spawn_blocking(move || scale::make(&file)).await;
        match made {
            Ok(made) => made.map_err(not_taken),
            Err(_) => Err(Refusal::from(Error::new(
                Code::Internal,
                "image_failed",
                "this image could not be looked at",
            ))),
        }
    }
}

/// The file last: where it is, all is.
async fn put_all(store: &Store, sha256: &str, file: Bytes, made: Made) -> Result<(), Error> {
    for (variant, bytes) in made.variants {
        store.put(&variant.sha256, bytes.into()).await?;
    }
    store.put(sha256, file).await
}

fn edit(sha256: &str, image: &Image) -> Result<Edit, Error> {
    let id = DocumentId::new(Kind::Image, sha256);
    let id = id.map_err(|message| Error::new(Code::Internal, "bad_name", message))?;
    let body = serde_json::to_string_pretty(image).expect("texts and numbers become JSON");
    Ok(Edit {
        id,
        body: Some(body),
    })
}

fn answer(status: StatusCode, sha256: &str, image: &Image, revision: u64) -> Response {
    let body = json!({ "sha256": sha256, "revision": revision, "image": image });
    (status, Json(body)).into_response()
}

async fn object(
    State(desk): State<ContentDesk>,
    Path(sha256): Path<String>,
) -> Result<Response, Refusal> {
    if !is_sha256(&sha256) {
        return Err(no_object().into());
    }
    let _place = place(&desk.0.room.sends).await?;
    let store = desk.store().await?;
    let bytes = store.get(&sha256).await?;
    let bytes = bytes.ok_or_else(no_object)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

async fn place(room: &Semaphore) -> Result<SemaphorePermit<'_>, Error> {
    match timeout(PATIENCE, room.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => {
            let message = "too many images are under way";
            Err(Error::new(Code::Unavailable, "busy", message).mend("try again in a moment"))
        }
    }
}

/// Why a request is refused, and with which status when it is not the usual one.
#[derive(Debug)]
struct Refusal {
    status: Option<StatusCode>,
    error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            status: None,
            error,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem(self.error);
        match self.status {
            Some(status) => problem.with_status(status),
            None => problem.into_response(),
        }
    }
}

fn not_taken(refused: Refused) -> Refusal {
    let message = format!("this can't be taken as an image: {refused}");
    let error = Error::new(Code::InvalidArgument, "bad_image", message);
    Refusal {
        status: Some(StatusCode::UNPROCESSABLE_ENTITY),
        error: error.mend(refused.mend()),
    }
}

fn too_large() -> Refusal {
    let message = format!("an image has at most {} MB", MAX_FILE / (1024 * 1024));
    let error = Error::new(Code::InvalidArgument, "image_too_large", message);
    Refusal {
        status: Some(StatusCode::PAYLOAD_TOO_LARGE),
        error: error.mend("make it smaller first"),
    }
}

fn too_slow() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "upload_too_slow",
        "the image did not come in time",
    )
}

fn broken_off() -> Error {
    Error::new(
        Code::Aborted,
        "upload_broken_off",
        "the image did not come to its end",
    )
}

fn no_object() -> Error {
    Error::new(Code::NotFound, "no_such_object", "there is no such object")
}
