//! `api/demo-consumer`: stands for somebody else's web service, so that there is one to deliver to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hydrant_sdk::{Code, Error, Hydrant, Problem, Service, State, Tier};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{VERSION, receipt};

/// What the keys of orders begin with.
const ORDERS: &str = "orders/";
/// The longest key, in bytes.
const MAX_KEY: usize = 200;
/// How long an order is remembered after it came last.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an answer takes when it is slow.
const SLOW: Duration = Duration::from_secs(15);
/// How often a write is tried that another one got ahead of.
const RACES: u32 = 8;

/// Runs `api/demo-consumer`.
///
/// - `POST /v1/orders`: takes an order under its `Idempotency-Key`, and answers with a reference: the same
///   one, however often it comes.
/// - `GET /v1/orders`: what came.
/// - `POST /v1/break`, `POST /v1/slow`, `POST /v1/mend`: from now on it fails, is slow, or is good again.
///
/// Orders are in the state that all instances share, so that a restart forgets none, for a week.
///
/// # Errors
///
/// As [`Service::run`].
pub async fn run_demo_consumer() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let desk = Desk {
        state: hydrant.state(),
        mode: Arc::default(),
    };
    Service::new(Tier::Api, "demo-consumer", VERSION)?
        .http(routes(desk))
        .run_on(hydrant)
        .await
}

#[derive(Clone)]
struct Desk {
    state: State,
    mode: Arc<AtomicU8>,
}

const GOOD: u8 = 0;
const BROKEN: u8 = 1;
const SLOWED: u8 = 2;

/// An order, as it is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    key: String,
    reference: String,
    /// How often it came.
    times: u64,
    order: Value,
}

fn routes(desk: Desk) -> Router {
    let set = |mode| post(move |desk| set_mode(desk, mode));
    Router::new()
        .route("/v1/orders", get(list).post(take))
        .route("/v1/break", set(BROKEN))
        .route("/v1/slow", set(SLOWED))
        .route("/v1/mend", set(GOOD))
        .with_state(desk)
}

async fn set_mode(Shared(desk): Shared<Desk>, mode: u8) -> StatusCode {
    desk.mode.store(mode, Ordering::Relaxed);
    StatusCode::NO_CONTENT
}

async fn list(Shared(desk): Shared<Desk>) -> Result<Json<Vec<Order>>, Problem> {
    let entries = desk.state.list(ORDERS).await.map_err(Problem)?;
    let orders = entries.iter();
    let orders = orders.filter_map(|entry| serde_json::from_slice(&entry.value).ok());
    Ok(Json(orders.collect()))
}

async fn take(
    Shared(desk): Shared<Desk>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    match desk.mode.load(Ordering::Relaxed) {
        BROKEN => {
            return Ok((StatusCode::INTERNAL_SERVER_ERROR, "broken on purpose").into_response());
        }
        SLOWED => tokio::time::sleep(SLOW).await,
        _ => {}
    }
    let key = key(&headers).ok_or_else(|| Problem(no_key()))?;
    let order = serde_json::from_slice(&body).map_err(|_| Problem(no_json()))?;
    let order = desk.remember(&key, order).await.map_err(Problem)?;
    let status = [(header::CACHE_CONTROL, "no-store")];
    let answer = Json(json!({ "reference": order.reference }));
    Ok((StatusCode::CREATED, status, answer).into_response())
}

fn key(headers: &HeaderMap) -> Option<String> {
    let key = headers.get("idempotency-key")?.to_str().ok()?;
    let key = key.trim().trim_matches('"');
    (!key.is_empty() && key.len() <= MAX_KEY).then(|| key.to_owned())
}

impl Desk {
    /// The first order of a key stays; the others are counted.
    async fn remember(&self, key: &str, order: Value) -> Result<Order, Error> {
        let name = format!("{ORDERS}{}", receipt::sha256_of(key.as_bytes()));
        let mut refused = None;
        for _ in 0..RACES {
            let known = self.state.get(&name).await?;
            let revision = known.as_ref().map_or(0, |entry| entry.revision);
            let known = known.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            let mut kept = known.unwrap_or_else(|| Order::new(key, order.clone()));
            kept.times += 1;
            let value = serde_json::to_vec(&kept).unwrap_or_default();
            let written = self.state.compare_and_put_for(KEPT, &name, revision, value);
            match written.await {
                Ok(_) => return Ok(kept),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(no_key))
    }
}

impl Order {
    /// The reference follows from the key, so that it is the same wherever and whenever it is asked for.
    fn new(key: &str, order: Value) -> Self {
        let digest = receipt::sha256_of(key.as_bytes()).to_uppercase();
        Self {
            key: key.to_owned(),
            reference: format!("R-{}", &digest[..10]),
            times: 0,
            order,
        }
    }
}

fn no_key() -> Error {
    let message = "an order needs an Idempotency-Key";
    Error::new(Code::InvalidArgument, "no_key", message)
        .mend("send one with each order, and the same one when you repeat it")
}

fn no_json() -> Error {
    Error::new(Code::InvalidArgument, "broken_json", "the order is no JSON")
}
