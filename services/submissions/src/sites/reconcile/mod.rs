//! What a primary had taken, and had not passed on when another took its place, is brought over when it answers again.

mod carry;
mod judge;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hydrant_records::{Records, RecordsError, Row, Transaction, params, read, transaction};
use hydrant_sdk::Error;
use tokio::time::Duration;

use super::record::Record;
use super::{Sites, checked_why, refused};
use crate::proto::{
    Difference, EndReconcileRequest, ReconcileRequest, ReconcileResponse, ShowSitesResponse,
};
use carry::Carry;
use judge::judge;
use rows::Whole;

/// How many submissions are compared at once, when it is not said, and at most.
const PAGE: (u32, u32) = (200, 500);
/// How long the database of old may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sides.
struct Sides {
    record: Record,
    /// The name of the database whose rest is brought over.
    from: String,
    other: Records,
    own: Records,
}

impl Sites {
    /// Compares a stretch, and brings over what is missing if that is asked for.
    pub(super) async fn reconcile(
        &self,
        request: &ReconcileRequest,
    ) -> Result<ReconcileResponse, Error> {
        let sides = self.sides().await?;
        if request.apply {
            self.shut_for_good(&sides).await?;
        }
        let limit = match request.limit {
            0 => PAGE.0,
            limit => limit.min(PAGE.1),
        };
        let ids = ids(&sides.other, &request.after, limit).await?;
        let Some(last) = ids.last().cloned() else {
            return Ok(sides.answer(0, Vec::new(), request.after.clone(), true));
        };
        let stretch = (request.after.as_str(), last.as_str());
        let one = summary(&sides.other, stretch).await?;
        let two = summary(&sides.own, stretch).await?;
        let differ: Vec<_> = ids
            .iter()
            .filter(|id| one.get(*id) != two.get(*id))
            .collect();
        if request.apply && !differ.is_empty() {
            carry::make_tables(&sides.own).await?;
        }
        let mut differences = Vec::new();
        for id in differ {
            differences.extend(self.one(&sides, id, request.apply).await?);
        }
        let is_last = (ids.len() as u32) < limit;
        Ok(sides.answer(ids.len(), differences, last, is_last))
    }

    async fn sides(&self) -> Result<Sides, Error> {
        self.check_two()?;
        let recorded = self.recorded().await?;
        let record = recorded.map(|one| one.record).filter(|one| one.ready);
        let record = record.ok_or_else(|| {
            refused("no_primary", "there is no primary to bring anything to")
                .mend("hydrant submissions primary")
        })?;
        let other = self
            .tables()
            .other()
            .ok_or_else(|| refused("no_other", "there is no other database to compare with"))?;
        Ok(Sides {
            from: other.name.clone(),
            other: other.to_read()?.within(PATIENCE),
            own: self.tables().ready().await?,
            record,
        })
    }

    /// Nobody adds anything to the other database while it is compared: it is fenced, or follows the primary.
    async fn shut_for_good(&self, sides: &Sides) -> Result<(), Error> {
        let row = sides.other.fence().await?;
        match row {
            Some(row) if row.epoch >= sides.record.epoch => Ok(()),
            _ => self.watch_for_the_old().await,
        }
    }

    async fn one(&self, sides: &Sides, id: &str, apply: bool) -> Result<Option<Difference>, Error> {
        let other = read!(sides.other, |tx| Whole::read(tx, id).await);
        let other: Option<Whole> = other.map_err(|error: RecordsError| error)?;
        let Some(other) = other else {
            return Ok(None);
        };
        let now = self.desk.clock.unix_ms();
        let carry = Carry {
            from: &sides.from,
            epoch: sides.record.epoch,
            now,
        };
        let done = match apply {
            true => transaction!(sides.own, |tx| bring(tx, id, &other, &carry).await),
            false => read!(sides.own, |tx| {
                let own = Whole::read(tx, id).await?;
                Ok(carry::tell(id, &judge(&other, own.as_ref(), now)))
            }),
        };
        let difference = done.map_err(|error: RecordsError| error)?;
        if apply && difference.is_some() {
            self.desk.changes.tell(id);
            self.desk.work.tell();
        }
        Ok(difference)
    }

    /// Says that nothing is to be reconciled any more: all has come over, or the database of old never comes back.
    pub(super) async fn end_reconcile(
        &self,
        request: &EndReconcileRequest,
    ) -> Result<ShowSitesResponse, Error> {
        self.check_two()?;
        checked_why(&request.author, &request.reason)?;
        let turn = self.turn.lock().await;
        if let Some(recorded) = self.recorded().await?
            && recorded.record.unreconciled
        {
            let record = Record {
                unreconciled: false,
                author: request.author.clone(),
                reason: request.reason.clone(),
                ..recorded.record
            };
            self.write(record, recorded.revision).await?;
        }
        drop(turn);
        self.show().await
    }
}

impl Sides {
    fn answer(
        &self,
        compared: usize,
        differences: Vec<Difference>,
        last: String,
        done: bool,
    ) -> ReconcileResponse {
        ReconcileResponse {
            compared: compared as u64,
            differences,
            last,
            done,
            from: self.from.clone(),
            to: self.record.site.clone(),
            ..Default::default()
        }
    }
}

async fn bring(
    tx: &mut Transaction,
    id: &str,
    other: &Whole,
    carry: &Carry<'_>,
) -> Result<Option<Difference>, RecordsError> {
    let own = Whole::read(tx, id).await?;
    let verdict = judge(other, own.as_ref(), carry.now);
    if verdict.is_nothing() {
        return Ok(None);
    }
    carry.over(tx, other, own.as_ref(), &verdict).await
}

async fn ids(records: &Records, after: &str, limit: u32) -> Result<Vec<String>, Error> {
    let select = "SELECT id FROM submissions WHERE id > ? ORDER BY id LIMIT ?";
    let rows = read!(records, |tx| tx.query(select, &params![after, limit]).await);
    let rows: Vec<Row> = rows.map_err(|error: RecordsError| error)?;
    let ids: Result<_, RecordsError> = rows.iter().map(|row| row.get(0)).collect();
    Ok(ids?)
}

/// What differs when anything does: of each submission behind the first and up to the last.
async fn summary(
    records: &Records,
    (after, last): (&str, &str),
) -> Result<BTreeMap<String, Vec<Row>>, Error> {
    let selects = [
        "SELECT id, fingerprint, state, version, hops, hop_hash FROM submissions \
         WHERE id > ? AND id <= ?",
        "SELECT submission, id, state, received FROM submission_uploads \
         WHERE submission > ? AND submission <= ? ORDER BY id",
        "SELECT submission, COUNT(*) FROM audit_events \
         WHERE submission > ? AND submission <= ? GROUP BY submission",
    ];
    let mut summary: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for select in selects {
        let rows = read!(records, |tx| tx.query(select, &params![after, last]).await);
        let rows: Vec<Row> = rows.map_err(|error: RecordsError| error)?;
        for row in rows {
            summary.entry(row.get(0)?).or_default().push(row);
        }
    }
    Ok(summary)
}
