//! The record of what happened: events that are only ever added, chained afterwards by seals, so that a
//! changed or missing one is found; queries, and the report of a day.

mod explore;
mod query;
mod report;
mod seal;
mod verify;

use std::sync::Arc;

use hydrant_sdk::{Code, Duty, Error, Service};

use crate::proto::{
    AUDIT_EXPLORE_SPEC, AUDIT_LIST_EVENTS_SPEC, AUDIT_REPORT_SPEC, AUDIT_VERIFY_RECEIPTS_SPEC,
    AUDIT_VERIFY_SEALS_SPEC, ExploreRequest, ListEventsRequest, ReportDayRequest,
    VerifyReceiptsRequest, VerifySealsRequest,
};
use crate::sites::Tables;

/// The service with what it answers of its record.
pub(crate) fn serve(service: Service, tables: &Tables) -> Service {
    let [a, b, c, d, e] = [(); 5].map(|()| tables.clone());
    service
        .endpoint(AUDIT_LIST_EVENTS_SPEC, move |request: ListEventsRequest| {
            let tables = a.clone();
            async move { query::list(&tables, &request).await }
        })
        .endpoint(AUDIT_EXPLORE_SPEC, move |request: ExploreRequest| {
            let tables = e.clone();
            async move { explore::explore(&tables, &request).await }
        })
        .endpoint(AUDIT_REPORT_SPEC, move |request: ReportDayRequest| {
            let tables = b.clone();
            async move { report::day(&tables, &request).await }
        })
        .endpoint(
            AUDIT_VERIFY_SEALS_SPEC,
            move |request: VerifySealsRequest| {
                let tables = c.clone();
                async move { verify::seals(&tables, &request).await }
            },
        )
        .endpoint(
            AUDIT_VERIFY_RECEIPTS_SPEC,
            move |request: VerifyReceiptsRequest| {
                let tables = d.clone();
                async move { verify::receipts(&tables, &request).await }
            },
        )
}

/// What the leader does: it seals.
pub(crate) fn duty(tables: &Tables) -> Arc<dyn Duty> {
    Arc::new(seal::Sealing::new(tables.clone()))
}

/// How many rows a page has, when it is not said, and at most.
fn page(asked: u32, usual: u32, most: u32) -> i64 {
    let limit = if asked == 0 { usual } else { asked };
    limit.min(most).into()
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InvalidArgument, "invalid_request", message)
}

#[cfg(test)]
pub(crate) use verify::receipts;

#[cfg(test)]
mod tests;
