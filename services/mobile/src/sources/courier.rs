//! How the leader learns what a service says that it may not call: `service/mobile` is of the lowest
//! tier, which calls no other. A process of `api/mobile`, one in the fleet, asks in its place and
//! brings the answers.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use hydrant_sdk::{Endpoint, Error, Hydrant, Leadership, State};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::proto::{BringRequest, OperationsClient};
use crate::sources::definition::{Errand, Location, Source};
use crate::sources::fetch::Errands;
use crate::sources::snapshot::Failure;

/// The election that decides which process of `api/mobile` runs the errands.
const ELECTION: &str = "courier";
/// What the key of an answer begins with; the name of the source follows.
pub(crate) const BROUGHT: &str = "brought/";
/// For how long an answer is kept.
const KEPT: Duration = Duration::from_secs(600);
/// How long a delivery may take.
const DELIVERY: Duration = Duration::from_secs(5);
/// The longest text of a failure, in characters.
const TOLD: usize = 300;

/// What to ask which service, as the leader tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    name: String,
    endpoint: String,
    request: Option<String>,
    interval_ms: u64,
    timeout_ms: u64,
    max_size: u64,
}

impl Order {
    /// `None` for a source that the leader asks itself.
    pub(crate) fn of(source: &Source) -> Option<Self> {
        let Location::Service(errand) = &source.location else {
            return None;
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (!errand.is_open()).then(|| Self {
            name: source.name.clone(),
            endpoint: errand.endpoint.to_string(),
            request: errand.request.clone(),
            interval_ms: millis(source.interval),
            timeout_ms: millis(source.timeout),
            max_size: source.max_size,
        })
    }
}

/// Runs the errands of the leader, as one of all processes of `api/mobile`.
pub(crate) struct Courier {
    pub(crate) hydrant: Hydrant,
    pub(crate) errands: Errands,
    /// What there is to do, as it changes.
    pub(crate) orders: watch::Receiver<Vec<Order>>,
}

impl Courier {
    pub(crate) async fn run_again_and_again(mut self) -> Result<(), Error> {
        loop {
            let has_orders = |orders: &Vec<Order>| !orders.is_empty();
            if self.orders.wait_for(has_orders).await.is_err() {
                return std::future::pending().await;
            }
            let leadership = self.hydrant.campaign(ELECTION).await?;
            let orders = self.orders.borrow_and_update().clone();
            tokio::select! {
                () = leadership.lost() => {}
                _ = self.orders.changed() => {}
                () = run(&self.errands, &self.hydrant, &leadership, &orders) => {}
            }
        }
    }
}

async fn run(errands: &Errands, hydrant: &Hydrant, leadership: &Leadership, orders: &[Order]) {
    let rounds = orders.iter().map(|order| async move {
        let every = Duration::from_millis(order.interval_ms.max(100));
        let mut due = Instant::now();
        while !leadership.is_lost() {
            if let Err(error) = bring(errands, hydrant, order).await {
                tracing::debug!(%error, source = order.name, "an answer was not delivered");
            }
            due = (due + every).max(Instant::now());
            tokio::time::sleep_until(due).await;
        }
    });
    rounds
        .collect::<FuturesUnordered<_>>()
        .collect::<()>()
        .await;
}

async fn bring(errands: &Errands, hydrant: &Hydrant, order: &Order) -> Result<(), Error> {
    let endpoint: Endpoint = order.endpoint.parse()?;
    let request = order.request.clone();
    let errand = Errand { endpoint, request };
    let limit = Duration::from_millis(order.timeout_ms);
    let answer = tokio::time::timeout(limit, errands.run(&errand, order.max_size))
        .await
        .unwrap_or_else(|_| {
            let reason = format!("no answer in {} ms", order.timeout_ms);
            Err(Failure::new(
                reason,
                "make it faster, or raise its `timeout` in sources.toml",
            ))
        });
    let mut request = BringRequest {
        source: order.name.clone(),
        ..Default::default()
    };
    match answer {
        Ok(body) => request.body = Some(body),
        Err(failure) => (request.reason, request.mend) = (failure.reason, failure.mend),
    }
    let client = hydrant.client("service/mobile", OperationsClient::new)?;
    match tokio::time::timeout(DELIVERY, client.bring(request)).await {
        Ok(delivered) => delivered
            .map(drop)
            .map_err(|error| Error::from_connect(&error)),
        Err(_) => Ok(()),
    }
}

/// What was brought, as it waits for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Brought {
    pub(crate) head: BroughtHead,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BroughtHead {
    pub(crate) source: String,
    pub(crate) at_unix_ms: i64,
    /// Empty when there is a body.
    pub(crate) reason: String,
    pub(crate) mend: String,
}

impl Brought {
    /// # Errors
    ///
    /// If the source has no name that can be.
    pub(crate) fn received(request: BringRequest, now: i64) -> Result<Self, Error> {
        if !crate::sources::definition::is_name(&request.source) {
            return Err(no_such_source());
        }
        let short = |text: &str| -> String { text.chars().take(TOLD).collect() };
        let is_good = request.body.is_some();
        let reason = match is_good {
            true => String::new(),
            false if request.reason.is_empty() => "it gave no answer".into(),
            false => short(&request.reason),
        };
        Ok(Self {
            head: BroughtHead {
                reason,
                mend: short(&request.mend),
                source: request.source,
                at_unix_ms: now,
            },
            body: request.body.unwrap_or_default(),
        })
    }

    pub(crate) async fn keep(&self, state: &State) -> Result<(), Error> {
        let key = format!("{BROUGHT}{}", self.head.source);
        let mut value = serde_json::to_vec(&self.head).unwrap_or_default();
        value.push(b'\n');
        value.extend_from_slice(&self.body);
        state.put_for(KEPT, &key, value).await.map(drop)
    }

    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let end = value.iter().position(|byte| *byte == b'\n')?;
        Some(Self {
            head: serde_json::from_slice(&value[..end]).ok()?,
            body: value[end + 1..].to_vec(),
        })
    }
}

fn no_such_source() -> Error {
    let message = "this is not the name of a source";
    Error::new(hydrant_sdk::Code::InvalidArgument, "invalid_name", message)
}
