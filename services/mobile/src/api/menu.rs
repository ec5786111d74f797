//! `GET /v1/menu`: the calls that an app makes, where they are, and why.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hydrant_sdk::{Error, Problem};

use crate::api::Answers;
use crate::api::cache::{Call, Key};
use crate::api::parameters::Parameters;
use crate::api::reply::Reply;
use crate::api::serving::Serving;
use crate::keys::Caller;

pub(crate) fn routes() -> axum::Router<Arc<Answers>> {
    axum::Router::new().route("/v1/menu", get(menu))
}

async fn menu(State(answers): State<Arc<Answers>>, request: Request) -> Response {
    match prepare(&answers, &request) {
        Ok(reply) => reply.send().await,
        Err(error) => Problem(error).into_response(),
    }
}

/// The menu is the same with a key and without one.
fn prepare(answers: &Answers, request: &Request) -> Result<Reply, Error> {
    let serving = answers.served.load();
    let caller = Caller::Anonymous;
    let question = request.uri().query().unwrap_or_default().as_bytes();
    let key = Key::new(Call::Menu, &caller, question);
    let now = answers.clock.unix_ms();
    let body = match serving.cache.get(&key, now) {
        Some(body) => body,
        None => {
            let parameters = Parameters::from_query(request.uri())?;
            let until = match serving.compiled.uses_time() {
                true => now,
                false => i64::MAX,
            };
            serving
                .cache
                .put(key, compose(&serving, &parameters, now), until)
        }
    };
    Ok(Reply::new(body, request.headers()).describe(&serving, &caller))
}

fn compose(serving: &Serving, parameters: &Parameters, now: i64) -> Vec<u8> {
    let context = parameters.context(now.div_euclid(1000));
    serving.compiled.menu.json_for(&context).into_bytes()
}
