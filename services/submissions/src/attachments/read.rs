//! `GET /v1/attachments/{upload}`: a whole attachment, for those who deliver it.
//!
//! No byte goes out that has not been checked: a piece is read whole, its hash is compared, then it is sent.
//! When one is broken the answer breaks off, so that nobody takes what came for the whole.

use std::ops::ControlFlow;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, Stream};
use hydrant_records::read;
use hydrant_sdk::{Code, Error};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::refusal::{Refusal, not_whole, unknown_upload};
use super::room::busy;
use super::rows::{self, Piece, State as Is, Upload};
use super::{Attachments, PATIENCE};

/// How many pieces are looked up at a time.
const PAGE: i64 = 64;

pub(super) async fn get(
    State(desk): State<Attachments>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let records = desk.0.desk.tables.ready().await?;
    let upload = read!(records, |tx| rows::find(tx, &id).await)?;
    let upload = upload.ok_or_else(unknown_upload)?;
    match upload.state {
        Is::Whole => {}
        Is::Open | Is::Part => return Err(not_whole()),
        Is::Joined | Is::Deleted | Is::Expired => return Err(super::refusal::gone()),
    }
    let size = upload.received;
    let from = match from(&headers) {
        ControlFlow::Continue(()) => None,
        ControlFlow::Break(from) if from < size => Some(from),
        ControlFlow::Break(_) => return Ok(unsatisfiable(size)),
    };
    let place = timeout(PATIENCE, desk.0.sends.clone().acquire_owned()).await;
    let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
    let body = Body::from_stream(desk.send(&upload, from.unwrap_or(0), place).await?);
    let status = match from {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    Ok((status, told(&upload, from), body).into_response())
}

/// Where `bytes=N-` begins; any other range is not looked at, as HTTP allows.
fn from(headers: &HeaderMap) -> ControlFlow<u64> {
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    from.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

fn told(upload: &Upload, from: Option<u64>) -> HeaderMap {
    let size = upload.received;
    let mut headers = HeaderMap::new();
    let mut put = |name, text: String| {
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
    };
    put(header::CONTENT_TYPE, upload.meta.media.clone());
    put(
        header::CONTENT_LENGTH,
        (size - from.unwrap_or(0)).to_string(),
    );
    put(header::ACCEPT_RANGES, "bytes".into());
    if let Some(sha256) = &upload.sha256 {
        put(header::ETAG, format!("\"{sha256}\""));
    }
    if let Some(from) = from {
        put(
            header::CONTENT_RANGE,
            format!("bytes {from}-{}/{size}", size - 1),
        );
    }
    headers
}

fn unsatisfiable(size: u64) -> Response {
    let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
    (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response()
}

/// An attachment on its way out.
struct Sending {
    desk: Attachments,
    upload: Upload,
    /// The next piece, and how much of it is left out.
    number: i64,
    skip: usize,
    page: std::vec::IntoIter<Piece>,
    _place: OwnedSemaphorePermit,
}

impl Attachments {
    pub(super) async fn send(
        &self,
        upload: &Upload,
        from: u64,
        place: OwnedSemaphorePermit,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let begin = read!(records, |tx| rows::piece_at(tx, &upload.id, from).await)?;
        let (number, start) = begin.unwrap_or_default();
        let sending = Sending {
            desk: self.clone(),
            upload: upload.clone(),
            number,
            skip: (from - start) as usize,
            page: Vec::new().into_iter(),
            _place: place,
        };
        Ok(stream::try_unfold(sending, |mut sending| async {
            let bytes = sending.next().await.inspect_err(|error| {
                let upload = &*sending.upload.id;
                tracing::error!(upload, %error, "an attachment breaks off on its way out");
            })?;
            Ok(bytes.map(|bytes| (bytes, sending)))
        }))
    }
}

impl Sending {
    /// The next bytes, checked; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.number >= self.upload.pieces {
            return Ok(None);
        }
        let Some(piece) = self.next_piece().await? else {
            return Err(missing(self.number));
        };
        let bytes = self.desk.fetch(&piece).await?;
        self.number += 1;
        let skip = std::mem::take(&mut self.skip).min(bytes.len());
        Ok(Some(bytes.slice(skip..)))
    }

    async fn next_piece(&mut self) -> Result<Option<Piece>, Error> {
        if let Some(piece) = self.page.next() {
            return Ok(Some(piece));
        }
        let records = self.desk.0.desk.tables.ready().await?;
        let page = read!(records, |tx| {
            rows::pieces(tx, &self.upload.id, self.number, PAGE).await
        });
        self.page = page?.into_iter();
        Ok(self.page.next())
    }
}

fn missing(number: i64) -> Error {
    let message = format!("the row of piece {number} is missing");
    Error::new(Code::DataLoss, "pieces_broken", message)
}
