//! `api/mobile`: what apps ask, answered from memory.

mod admin;
mod body;
mod cache;
mod compose;
pub(crate) mod conditional;
pub(crate) mod cors;
mod encoding;
mod follow;
pub(crate) mod gate;
mod init;
mod menu;
mod observe;
pub(crate) mod ofrep;
pub(crate) mod parameters;
mod reply;
pub(crate) mod serving;
mod sight;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use hydrant_runtime::{Clock, Shutdown};
use hydrant_sdk::{Code, Error, Hydrant, Instance, InstanceState, Problem, Service, Tier};

use crate::VERSION;
use crate::api::admin::Admin;
use crate::api::follow::Follower;
use crate::api::gate::Gate;
use crate::api::observe::Reports;
use crate::api::ofrep::{Heard, Seats};
use crate::api::serving::Served;
use crate::api::sight::Sight;
use crate::content;
use crate::operations::{Reception, Reporter};
use crate::sources::{Asker, Courier, Errands};

/// How long a new process waits for what it answers from before it looks for others that can answer.
const FIRST: Duration = Duration::from_secs(10);

/// Runs `api/mobile`: answers apps from what `service/mobile` published.
///
/// # Errors
///
/// If the environment can't be used, or as [`Service::run`].
pub async fn run_api() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let (changes, heard) = ofrep::changes();
    let answers = Answers::new(Clock::system(), heard);
    let reception = Reception::new(Clock::system());
    let served = Arc::clone(&answers.served);
    let mut follower = Follower::new(&hydrant, served, changes, reception.clone())?;
    let admin = Admin::new(&hydrant, answers.gate.clone());
    let courier = Courier {
        hydrant: hydrant.clone(),
        errands: Errands::new(Asker::of(&hydrant))?,
        orders: follower.orders(),
    };
    let reporter = Reporter {
        hydrant: hydrant.clone(),
        served: Arc::clone(&answers.served),
        reception: reception.clone(),
    };
    until_it_can_answer(&hydrant, &mut follower, &reception).await;
    Service::new(Tier::Api, "mobile", VERSION)?
        .http(routes(Arc::clone(&answers)))
        .http(admin.routes())
        .http(content::api::routes(Arc::clone(&answers), &hydrant)?)
        // What changes nothing, and what counts once however often it comes.
        .safe_to_repeat("/ofrep/")
        .safe_to_repeat("/v1/init")
        .safe_to_repeat("/v1/exposures")
        .safe_to_repeat("/v1/metrics")
        .alongside(answers.reports.clone().forward(hydrant.clone()))
        .alongside(ofrep::leave_when_drained(
            hydrant.clone(),
            answers.leaving.clone(),
        ))
        .alongside(follower.follow(answers.sight.clone()))
        .alongside(reporter.report_again_and_again())
        .alongside(courier.run_again_and_again())
        .run_on(hydrant)
        .await
}

/// Waits for a revision and for the sources: a process that answers 503 because it is new would be
/// seen by users, and one that registers a moment later is not. While others answer, a new one waits
/// for as long as it takes. Where nobody does, it lets requests in after some time: `init` tells what
/// there is, and that the rest is missing.
async fn until_it_can_answer(hydrant: &Hydrant, follower: &mut Follower, reception: &Reception) {
    while tokio::time::timeout(FIRST, follower.until_first())
        .await
        .is_err()
    {
        if !others_answer(hydrant).await {
            return reception.begins_with_nothing(FIRST);
        }
        tracing::warn!("nothing to answer from has come yet; others answer meanwhile");
    }
}

/// Whether others of this service let requests in. This process is not registered yet.
async fn others_answer(hydrant: &Hydrant) -> bool {
    let found = tokio::time::timeout(FIRST, hydrant.discover("api/mobile")).await;
    let ready = |one: &Instance| one.state == InstanceState::Ready;
    matches!(found, Ok(Ok(others)) if others.iter().any(ready))
}

/// What the handlers of all calls share.
pub(crate) struct Answers {
    /// What answers are made from: load it once for each request.
    pub(crate) served: Served,
    /// When the shared state was seen last.
    pub(crate) sight: Sight,
    pub(crate) clock: Clock,
    /// Lets requests in by their keys, within their rates.
    pub(crate) gate: Gate,
    /// The newest revision, for streams that tell of it.
    pub(crate) heard: Heard,
    /// How many streams there are.
    pub(crate) seats: Seats,
    /// Begins when this instance is drained: then streams end.
    pub(crate) leaving: Shutdown,
    /// What apps report, on its way to the service.
    pub(crate) reports: Reports,
}

impl Answers {
    fn new(clock: Clock, heard: Heard) -> Arc<Self> {
        let served = Served::default();
        Arc::new(Self {
            gate: Gate::new(Arc::clone(&served)),
            sight: Sight::new(clock.clone()),
            seats: Seats::default(),
            leaving: Shutdown::new(),
            reports: Reports::default(),
            served,
            clock,
            heard,
        })
    }
}

impl FromRef<Arc<Answers>> for Gate {
    fn from_ref(answers: &Arc<Answers>) -> Self {
        answers.gate.clone()
    }
}

/// All that this service answers: one line for each of its parts.
fn routes(answers: Arc<Answers>) -> axum::Router {
    let served = Arc::clone(&answers.served);
    axum::Router::new()
        .merge(init::routes())
        .merge(menu::routes())
        .merge(ofrep::routes())
        .merge(observe::routes())
        .fallback(|| async { Problem(no_such_page()) })
        .with_state(answers)
        .layer(from_fn_with_state(served, cors::cors))
}

fn no_such_page() -> Error {
    Error::new(Code::NotFound, "no_such_page", "there is no such page")
        .mend("ask for /api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US")
}
