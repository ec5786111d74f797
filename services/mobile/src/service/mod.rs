//! `service/mobile`: owns the tables, changes documents in revisions, and as the leader polls the sources
//! and publishes.

mod answers;
mod desk;
mod diff;
pub(crate) mod lead;
mod publish;
mod published;
mod refused;
mod revise;
mod store;
mod tables;

use std::sync::Arc;

use hydrant_objects as objects;
use hydrant_records::Tables;
use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Duty, Error, Hydrant, Service, Tier};

use crate::VERSION;
use crate::alarms::Alarms;
use crate::configuration;
use crate::content::service::{Bring, ContentDesk};
use crate::demo;
use crate::experiments;
use crate::operations::{self, OperationsDesk, OwnReports, Watch};
use crate::sources::{Fetcher, Poller, SOURCES, Sources};
pub(crate) use desk::{Desk, Edit};
use publish::Publisher;
use published::Published;
pub(crate) use refused::Refused;
pub(crate) use store::lock_head;
pub(crate) use tables::TABLES;

/// Runs `service/mobile`: changes documents, and as the leader publishes them, and polls the sources
/// that the file named by [`SOURCES`](crate::SOURCES) defines.
///
/// # Errors
///
/// If the environment or the definitions can't be used, or as [`Service::run`].
pub async fn run_service() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let alarms = Alarms::new(Clock::system());
    let sources = load_sources(&hydrant)?;
    let published = Published::new(Some(hydrant.clone()));
    let following = published.follow(&hydrant);
    let first = match demo::is_wanted() {
        true => demo::documents(objects::Config::from_env(objects::NEAR).is_some()),
        false => Vec::new(),
    };
    let desk = Desk::new(
        Tables::from_env(&TABLES)?,
        published,
        Clock::system(),
        first,
    );
    let poller = Poller {
        fetcher: Fetcher::new(&hydrant, &sources)?,
        sources,
        clock: Clock::system(),
        alarms: alarms.clone(),
        desk: desk.clone(),
        instance: hydrant.own_name(),
    };
    let content = ContentDesk::new(desk.clone(), hydrant.config().public_url.as_deref());
    let publisher = Publisher { desk: desk.clone() };
    let operations_desk = Arc::new(OperationsDesk {
        hydrant: hydrant.clone(),
        clock: Clock::system(),
        documents: desk.clone(),
        alarms: alarms.clone(),
    });
    let watch = Watch {
        desk: Arc::clone(&operations_desk),
    };
    let own_reports = OwnReports {
        hydrant: hydrant.clone(),
        clock: Clock::system(),
        alarms: alarms.clone(),
    };
    let observations = experiments::Observations::new(desk.clone());
    let experiments = experiments::Watch {
        observations: observations.clone(),
        alarms,
    };
    let retention = experiments::Retention {
        observations: observations.clone(),
    };
    let mut duties: Vec<Arc<dyn Duty>> = vec![
        Arc::new(publisher),
        Arc::new(poller),
        Arc::new(experiments),
        Arc::new(retention),
    ];
    if demo::is_wanted() {
        duties.push(Arc::new(Bring(content.clone())));
    }
    let leading = hydrant.clone().lead_again_and_again(lead::ELECTION, duties);
    let service = answers::serve(Service::new(Tier::Service, "mobile", VERSION)?, &desk);
    let service = configuration::serve(service, &desk);
    let service = content.join(experiments::serve(service, &observations));
    operations::serve(service, &operations_desk)
        .alongside(own_reports.keep_again_and_again())
        .alongside(watch.look_again_and_again())
        .alongside(following)
        .alongside(leading)
        .run_on(hydrant)
        .await
}

fn load_sources(hydrant: &Hydrant) -> Result<Sources, Error> {
    let path = std::env::var_os(SOURCES).ok_or_else(|| {
        let message = format!("{SOURCES} is not set, so no sources are known");
        Error::new(Code::FailedPrecondition, "no_sources", message)
            .mend("set it to the path of a sources.toml")
    })?;
    let public_url = hydrant.config().public_url.as_deref();
    Sources::load(path.as_ref(), public_url).map_err(|error| broken(&error))
}

pub(crate) fn broken(error: &dyn std::error::Error) -> Error {
    Error::new(
        Code::InvalidArgument,
        "bad_configuration",
        error.to_string(),
    )
}

/// A desk on a database, for tests of what uses it.
#[cfg(test)]
pub(crate) fn desk_on(records: hydrant_records::Records, clock: Clock) -> Desk {
    Desk::new(
        Tables::of(&TABLES, Some(records)),
        Published::new(None),
        clock,
        Vec::new(),
    )
}

#[cfg(test)]
mod tests;
