//! How a submission stands: once, or at each change.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use hydrant_sdk::Error;
use serde_json::Value;

use super::refusal::Refusal;
use super::{Front, identity, shown};
use crate::proto::{GetReceiptRequest, GetRequest, Status};

/// How long the keeper is asked to wait for a change.
const WAIT: Duration = Duration::from_secs(20);
/// How often a silent stream says that it lives.
const BEAT: Duration = Duration::from_secs(15);
/// The wait after a question that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How many questions one stream asks: then its client opens another.
const QUESTIONS: u32 = 500;

pub(super) async fn status(
    State(front): State<Front>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let id = identity::of_path(&id)?;
    let status = front.get(&id, 0, Duration::ZERO).await?;
    Ok(Json(shown::status(&status)))
}

pub(super) async fn receipt(
    State(front): State<Front>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let id = identity::of_path(&id)?;
    let request = GetReceiptRequest {
        id,
        ..Default::default()
    };
    let receipt = front.0.keeper.get_receipt(request).await;
    let receipt = receipt.map_err(|error| Error::from_connect(&error))?;
    Ok(Json(shown::receipt(&receipt.into_owned())))
}

pub(super) async fn events(
    State(front): State<Front>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let id = identity::of_path(&id)?;
    let first = front.get(&id, 0, Duration::ZERO).await?;
    let stream = futures::stream::unfold(Some(Following::new(front, first)), |following| async {
        let following = following?;
        let event = following.event();
        Some((Ok(event), following.next().await))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(BEAT)))
}

/// One stream, at the state that it tells next.
struct Following {
    front: Front,
    status: Status,
    left: u32,
}

impl Following {
    fn new(front: Front, status: Status) -> Self {
        Self {
            front,
            status,
            left: QUESTIONS,
        }
    }

    fn event(&self) -> Event {
        Event::default()
            .event("state")
            .data(shown::status(&self.status).to_string())
    }

    /// Waits for a change; none when nothing will change any more, or the stream is old.
    async fn next(mut self) -> Option<Self> {
        let known = self.status.version;
        while !matches!(self.status.state.as_str(), "delivered" | "dropped") {
            self.left = self.left.checked_sub(1)?;
            match self.front.get(&self.status.id, known, WAIT).await {
                Ok(status) if status.version != known => {
                    self.status = status;
                    return Some(self);
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        None
    }
}

impl Front {
    async fn get(&self, id: &str, known_version: u64, wait: Duration) -> Result<Status, Error> {
        let request = GetRequest {
            id: id.to_owned(),
            known_version,
            wait_ms: wait.as_millis() as u32,
            ..Default::default()
        };
        let status = self.0.keeper.get(request).await;
        let status = status.map_err(|error| Error::from_connect(&error))?;
        Ok(status.into_owned())
    }
}
