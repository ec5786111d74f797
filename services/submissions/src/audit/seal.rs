//! Events are sealed in a chain, each under the hash of the one before, a moment after they were written: so
//! that writers never wait in line behind a chain.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_records::{RecordsError, Row, Transaction, params, transaction};
use hydrant_sdk::{Code, Duty, Error, Term, turns};
use sha2::{Digest as _, Sha256};

use crate::receipt::hex;
use crate::service::events::COLUMNS;
use crate::sites::Tables;

/// The chain of this database.
pub(super) const SITE: &str = "main";
/// How often is looked for new events.
const LOOK: Duration = Duration::from_secs(1);
/// How many events are sealed in one transaction.
const TOGETHER: i64 = 500;
/// Numbers of events are given before their transactions are committed, so one may appear behind others. So far
/// back is looked each time; and from the first event on in the first turn of a term.
const LOOK_BACK: i64 = 100_000;

/// What a seal covers of an event: its number, and all else.
pub(super) const COVERED: usize = 1 + COLUMNS.len();

/// Seals events, as the leader.
pub(super) struct Sealing {
    tables: Tables,
    /// All events up to this one are sealed.
    sealed: AtomicI64,
}

impl Sealing {
    pub(super) fn new(tables: Tables) -> Self {
        Self {
            tables,
            sealed: AtomicI64::new(0),
        }
    }

    /// Seals the next events; tells how many.
    pub(super) async fn seal(&self) -> Result<usize, Error> {
        let records = self.tables.ready().await?;
        let from = self.sealed.load(Ordering::Relaxed);
        let (sealed, last) = transaction!(records, |tx| stretch(tx, from).await)?;
        if (sealed as i64) < TOGETHER {
            let far_enough_back = (last - LOOK_BACK).max(0);
            self.sealed.store(far_enough_back, Ordering::Relaxed);
        }
        Ok(sealed)
    }
}

impl Duty for Sealing {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async move {
            self.sealed.store(0, Ordering::Relaxed);
            let mut turns = turns(LOOK);
            loop {
                term.turn(&mut turns).await;
                // As long as there are many, one stretch follows the other.
                loop {
                    match self.seal().await {
                        Ok(sealed) if sealed as i64 == TOGETHER => {}
                        Ok(_) => break,
                        Err(error) => {
                            tracing::warn!(%error, "events can't be sealed; trying again");
                            break;
                        }
                    }
                }
            }
        })
    }
}

/// Seals the first events behind `from` that have no seal; returns how many, and the newest event that is
/// sealed. Of two that do this at the same time one is refused by the keys of the table.
async fn stretch(tx: &mut Transaction, from: i64) -> Result<(usize, i64), Error> {
    let head = "SELECT number, hash FROM audit_seals WHERE site = ? ORDER BY number DESC LIMIT 1";
    let head = tx.lock(head, &params![SITE]).await?;
    let (mut number, mut hash) = match head.first() {
        Some(row) => (row.get::<i64>(0)?, row.get::<String>(1)?),
        None => (0, String::new()),
    };
    let select = "SELECT e.id, e.at_ms, e.kind, e.outcome, e.submission, e.form, e.store, e.person, \
                  e.session, e.detail FROM audit_events e LEFT JOIN audit_seals s ON s.event = e.id \
                  WHERE e.id > ? AND s.event IS NULL ORDER BY e.id LIMIT ?";
    let events = tx.query(select, &params![from, TOGETHER]).await?;
    let mut rows = Vec::with_capacity(events.len());
    for event in &events {
        number += 1;
        hash = seal(&hash, number, event, 0)?;
        rows.push(params![SITE, number, event.get::<i64>(0)?, &hash]);
    }
    if !rows.is_empty() {
        let columns = ["site", "number", "event", "hash"];
        let new = tx.insert_new("audit_seals", &columns, &rows).await?;
        if new != rows.len() as u64 {
            return Err(too_late());
        }
    }
    let newest = "SELECT MAX(event) FROM audit_seals";
    let newest = tx.query(newest, &[]).await?;
    let newest = newest.first().map(|row| row.get::<Option<i64>>(0));
    Ok((rows.len(), newest.transpose()?.flatten().unwrap_or(0)))
}

fn too_late() -> Error {
    let message = "somebody else has sealed these events at the same time";
    Error::new(Code::Aborted, "sealed_already", message)
}

/// The hash of a seal: over the hash before, the number of the seal, and the event, whose columns begin at
/// `first` in the row. Each part stands with its length, so that no two events look the same.
pub(super) fn seal(
    before: &str,
    number: i64,
    event: &Row,
    first: usize,
) -> Result<String, RecordsError> {
    let mut sha256 = Sha256::new();
    let mut add = |part: &str| sha256.update(format!("{}:{part}\n", part.len()));
    add(before);
    add(&number.to_string());
    for column in 0..COVERED {
        match column {
            0 | 1 => add(&event.get::<i64>(first + column)?.to_string()),
            _ => add(&event.get::<String>(first + column)?),
        }
    }
    Ok(hex(&sha256.finalize()))
}
