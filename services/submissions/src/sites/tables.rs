//! The tables of the service, in the database that is the primary.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hydrant_records::{Config, Dialect, Fence, InvalidUrl, Records, Schema, Tables as Of};
use hydrant_sdk::{Code, Error};
use tokio::time::{Duration, Instant};

use super::record::Record;

/// The service's tables: in its one database; or where there is one in each of two data centres, in that of the
/// primary, as far as this process knows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tables(Arc<Inner>);

struct Inner {
    /// One, or two; the one of the own data centre first.
    sites: Vec<Site>,
    belief: Mutex<Belief>,
}

/// A database.
#[derive(Clone)]
pub(crate) struct Site {
    /// Empty where there is only one.
    pub(crate) name: String,
    tables: Of,
}

/// What this process knows of the primary.
#[derive(Clone, Debug, Default)]
struct Belief {
    record: Option<Record>,
    /// Until when it may be relied on.
    until: Option<Instant>,
    /// Since when this process has known of this epoch.
    since: Option<Instant>,
}

impl Site {
    /// The database to read from, whether it is the primary or not: nothing is ever written through this.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn to_read(&self) -> Result<Records, Error> {
        let reason = "this handle is for reading".to_owned();
        Ok(self.records()?.fenced(Fence::Closed(reason)))
    }

    pub(super) fn records(&self) -> Result<Records, Error> {
        self.tables.within(Duration::MAX)
    }
}

impl Tables {
    /// The tables in the databases that the environment names. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// If a URL can't be read, or of two databases one has no name.
    pub(crate) fn from_env(schema: &'static Schema) -> Result<Self, Error> {
        let near = configured(Config::from_env())?;
        let far = configured(Config::far_from_env())?;
        match (near, far) {
            (Some(near), Some(far)) => Self::of_two(schema, near, far),
            (near, _) => Ok(Self::of(schema, near.map(Records::open))),
        }
    }

    /// The tables in one database, or none.
    pub(crate) fn of(schema: &'static Schema, records: Option<Records>) -> Self {
        let one = Site {
            name: String::new(),
            tables: Of::of(schema, records),
        };
        Self::new(vec![one])
    }

    pub(super) fn of_two(
        schema: &'static Schema,
        near: Config,
        far: Config,
    ) -> Result<Self, Error> {
        let site = |config: Config| {
            let name = config.name.clone().ok_or_else(no_name)?;
            let tables = Of::of(schema, Some(Records::open(config)));
            Ok::<_, Error>(Site { name, tables })
        };
        Ok(Self::new(vec![site(near)?, site(far)?]))
    }

    fn new(sites: Vec<Site>) -> Self {
        Self(Arc::new(Inner {
            sites,
            belief: Mutex::default(),
        }))
    }

