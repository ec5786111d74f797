//! A step, locked, with what its submission tells.

use hydrant_records::{RecordsError, Transaction, params};
use serde_json::Value as Json;

use crate::proto::Origin;
use crate::service::events::{self, Event};
use crate::service::hops;

/// One step, and its submission, which nobody else changes while the transaction lasts.
pub(super) struct Locked {
    pub(super) id: String,
    pub(super) form: String,
    pub(super) origin: Origin,
    hops: i64,
    hop_hash: String,
    pub(super) step: i64,
    pub(super) consumer: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) epoch: i64,
    pub(super) attempts: i64,
    pub(super) reason: Option<String>,
}

impl Locked {
    /// Locks the submission first, and then the step: everybody in this order.
    pub(super) async fn lock(
        tx: &mut Transaction,
        id: &str,
        step: i64,
    ) -> Result<Option<Self>, RecordsError> {
        let select =
            "SELECT form, store, person, session, hops, hop_hash FROM submissions WHERE id = ?";
        let submissions = tx.lock(select, &params![id]).await?;
        let select = "SELECT consumer, kind, state, epoch, attempts, reason FROM submission_steps \
                      WHERE submission = ? AND step = ?";
        let steps = tx.lock(select, &params![id, step]).await?;
        let (Some(one), Some(two)) = (submissions.first(), steps.first()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: id.to_owned(),
            form: one.get(0)?,
            origin: Origin {
                store: one.get(1)?,
                user: one.get(2)?,
                session: one.get(3)?,
                ..Default::default()
            },
            hops: one.get(4)?,
            hop_hash: one.get(5)?,
            step,
            consumer: two.get(0)?,
            kind: two.get(1)?,
            state: two.get(2)?,
            epoch: two.get(3)?,
            attempts: two.get(4)?,
            reason: two.get(5)?,
        }))
    }

    /// Puts one more hop on the submission's receipt.
    pub(super) async fn hop(
        &mut self,
        tx: &mut Transaction,
        kind: &str,
        now: i64,
        record: &Json,
    ) -> Result<(), RecordsError> {
        let hop = (kind, now, record.to_string());
        (self.hops, self.hop_hash) =
            hops::put(tx, &self.id, self.hops, &self.hop_hash, hop).await?;
        let update = "UPDATE submissions SET hops = ?, hop_hash = ? WHERE id = ?";
        let params = params![self.hops, &self.hop_hash, &self.id];
        tx.execute(update, &params).await?;
        Ok(())
    }

    /// Puts an event of this submission on record.
    pub(super) async fn event(
        &self,
        tx: &mut Transaction,
        (kind, outcome): (&'static str, &'static str),
        now: i64,
        detail: &Json,
    ) -> Result<(), RecordsError> {
        let event = Event {
            at_ms: now,
            kind,
            outcome,
            submission: &self.id,
            form: &self.form,
            origin: &self.origin,
            detail: detail.to_string(),
        };
        events::put(tx, &[event]).await
    }

    /// How the submission stands from now on; those who follow it hear of it.
    pub(super) async fn mark(
        &self,
        tx: &mut Transaction,
        state: &str,
        ended: Option<i64>,
    ) -> Result<(), RecordsError> {
        let update =
            "UPDATE submissions SET state = ?, version = version + 1, ended_ms = ? WHERE id = ?";
        tx.execute(update, &params![state, ended, &self.id]).await?;
        Ok(())
    }
}
