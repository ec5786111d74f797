//! The way from what was submitted to the consumers: who has which step, and how each ended.

mod backlog;
mod claim;
mod decide;
mod parked;
mod report;
mod step;

#[cfg(test)]
mod tests;

use std::time::Duration;

use hydrant_sdk::{Code, Error, Redaction, Service};
use tokio::sync::watch;

use super::Desk;
use crate::proto::{
    BacklogRequest, BacklogResponse, ClaimRequest, ClaimResponse, DELIVERIES_BACKLOG_SPEC,
    DELIVERIES_CLAIM_SPEC, DELIVERIES_GIVE_UP_SPEC, DELIVERIES_LIST_PARKED_SPEC,
    DELIVERIES_RENEW_SPEC, DELIVERIES_REPORT_SPEC, DELIVERIES_RETRY_SPEC, DecideRequest,
    DecideResponse, ListParkedRequest, ListParkedResponse, RenewRequest, RenewResponse,
    ReportRequest, ReportResponse,
};
use claim::Turns;

/// The shortest and the longest lease.
const LEASE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(600);
/// The longest name of a worker, and the longest reason, in characters.
const MAX_WORKER: usize = 100;
const MAX_REASON: usize = 500;

/// Says that there may be a step to claim. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Work(watch::Sender<u64>);

impl Default for Work {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Work {
    /// There may be something to do.
    pub(crate) fn tell(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// Answers the methods of `Deliveries`.
pub(super) fn serve(service: Service, desk: &Desk) -> Service {
    let turns = Turns::default();
    let claiming = desk.clone();
    let [renewing, reporting, counting] = [(); 3].map(|()| desk.clone());
    let [listing, retrying, giving_up] = [(); 3].map(|()| desk.clone());
    service
        .endpoint(DELIVERIES_CLAIM_SPEC, move |request| {
            claim(claiming.clone(), turns.clone(), request)
        })
        .endpoint(DELIVERIES_RENEW_SPEC, move |request| {
            renew(renewing.clone(), request)
        })
        .endpoint(DELIVERIES_REPORT_SPEC, move |request| {
            report(reporting.clone(), request)
        })
        .endpoint(DELIVERIES_BACKLOG_SPEC, move |request| {
            backlog(counting.clone(), request)
        })
        .endpoint(DELIVERIES_LIST_PARKED_SPEC, move |request| {
            list_parked(listing.clone(), request)
        })
        .endpoint(DELIVERIES_RETRY_SPEC, move |request| {
            retry(retrying.clone(), request)
        })
        .endpoint(DELIVERIES_GIVE_UP_SPEC, move |request| {
            give_up(giving_up.clone(), request)
        })
}

async fn claim(desk: Desk, turns: Turns, request: ClaimRequest) -> Result<ClaimResponse, Error> {
    claim::claim(&desk, &turns, &request).await
}

async fn renew(desk: Desk, request: RenewRequest) -> Result<RenewResponse, Error> {
    claim::renew(&desk, &request).await
}

async fn report(desk: Desk, request: ReportRequest) -> Result<ReportResponse, Error> {
    report::report(&desk, request).await
}

async fn backlog(desk: Desk, _: BacklogRequest) -> Result<BacklogResponse, Error> {
    backlog::backlog(&desk).await
}

async fn list_parked(desk: Desk, request: ListParkedRequest) -> Result<ListParkedResponse, Error> {
    parked::list(&desk, &request).await
}

async fn retry(desk: Desk, request: DecideRequest) -> Result<DecideResponse, Error> {
    decide::decide(&desk, &request, decide::Decision::Retry).await
}

async fn give_up(desk: Desk, request: DecideRequest) -> Result<DecideResponse, Error> {
    decide::decide(&desk, &request, decide::Decision::GiveUp).await
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, "invalid_delivery", message.into())
}

/// A text for people, without what could forge a line, not too long, and without secrets: it may have words of a
/// consumer's server.
fn plain(text: &str) -> String {
    let shown = Redaction::shared().text(text);
    let is_good = |letter: &char| !letter.is_control();
    shown.chars().filter(is_good).take(MAX_REASON).collect()
}
