//! `api/submissions`: checks what clients send, passes it on, and answers.
//!
//! - `POST /v1/submissions`: takes one in.
//! - `POST /v1/submissions/{id}/submit`: closes it, and waits a while for the reference.
//! - `GET /v1/submissions/{id}`, `…/events`, `…/receipt`: how it stands.
//! - `/v1/submissions/{id}/attachments`: tus.
//! - `GET /v1/forms`: what may be sent.
//! - `GET /` and `/client/…`: the form page and the browser library.

mod accept;
mod attachments;
mod body;
mod cors;
mod follow;
mod identity;
mod refusal;
mod refused;
mod shown;
mod submit;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hydrant_sdk::{Code, Error, Hydrant, Problem, Service, Tier, Transport};

use crate::VERSION;
use crate::client;
use crate::forms::Forms;
use crate::proto::SubmissionsClient;

/// The service that keeps what comes.
const KEEPER: &str = "service/submissions";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

struct Inner {
    forms: Forms,
    keeper: SubmissionsClient<Transport>,
    uploads: attachments::Passage,
    refused: refused::Refused,
}

/// Runs `api/submissions` with the forms of the file that [`FORMS`](crate::FORMS) names.
///
/// # Errors
///
/// If the environment or the forms can't be used, or as [`Service::run`].
pub async fn run_api() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let keeper = hydrant.client(KEEPER, SubmissionsClient::new)?;
    let (refused, recording) = refused::Refused::new(keeper.clone());
    let front = Front(Arc::new(Inner {
        forms: Forms::from_env(hydrant.config().public_url.as_deref())?,
        keeper,
        refused,
        uploads: attachments::Passage::new(hydrant.config()),
    }));
    Service::new(Tier::Api, "submissions", VERSION)?
        .http(routes(front))
        // Whatever is sent under an id counts once.
        .safe_to_repeat("/v1/submissions")
        .safe_to_repeat("/v1/submissions/")
        .alongside(recording)
        .run_on(hydrant)
        .await
}

fn routes(front: Front) -> Router {
    Router::new()
        .route("/v1/forms", get(shown::forms))
        .route("/v1/submissions", post(accept::accept))
        .route("/v1/submissions/{id}", get(follow::status))
        .route("/v1/submissions/{id}/submit", post(submit::submit))
        .route("/v1/submissions/{id}/events", get(follow::events))
        .route("/v1/submissions/{id}/receipt", get(follow::receipt))
        .merge(attachments::routes())
        .merge(client::routes())
        .fallback(|| async { Problem(no_such_page()) })
        .method_not_allowed_fallback(|| async { Problem(no_such_method()).with_status(METHOD) })
        .layer(from_fn_with_state(front.clone(), cors::cors))
        .with_state(front)
}

const METHOD: axum::http::StatusCode = axum::http::StatusCode::METHOD_NOT_ALLOWED;

fn no_such_page() -> Error {
    Error::new(Code::NotFound, "no_such_page", "there is no such page")
        .mend("send with POST to /api/submissions/v1/submissions")
}

fn no_such_method() -> Error {
    let message = "this page is not asked with this method";
    Error::new(Code::InvalidArgument, "no_such_method", message)
        .mend("submissions are sent and submitted with POST, and looked at with GET")
}