    /// Which SQL is spoken, where there is a database.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        self.0.sites[0].tables.dialect()
    }

    /// The database of the primary, its tables made. Of two databases one that this process does not know to be the
    /// primary now is only read: who writes is refused.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer.
    pub(crate) async fn ready(&self) -> Result<Records, Error> {
        let [near, _] = &self.0.sites[..] else {
            return Ok(self.0.sites[0].tables.ready().await?.clone());
        };
        let belief = self.belief().clone();
        match self.fence(&belief) {
            (Some(site), Fence::Closed(reason)) => Ok(site.closed(reason)?),
            (Some(site), fence) => Ok(site.tables.ready().await?.fenced(fence)),
            (None, Fence::Closed(reason)) => near.closed(reason),
            (None, Fence::Open { .. }) => near.closed("no such database is configured".into()),
        }
    }

    /// The site to ask, and what it allows.
    fn fence(&self, belief: &Belief) -> (Option<&Site>, Fence) {
        let closed = |reason: &str| Fence::Closed(reason.to_owned());
        let Some(record) = &belief.record else {
            let reason = "which database is the primary is not known: coordination has not been read \
                          yet, or none was declared";
            return (None, closed(reason));
        };
        let Some(site) = self.site(&record.site) else {
            let reason = format!(
                "the primary is {}, and this server's file names no such database",
                record.site
            );
            return (None, Fence::Closed(reason));
        };
        match (record.ready, belief.until) {
            (false, _) => {
                let reason = format!("{} is about to become the primary", record.site);
                (Some(site), Fence::Closed(reason))
            }
            (true, Some(until)) if Instant::now() < until => {
                let fence = Fence::Open {
                    epoch: record.epoch,
                    site: record.site.clone(),
                    until,
                };
                (Some(site), fence)
            }
            (true, _) => {
                let reason =
                    "coordination has not confirmed for too long which database is the primary";
                (Some(site), closed(reason))
            }
        }
    }

    /// Whether there is a database in each of two data centres.
    pub(crate) fn has_two(&self) -> bool {
        self.0.sites.len() == 2
    }

    pub(super) fn sites(&self) -> &[Site] {
        &self.0.sites
    }

    pub(super) fn site(&self, name: &str) -> Option<&Site> {
        self.0.sites.iter().find(|site| site.name == name)
    }

    /// Of two databases the one that is not the primary, to read from; `None` where there is one, or the primary is not
    /// known.
    pub(crate) fn other(&self) -> Option<Site> {
        let primary = self.belief().record.as_ref()?.site.clone();
        let mut sites = self.0.sites.iter();
        sites.find(|site| site.name != primary).cloned()
    }

    /// What is on record, as far as this process knows.
    pub(super) fn record(&self) -> Option<Record> {
        self.belief().record.clone()
    }

    /// Whether the former primary may have submissions, and objects that no row here names, that have not been
    /// reconciled; also as long as this is not known.
    pub(crate) fn may_lack_something(&self) -> bool {
        let belief = self.belief();
        let settled = |record: &Record| record.ready && !record.unreconciled;
        self.has_two() && !belief.record.as_ref().is_some_and(settled)
    }

    /// Coordination said this, asked at `asked`.
    pub(super) fn believe(&self, record: Option<Record>, asked: Instant) {
        let mut belief = self.belief();
        let epoch = |record: &Option<Record>| record.as_ref().map(|record| record.epoch);
        if epoch(&record) < epoch(&belief.record) {
            return;
        }
        if epoch(&record) != epoch(&belief.record) {
            belief.since = Some(Instant::now());
        }
        belief.until = record.as_ref().map(|record| asked + record.confirm());
        belief.record = record;
    }

    /// For how long this process has known of an epoch.
    pub(super) fn known_for(&self, epoch: u64) -> Duration {
        let belief = self.belief();
        let is_it = belief
            .record
            .as_ref()
            .is_some_and(|record| record.epoch == epoch);
        let since = belief.since.filter(|_| is_it);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn belief(&self) -> MutexGuard<'_, Belief> {
        self.0.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site {
    fn closed(&self, reason: String) -> Result<Records, Error> {
        Ok(self.records()?.fenced(Fence::Closed(reason)))
    }
}

fn configured(config: Result<Option<Config>, InvalidUrl>) -> Result<Option<Config>, Error> {
    config.map_err(|error| {
        let message = format!("HYDRANT_RECORDS: {error}");
        Error::new(Code::InvalidArgument, "bad_configuration", message)
    })
}

fn no_name() -> Error {
    let message = "two databases need a name each";
    Error::new(Code::InvalidArgument, "bad_configuration", message).mend(
        "write `name` into [records] and [records.far], the same in the files of both data centres",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::TABLES;

    fn two() -> Tables {
        let config = |name: &str| Config {
            name: Some(name.to_owned()),
            ..Config::new("mysql://u@127.0.0.1:1/d").unwrap()
        };
        Tables::of_two(&TABLES, config("a"), config("b")).unwrap()
    }

    fn record(epoch: u64, site: &str, ready: bool) -> Option<Record> {
        Some(Record {
            epoch,
            site: site.into(),
            ready,
            confirm_ms: 1000,
            ..Record::default()
        })
    }

    fn allows(tables: &Tables) -> Result<(String, u64), String> {
        let belief = tables.belief().clone();
        match tables.fence(&belief).1 {
            Fence::Open { site, epoch, .. } => Ok((site, epoch)),
            Fence::Closed(reason) => Err(reason),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_heard_of_the_primary_for_too_long_writes_nowhere() {
        let tables = two();
        assert!(allows(&tables).unwrap_err().contains("not known"));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(400)).await;
        tables.believe(record(1, "a", true), asked);
        assert_eq!(allows(&tables), Ok(("a".into(), 1)));
        // The time counts from the question, and not from its answer.
        tokio::time::advance(Duration::from_millis(601)).await;
        assert!(allows(&tables).unwrap_err().contains("not confirmed"));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_writes_while_the_primary_moves_and_an_answer_that_is_late_changes_nothing() {
        let tables = two();
        tables.believe(record(1, "a", true), Instant::now());
        tables.believe(record(2, "b", false), Instant::now());
        assert!(allows(&tables).unwrap_err().contains("about to become"));
        tables.believe(record(1, "a", true), Instant::now());
        assert!(allows(&tables).is_err());
        tables.believe(record(2, "b", true), Instant::now());
        assert_eq!(allows(&tables), Ok(("b".into(), 2)));
        assert_eq!(tables.other().unwrap().name, "a");
        tables.believe(record(3, "c", true), Instant::now());
        assert!(
            allows(&tables)
                .unwrap_err()
                .contains("names no such database")
        );
    }
}
