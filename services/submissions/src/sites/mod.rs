//! A database in each of two data centres: one is the primary and takes all writes, the other follows it and takes its
//! place when it is lost.
//!
//! Which one is the primary is one [record] in coordination, under an epoch. Each process reads it again and again, and
//! writes only while it has been confirmed a moment ago; and each transaction that writes begins by looking at the fence of
//! the database itself. So a data centre that is cut off from the others stops by itself, and one that wakes up is refused.

mod failover;
mod reconcile;
mod record;
mod show;
mod tables;

use std::sync::Arc;

use hydrant_sdk::{Code, Error, Kept, Service};
use tokio::time::{Duration, Instant, sleep};

use crate::proto::{
    DeclarePrimaryRequest, EndReconcileRequest, FailoverRequest, PlanFailoverRequest,
    ReconcileRequest, SITES_DECLARE_PRIMARY_SPEC, SITES_END_RECONCILE_SPEC, SITES_FAILOVER_SPEC,
    SITES_PLAN_FAILOVER_SPEC, SITES_RECONCILE_SPEC, SITES_SHOW_SITES_SPEC, ShowSitesRequest,
};
use crate::service::Desk;
pub(crate) use tables::{Site, Tables};

/// How often the record is read.
const LOOK: Duration = Duration::from_secs(1);
/// How often is looked whether a primary of old answers again.
const GUARD: Duration = Duration::from_secs(3);
/// The longest name of who decides, and the longest reason, in characters.
const MAX_AUTHOR: usize = 100;
const MAX_WHY: usize = 500;

/// What the work of this module needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sites {
    desk: Desk,
    kept: Kept,
    /// One thing at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Sites {
    pub(crate) fn new(desk: &Desk, kept: Kept) -> Self {
        Self {
            desk: desk.clone(),
            kept,
            turn: Arc::default(),
        }
    }

    /// Reads the record again and again, as long as the service runs.
    ///
    /// # Errors
    ///
    /// Never: what fails is tried again.
    pub(crate) async fn keep_asking(self) -> Result<(), Error> {
        if !self.desk.tables.has_two() {
            return std::future::pending().await;
        }
        let mut was_well = true;
        loop {
            let asked = Instant::now();
            let read = record::read(&self.kept).await;
            if let Err(error) = &read
                && was_well
            {
                tracing::warn!(%error, "can't read which database is the primary; trying again");
            }
            was_well = read.is_ok();
            if let Ok(read) = read {
                let record = read.map(|recorded| recorded.record);
                self.desk.tables.believe(record, asked);
            }
            sleep(LOOK).await;
        }
    }

    /// Looks for the primary of old again and again, as long as the service runs.
    ///
    /// # Errors
    ///
    /// Never: what fails is tried again.
    pub(crate) async fn keep_fencing(self) -> Result<(), Error> {
        loop {
            sleep(GUARD).await;
            if self.desk.tables.has_two()
                && let Err(error) = self.watch_for_the_old().await
            {
                tracing::debug!(%error, "the primary of old is not fenced yet");
            }
        }
    }

    /// Answers the methods of `Sites`.
    pub(crate) fn serve(&self, service: Service) -> Service {
        let [a, b, c, d, e, f] = [(); 6].map(|()| self.clone());
        service
            .endpoint(SITES_SHOW_SITES_SPEC, move |_: ShowSitesRequest| {
                let sites = a.clone();
                async move { sites.show().await }
            })
            .endpoint(
                SITES_DECLARE_PRIMARY_SPEC,
                move |request: DeclarePrimaryRequest| {
                    let sites = b.clone();
                    async move { sites.declare(&request).await }
                },
            )
            .endpoint(
                SITES_PLAN_FAILOVER_SPEC,
                move |request: PlanFailoverRequest| {
                    let sites = c.clone();
                    async move { sites.plan(&request).await }
                },
            )
            .endpoint(SITES_FAILOVER_SPEC, move |request: FailoverRequest| {
                let sites = d.clone();
                async move { sites.failover(&request).await }
            })
            .endpoint(SITES_RECONCILE_SPEC, move |request: ReconcileRequest| {
                let sites = e.clone();
                async move { sites.reconcile(&request).await }
            })
            .endpoint(
                SITES_END_RECONCILE_SPEC,
                move |request: EndReconcileRequest| {
                    let sites = f.clone();
                    async move { sites.end_reconcile(&request).await }
                },
            )
    }

    fn tables(&self) -> &Tables {
        &self.desk.tables
    }

    /// The record as it is now, which this process believes from here on.
    async fn recorded(&self) -> Result<Option<record::Recorded>, Error> {
        let asked = Instant::now();
        let read = record::read(&self.kept).await?;
        let record = read.as_ref().map(|recorded| recorded.record.clone());
        self.tables().believe(record, asked);
        Ok(read)
    }

    async fn write(
        &self,
        record: record::Record,
        revision: u64,
    ) -> Result<record::Recorded, Error> {
        let asked = Instant::now();
        let written = record::write(&self.kept, record, revision).await?;
        self.tables().believe(Some(written.record.clone()), asked);
        Ok(written)
    }

    fn named(&self, name: &str) -> Result<&Site, Error> {
        self.tables().site(name).ok_or_else(|| {
            let names: Vec<_> = self
                .tables()
                .sites()
                .iter()
                .map(|site| &*site.name)
                .collect();
            let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
            let message = format!("there is no database `{name}`");
            Error::new(Code::NotFound, "unknown_site", message)
                .mend(format!("one of: {}", names.join(", ")))
        })
    }

    fn check_two(&self) -> Result<(), Error> {
        match self.tables().has_two() {
            true => Ok(()),
            false => {
                let message = "there is one database, so it is the primary";
                Err(Error::new(Code::FailedPrecondition, "one_site", message)
                    .mend("a database in another data centre is named in [records.far]"))
            }
        }
    }
}

fn checked_why(author: &str, reason: &str) -> Result<(), Error> {
    let is_text = |text: &str, most: usize| {
        let is_short = (1..=most).contains(&text.chars().count());
        is_short && !text.trim().is_empty() && !text.chars().any(char::is_control)
    };
    match is_text(author, MAX_AUTHOR) && is_text(reason, MAX_WHY) {
        true => Ok(()),
        false => {
            let message = "this has an author (100 characters) and a reason (500), on one line";
            Err(Error::new(Code::InvalidArgument, "no_reason", message)
                .mend("say who decides and why: both are kept with it"))
        }
    }
}

fn refused(reason: &'static str, message: impl Into<String>) -> Error {
    Error::new(Code::FailedPrecondition, reason, message.into())
}
