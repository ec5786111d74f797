//! tus 1.0 over plain HTTP.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hydrant_sdk::Context;

use super::checksum::ALGORITHMS;
use super::create::New;
use super::headers::{self, ALGORITHM, Concat, EXTENSION, MAX_SIZE, RESUMABLE};
use super::receive::{Sent, task_failed};
use super::refusal::Refusal;
use super::rows::Upload;
use super::{Attachments, room};

/// The version of tus.
pub(crate) const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,checksum,expiration,\
                          termination,concatenation";

/// Every answer says which tus is spoken.
pub(crate) async fn say_version(mut answer: Response) -> Response {
    let version = HeaderValue::from_static(VERSION);
    answer.headers_mut().insert(RESUMABLE, version);
    answer
}

/// What is spoken here; of a submission also how large its attachments may be.
pub(super) async fn options(
    State(desk): State<Attachments>,
    Path(ids): Path<Vec<(String, String)>>,
) -> Response {
    let submission = ids.first().map_or("", |(_, id)| id);
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let told = answer.headers_mut();
    told.insert(headers::VERSION, HeaderValue::from_static(VERSION));
    told.insert(EXTENSION, HeaderValue::from_static(EXTENSIONS));
    told.insert(ALGORITHM, HeaderValue::from_static(ALGORITHMS));
    // Also when the database is away: the rest holds anyway.
    if let Ok(Some(most)) = desk.max_size(submission).await {
        told.insert(MAX_SIZE, most.into());
    }
    answer
}

pub(super) async fn post(
    State(desk): State<Attachments>,
    Path(submission): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    headers::check_version(&headers)?;
    let new = new(&headers)?;
    let has_bytes = headers::is_bytes(&headers) && !matches!(new.concat, Some(Concat::Final(..)));
    let checksum = headers::checksum(&headers)?.filter(|_| has_bytes);
    let work = {
        let submission = submission.clone();
        async move {
            let (upload, is_new) = desk.create(&submission, new).await?;
            if !has_bytes || !is_new {
                return Ok(upload);
            }
            let sent = Sent {
                offset: 0,
                length: None,
                announced: headers::announced(&headers),
                checksum,
            };
            desk.begin(upload, sent, body).await
        }
    };
    let upload = to_its_end(work).await?;
    let location = format!("/v1/submissions/{submission}/attachments/{}", upload.id);
    let mut answer = (StatusCode::CREATED, headers::of_upload(&upload)).into_response();
    let location = HeaderValue::try_from(location).ok();
    let location = location.map(|location| (header::LOCATION, location));
    answer.headers_mut().extend(location);
    Ok(answer)
}

fn new(headers: &HeaderMap) -> Result<New, Refusal> {
    let concat = headers::concat(headers)?;
    Ok(New {
        key: headers::key(headers)?,
        meta: headers::metadata(headers)?,
        length: match concat {
            Some(Concat::Final(..)) => None,
            _ => headers::length_of_new(headers)?,
        },
        concat,
    })
}

pub(super) async fn head(
    State(desk): State<Attachments>,
    Path((submission, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    headers::check_version(&headers)?;
    let upload = desk.look(&submission, &id).await?;
    let cache = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([cache], headers::of_upload(&upload)).into_response())
}

pub(super) async fn patch(
    State(desk): State<Attachments>,
    Path((submission, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    headers::check_version(&headers)?;
    headers::check_content_type(&headers)?;
    let sent = Sent {
        offset: headers::offset(&headers)?,
        length: headers::length(&headers)?,
        announced: headers::announced(&headers),
        checksum: headers::checksum(&headers)?,
    };
    let work = async move {
        let _place = desk.place()?;
        desk.receive(&submission, &id, sent, body.into_data_stream())
            .await
    };
    let upload = to_its_end(work).await?;
    Ok((StatusCode::NO_CONTENT, short(&upload)).into_response())
}

pub(super) async fn delete(
    State(desk): State<Attachments>,
    Path((submission, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    headers::check_version(&headers)?;
    desk.delete(&submission, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Attachments {
    /// The first bytes of an upload that has just been created. When they break off, the client hears how far
    /// they came; when they can't be right, there is no upload.
    async fn begin(&self, upload: Upload, sent: Sent, body: Body) -> Result<Upload, Refusal> {
        let (submission, id) = (&*upload.submission, &*upload.id);
        let _place = self.place()?;
        let received = self
            .receive(submission, id, sent, body.into_data_stream())
            .await;
        match received {
            Ok(upload) => Ok(upload),
            Err(refusal) if refusal.blames_bytes() => {
                self.delete(submission, id).await?;
                Err(refusal)
            }
            Err(_) => self.look(submission, id).await,
        }
    }

    /// A place among those who send bytes.
    fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
        let place = self.0.uploads.clone().try_acquire_owned();
        Ok(place.map_err(|_| room::busy())?)
    }
}

/// How far an upload is.
fn short(upload: &Upload) -> HeaderMap {
    let mut headers = headers::of_upload(upload);
    let is_short = |name: &HeaderName| name == "upload-offset" || name == "upload-expires";
    let others: Vec<_> = headers
        .keys()
        .filter(|name| !is_short(name))
        .cloned()
        .collect();
    for name in others {
        headers.remove(name);
    }
    headers
}

/// Work goes on when its client has gone: what came before the line was cut is still to be kept.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let context = Context::current().unwrap_or_default();
    let task = tokio::spawn(context.scope(work));
    task.await.unwrap_or_else(|_| Err(task_failed()))
}
