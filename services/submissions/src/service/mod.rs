//! `service/submissions`: owns the tables and the object stores.

mod deliveries;
pub(crate) mod events;
mod hops;
mod intake;
mod refused;
mod status;
mod submit;
mod tables;

use std::sync::Arc;

use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Error, Hydrant, Service, Tier};

use crate::VERSION;
use crate::attachments::{Attachments, Copying, Sweep};
use crate::audit;
use crate::exposure::Meter;
use crate::forms::Forms;
use crate::proto::{
    AcceptRequest, AcceptResponse, GetReceiptRequest, GetRequest, Receipt, RefuseRequest,
    RefuseResponse, SUBMISSIONS_ACCEPT_SPEC, SUBMISSIONS_GET_RECEIPT_SPEC, SUBMISSIONS_GET_SPEC,
    SUBMISSIONS_REFUSE_SPEC, SUBMISSIONS_SUBMIT_SPEC, Status, SubmitRequest,
};
use crate::sites::{Sites, Tables};
use deliveries::Work;
use intake::Intake;
pub(crate) use status::Changes;
pub(crate) use tables::TABLES;

/// The election that decides which process does what only one does.
const ELECTION: &str = "keeper";

/// What everything here works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) tables: Tables,
    pub(crate) forms: Arc<Forms>,
    pub(crate) clock: Clock,
    /// Tells who waits that a submission has changed here.
    pub(crate) changes: Changes,
    /// Tells who waits for work that there may be some.
    pub(crate) work: Work,
}

/// Runs `service/submissions` with the forms of the file that [`FORMS`](crate::FORMS) names.
///
/// # Errors
///
/// If the environment or the forms can't be used, or as [`Service::run`].
pub async fn run_service() -> Result<(), Error> {
    hydrant_runtime::telemetry::start();
    let hydrant = Hydrant::from_env()?;
    let forms = Forms::from_env(hydrant.config().public_url.as_deref())?;
    let desk = Desk {
        tables: Tables::from_env(&TABLES)?,
        forms: Arc::new(forms),
        clock: Clock::system(),
        changes: Changes::default(),
        work: Work::default(),
    };
    let sites = Sites::new(&desk, hydrant.kept());
    let (intake, writing) = Intake::new(&desk);
    let (attachments, receiving) = Attachments::from_env(&desk);
    let meter = Meter::new(&attachments, &desk.tables);
    let duties = vec![
        audit::duty(&desk.tables),
        Sweep::duty(&attachments),
        Copying::duty(&attachments),
        meter.duty(&hydrant),
    ];
    let leading = hydrant.clone().lead_again_and_again(ELECTION, duties);
    let service = Service::new(Tier::Service, "submissions", VERSION)?;
    let service = audit::serve(service, &desk.tables);
    let service = meter.serve(service);
    let service = sites.serve(service);
    serve(service, &desk, &intake)
        .http(attachments.routes())
        .alongside(writing)
        .alongside(receiving)
        .alongside(leading)
        .alongside(sites.clone().keep_asking())
        .alongside(sites.keep_fencing())
        .run_on(hydrant)
        .await
}

fn serve(service: Service, desk: &Desk, intake: &Intake) -> Service {
    let intake = intake.clone();
    let [submitting, getting, proving, refusing] = [(); 4].map(|()| desk.clone());
    deliveries::serve(service, desk)
        .endpoint(SUBMISSIONS_ACCEPT_SPEC, move |request| {
            accept(intake.clone(), request)
        })
        .endpoint(SUBMISSIONS_SUBMIT_SPEC, move |request| {
            submit(submitting.clone(), request)
        })
        .endpoint(SUBMISSIONS_GET_SPEC, move |request| {
            get(getting.clone(), request)
        })
        .endpoint(SUBMISSIONS_GET_RECEIPT_SPEC, move |request| {
            get_receipt(proving.clone(), request)
        })
        .endpoint(SUBMISSIONS_REFUSE_SPEC, move |request| {
            refuse(refusing.clone(), request)
        })
}

async fn accept(intake: Intake, request: AcceptRequest) -> Result<AcceptResponse, Error> {
    intake.accept(request).await
}

async fn submit(desk: Desk, request: SubmitRequest) -> Result<Status, Error> {
    submit::submit(&desk, &request).await
}

async fn get(desk: Desk, request: GetRequest) -> Result<Status, Error> {
    status::get(&desk, &request).await
}

async fn get_receipt(desk: Desk, request: GetReceiptRequest) -> Result<Receipt, Error> {
    hops::receipt(&desk, &request.id).await
}

pub(crate) async fn refuse(desk: Desk, request: RefuseRequest) -> Result<RefuseResponse, Error> {
    refused::put(&desk, &request).await
}

/// The error of an id that nothing has.
pub(crate) fn unknown(id: &str) -> Error {
    let message = format!("there is no submission {}", id.escape_debug());
    Error::new(Code::NotFound, "unknown_submission", message)
        .mend("send it with `POST /api/submissions/v1/submissions` and this Correlation-Id")
}

#[cfg(test)]
pub(crate) mod office;
#[cfg(test)]
mod tests;
