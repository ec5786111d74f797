//! `service/mobile`: owns the tables, and as the leader polls the sources and publishes.

mod desk;
pub(crate) mod lead;
mod refused;

use std::sync::Arc;

use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Error, Hydrant, Service, Tier};

use crate::VERSION;
use crate::alarms::Alarms;
use crate::operations::{OperationsDesk, OwnReports, Watch};
use crate::sources::{Fetcher, Poller, SOURCES, Sources};
pub(crate) use desk::{Desk, Edit};
pub(crate) use refused::Refused;

/// Runs `service/mobile`: stands for election, and as the leader polls the sources that the file
/// named by [`SOURCES`](crate::SOURCES) defines.
///
/// # Errors
///
/// If the environment or the definitions can't be used, or as [`Service::run`].
pub async fn run_service() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let alarms = Alarms::new(Clock::system());
    let sources = load_sources(&hydrant)?;
    let poller = Poller {
        fetcher: Fetcher::new(&hydrant, &sources)?,
        sources,
        clock: Clock::system(),
        alarms: alarms.clone(),
        instance: hydrant.own_name(),
    };
    let desk = Desk::new(Clock::system());
    let operations = Arc::new(OperationsDesk {
        hydrant: hydrant.clone(),
        clock: Clock::system(),
        revisions: Box::new(desk),
    });
    let watch = Watch {
        desk: Arc::clone(&operations),
        alarms: alarms.clone(),
    };
    let own_reports = OwnReports {
        hydrant: hydrant.clone(),
        clock: Clock::system(),
        alarms,
    };
    let duties: Vec<Arc<dyn lead::Duty>> = vec![Arc::new(poller), Arc::new(watch)];
    let work = lead::lead_again_and_again(hydrant.clone(), duties);
    Service::new(Tier::Service, "mobile", VERSION)?
        .service(operations)
        .alongside(own_reports.keep_again_and_again())
        .alongside(work)
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
