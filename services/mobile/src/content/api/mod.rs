//! What `api/mobile` answers of content beside `init`: images, and previews.

mod images;
mod preview;
mod shelf;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hydrant_sdk::{Error, Hydrant};

use crate::api::{Answers, cors};
use crate::content::api::images::Origin;
use crate::content::api::shelf::Shelf;
use crate::proto::ContentClient;

/// How many bytes of images are kept in memory.
const SHELF: usize = 64 * 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
struct Window {
    answers: Arc<Answers>,
    shelf: Arc<Shelf>,
    origin: Origin,
    previews: preview::Previews,
}

/// The routes of images and previews.
///
/// # Errors
///
/// If the address of the node can't be used.
pub(crate) fn routes(answers: Arc<Answers>, hydrant: &Hydrant) -> Result<Router, Error> {
    let client = hydrant.client("service/mobile", ContentClient::new)?;
    Ok(routes_with(Window {
        shelf: Arc::new(Shelf::new(SHELF)),
        origin: Origin::new(hydrant.config()),
        previews: preview::Previews::new(client),
        answers,
    }))
}

fn routes_with(window: Window) -> Router {
    let served = Arc::clone(&window.answers.served);
    Router::new()
        .route(
            "/v1/images",
            post(upload::add).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/images/{sha256}/{file}", get(images::image))
        .route("/v1/preview", get(preview::preview))
        .with_state(window)
        .layer(from_fn_with_state(served, cors::cors))
}
