//! Attachments: they come in over tus 1.0, in pieces that each count as soon as they are durable, and go out
//! to whoever delivers.
//!
//! Here is what `service/submissions` does. `api/submissions` passes requests of clients on to it, as they
//! come in. A piece is an object of at most 8 MiB, written once and named by one row; so whatever came before
//! a cut is kept, any process goes on, and a store may go away in the middle.

mod breaker;
mod checksum;
mod copies;
mod create;
mod digest;
mod headers;
mod join;
mod listing;
mod loose;
mod metadata;
mod names;
mod read;
mod receive;
mod refusal;
mod room;
mod rows;
mod stores;
mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod tus;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{MethodFilter, get, options};
use futures::future::BoxFuture;
use hydrant_sdk::Error;
use tokio::sync::{Semaphore, watch};

use crate::service::Desk;
pub(crate) use copies::Copying;
pub(crate) use listing::{close, of_submission};
pub(crate) use loose::release;
use room::Room;
use stores::Stores;
pub(crate) use sweep::Sweep;

/// How much is taken at once, and how long it is kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The largest piece, in bytes.
    piece: usize,
    /// How long bytes wait in memory for more: whoever sends slowly keeps what came, too.
    linger: Duration,
    /// How long nothing may come.
    silence: Duration,
    /// How long an upload lives after its last bytes.
    life: Duration,
    /// How long an object may be loose before it is removed, and again before it is forgotten. Longer than
    /// any request with a checksum may take, because its pieces count at its end.
    loose: Duration,
    /// How long a request with a checksum may take.
    checked: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            piece: 8 * 1024 * 1024,
            linger: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            life: Duration::from_secs(7 * 24 * 3600),
            loose: Duration::from_secs(3600),
            checked: Duration::from_secs(1800),
        }
    }
}

/// How much memory the pieces of one process take together, in bytes.
const ROOM: usize = 128 * 1024 * 1024;
/// How many requests with bytes one process takes at a time.
const UPLOADS: usize = 2000;
/// How many attachments one process sends at a time; each has a piece in memory.
const SENDS: usize = 16;
/// How long somebody waits for a place among them.
const PATIENCE: Duration = Duration::from_secs(10);

/// What attachments are kept with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Attachments(Arc<Inner>);

struct Inner {
    desk: Desk,
    stores: Stores,
    limits: Limits,
    room: Room,
    uploads: Arc<Semaphore>,
    sends: Arc<Semaphore>,
    /// Its sender is gone when the service stops.
    stopping: watch::Receiver<()>,
}

impl Attachments {
    /// Attachments in the stores that the environment names, and work that runs as long as the service does.
    pub(crate) fn from_env(desk: &Desk) -> (Self, BoxFuture<'static, Result<(), Error>>) {
        let (running, stopping) = watch::channel(());
        let work = Box::pin(async move {
            let _running = running;
            std::future::pending().await
        });
        let stores = Stores::from_env();
        (
            Self::new(desk.clone(), stores, Limits::default(), stopping),
            work,
        )
    }

    fn new(desk: Desk, stores: Stores, limits: Limits, stopping: watch::Receiver<()>) -> Self {
        Self(Arc::new(Inner {
            desk,
            stores,
            limits,
            room: Room::new(ROOM),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            sends: Arc::new(Semaphore::new(SENDS)),
            stopping,
        }))
    }

    pub(crate) fn now(&self) -> i64 {
        self.0.desk.clock.unix_ms()
    }

    /// When an upload ends of which something came just now.
    fn expiry(&self) -> i64 {
        let life = self.0.limits.life.as_millis() as i64;
        self.now().saturating_add(life)
    }

    /// - `OPTIONS`, `POST /v1/submissions/{id}/attachments`: what tus is spoken, and new uploads.
    /// - `HEAD`, `PATCH`, `DELETE /v1/submissions/{id}/attachments/{upload}`.
    /// - `GET /v1/attachments/{upload}`: a whole attachment, for those who deliver it.
    pub(crate) fn routes(self) -> Router {
        let one = options(tus::options)
            .on(MethodFilter::HEAD, tus::head)
            .patch(tus::patch)
            .delete(tus::delete);
        let all = options(tus::options).post(tus::post);
        Router::new()
            .route("/v1/submissions/{id}/attachments", all)
            .route("/v1/submissions/{id}/attachments/{upload}", one)
            .layer(map_response(tus::say_version))
            .route("/v1/attachments/{upload}", get(read::get))
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }
}
