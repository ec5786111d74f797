//! `orchestration/delivery`: brings what was submitted to its consumers.
//!
//! Each consumer has a pump of its own, with its own connections, rate, breaker and waits: one that is slow or
//! away holds nobody else up. Work is leased from `service/submissions`, and only the newest lease's outcome
//! counts there; what a worker still does outside after its lease is lost repeats under the same key and the
//! same names.

mod breaker;
mod courier;
mod facts;
mod files;
mod lease;
mod outcome;
mod pace;
mod pump;
mod rest;
mod source;

use std::sync::Arc;

use futures::future::join_all;
use hydrant_sdk::{Error, Hydrant, Service, Tier, Transport};
use uuid::Uuid;

use crate::VERSION;
use crate::forms::{Consumer, Forms};
use crate::proto::DeliveriesClient;
use courier::Courier;
use pump::Pump;
use source::Source;

/// The service that has the queue.
const KEEPER: &str = "service/submissions";

/// The way to who has the queue.
type Keeper = DeliveriesClient<Transport>;

/// Runs `orchestration/delivery` with the consumers of the file that [`FORMS`](crate::FORMS) names.
///
/// # Errors
///
/// If the environment or the consumers can't be used, or as [`Service::run`].
pub async fn run_delivery() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let forms = Forms::from_env(hydrant.config().public_url.as_deref())?;
    let pumps = pumps(&hydrant, &forms)?;
    let work = async {
        join_all(pumps.into_iter().map(Pump::run)).await;
        Ok(())
    };
    Service::new(Tier::Orchestration, "delivery", VERSION)?
        .alongside(work)
        .run_on(hydrant)
        .await
}

fn pumps(hydrant: &Hydrant, forms: &Forms) -> Result<Vec<Pump>, Error> {
    let instance = hydrant.config().instance.as_ref();
    let worker = instance.map_or_else(|| Uuid::new_v4().to_string(), ToString::to_string);
    let keeper: Arc<Keeper> = Arc::new(hydrant.client(KEEPER, DeliveriesClient::new)?);
    let source = Source::new(hydrant)?;
    let pump = |(name, consumer): (&String, &Arc<Consumer>)| {
        let courier = Courier::new(name, consumer, &source)?;
        Ok(Pump::new(name, &consumer.flow, courier, &worker, &keeper))
    };
    forms.consumers().map(pump).collect()
}
