//! What is kept of an experiment that is over: its numbers for ever, and who saw and did what for a
//! time. A report is made from the numbers alone, so nobody misses the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_records::{RecordsError, Sql, Transaction, params, transaction};
use hydrant_sdk::{Duty, Error, Term, turns};

use super::observe::Observations;
use crate::compiled::Compiled;
use crate::service::lock_head;

/// How often the leader looks whether something is due.
const LOOK: Duration = Duration::from_secs(600);
/// How long it leaves the database to others between two removals.
const PAUSE: Duration = Duration::from_millis(50);
/// How many rows one transaction removes at most.
const AT_ONCE: i64 = 1000;

/// What tells of single people, by experiment.
const OF_PEOPLE: [Sql; 2] = [
    Sql::each(
        "DELETE FROM mobile_exposures WHERE rowid IN \
         (SELECT rowid FROM mobile_exposures WHERE experiment = ? LIMIT ?)",
        "DELETE FROM mobile_exposures WHERE experiment = ? LIMIT ?",
    ),
    Sql::each(
        "DELETE FROM mobile_metric_people WHERE rowid IN \
         (SELECT rowid FROM mobile_metric_people WHERE experiment = ? LIMIT ?)",
        "DELETE FROM mobile_metric_people WHERE experiment = ? LIMIT ?",
    ),
];
/// Which measurements were counted already, by when they came.
const IDS: Sql = Sql::each(
    "DELETE FROM mobile_measured WHERE rowid IN \
     (SELECT rowid FROM mobile_measured WHERE at_unix_ms <= ? LIMIT ?)",
    "DELETE FROM mobile_measured WHERE at_unix_ms <= ? LIMIT ?",
);

/// Forgets people while it leads.
pub(crate) struct Retention {
    pub(crate) observations: Observations,
}

impl Duty for Retention {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            let mut turns = turns(LOOK);
            loop {
                term.turn(&mut turns).await;
                if let Err(error) = self.look().await {
                    tracing::debug!(%error, "could not forget what is over; trying again");
                }
            }
        })
    }
}

/// An experiment that does not run any more.
struct Ended {
    experiment: String,
    at_unix_ms: i64,
}

impl Retention {
    /// Notes which experiments are over, and forgets who was in those that have been for long enough.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        let desk = &self.observations.desk;
        if !desk.has_tables() {
            return Ok(());
        }
        let current = desk.current().await?;
        let now = desk.clock().unix_ms();
        let before = now - current.settings.observations.keep_ms();
        for ended in self.note(&current, now).await? {
            if ended.at_unix_ms <= before {
                self.forget(&current, &ended.experiment).await?;
            }
        }
        self.forget_ids(before).await
    }

    /// Keeps since when each experiment is over, and returns all that are.
    async fn note(&self, current: &Compiled, now: i64) -> Result<Vec<Ended>, Error> {
        let running = current.experiments.running();
        let running: BTreeSet<&str> = running.map(|(one, _)| one.name.as_str()).collect();
        let records = self.observations.records().await?;
        let ended = transaction!(records, |tx| {
            match is_newest(tx, current).await? {
                true => note(tx, &running, now).await,
                false => Ok(Vec::new()),
            }
        });
        Ok(ended?)
    }

    /// Forgets who was in an experiment, unless anything has changed: it may run again.
    pub(super) async fn forget(&self, current: &Compiled, experiment: &str) -> Result<(), Error> {
        let records = self.observations.records().await?;
        let mut removed = 0;
        loop {
            let some: Result<u64, RecordsError> = transaction!(records, |tx| {
                match is_newest(tx, current).await? {
                    true => forget_some(tx, experiment).await,
                    false => Ok(0),
                }
            });
            match some? {
                0 => break,
                some => removed += some,
            }
            tokio::time::sleep(PAUSE).await;
        }
        if removed > 0 {
            tracing::info!(experiment, rows = removed, "forgot who was in it");
        }
        Ok(())
    }

    /// Forgets which measurements were counted, when they are so old that none comes again.
    async fn forget_ids(&self, before: i64) -> Result<(), Error> {
        let records = self.observations.records().await?;
        let limit = params![before, AT_ONCE];
        while transaction!(records, |tx| tx.execute(IDS, &limit).await)? > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// Whether nobody has changed anything since; nobody does before the transaction ends.
async fn is_newest(tx: &mut Transaction, current: &Compiled) -> Result<bool, RecordsError> {
    Ok(lock_head(tx).await? == current.revision)
}

async fn note(
    tx: &mut Transaction,
    running: &BTreeSet<&str>,
    now: i64,
) -> Result<Vec<Ended>, RecordsError> {
    let seen = "SELECT DISTINCT experiment FROM mobile_exposure_counts";
    let mut over = Vec::new();
    for row in tx.query(seen, &[]).await? {
        let experiment: String = row.get(0)?;
        match running.contains(experiment.as_str()) {
            true => {
                let again = "DELETE FROM mobile_experiments_ended WHERE experiment = ?";
                tx.execute(again, &params![&experiment]).await?;
            }
            false => over.push(params![&experiment, now, 0]),
        }
    }
    let columns = ["experiment", "at_unix_ms", "forgotten"];
    tx.insert_new("mobile_experiments_ended", &columns, &over)
        .await?;
    let known = "SELECT experiment, at_unix_ms FROM mobile_experiments_ended";
    let rows = tx.query(known, &[]).await?;
    let ended = |row: &hydrant_records::Row| {
        Ok(Ended {
            experiment: row.get(0)?,
            at_unix_ms: row.get(1)?,
        })
    };
    rows.iter().map(ended).collect()
}

async fn forget_some(tx: &mut Transaction, experiment: &str) -> Result<u64, RecordsError> {
    let mark = "UPDATE mobile_experiments_ended SET forgotten = 1 WHERE experiment = ?";
    tx.execute(mark, &params![experiment]).await?;
    let mut removed = 0;
    for statement in OF_PEOPLE {
        let some = params![experiment, AT_ONCE];
        removed += tx.execute(statement, &some).await?;
    }
    Ok(removed)
}

/// Of these experiments, those whose people are forgotten.
pub(super) async fn forgotten(
    tx: &mut Transaction,
    ended: BTreeSet<&str>,
) -> Result<BTreeSet<String>, RecordsError> {
    if ended.is_empty() {
        return Ok(BTreeSet::new());
    }
    let all = "SELECT experiment FROM mobile_experiments_ended WHERE forgotten = 1";
    let mut forgotten = BTreeSet::new();
    for row in tx.query(all, &[]).await? {
        forgotten.insert(row.get::<String>(0)?);
    }
    forgotten.retain(|experiment| ended.contains(experiment.as_str()));
    Ok(forgotten)
}
