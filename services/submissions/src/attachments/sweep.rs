//! What is left behind goes: uploads of which nothing came for too long, and objects that no piece names.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_records::{params, read, transaction};
use hydrant_sdk::{Duty, Error, Term, turns};

use super::loose::{self, Fate, Loose};
use super::refusal::Refusal;
use super::rows::{self, State};
use super::{Attachments, create};

/// How often is looked, and how much is done in one turn.
const APART: Duration = Duration::from_secs(60);
const AT_ONCE: i64 = 500;

/// The duty of the one process that leads.
pub(crate) struct Sweep(Attachments);

impl Sweep {
    pub(crate) fn duty(attachments: &Attachments) -> Arc<dyn Duty> {
        Arc::new(Self(attachments.clone()))
    }
}

impl Duty for Sweep {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            let mut turns = turns(APART);
            loop {
                term.turn(&mut turns).await;
                if let Err(error) = self.0.sweep().await {
                    tracing::warn!(%error, "cannot clear away yet what uploads left behind");
                }
            }
        })
    }
}

impl Attachments {
    /// One turn.
    ///
    /// # Errors
    ///
    /// If the database does not answer. A store that is away is asked in the next turn.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        // A piece that only the primary of old names looks loose here, until it has been brought over.
        if self.0.desk.tables.may_lack_something() {
            return Ok(());
        }
        self.expire().await.map_err(|refusal| refusal.error)?;
        self.clear().await
    }

    async fn expire(&self) -> Result<(), Refusal> {
        let records = self.0.desk.tables.ready().await?;
        let now = self.now();
        let select = "SELECT id, submission FROM submission_uploads \
                      WHERE state IN ('open', 'part') AND expires_ms <= ? LIMIT ?";
        let late = read!(records, |tx| {
            tx.query(select, &params![now, AT_ONCE]).await
        })?;
        for row in late {
            let (id, submission): (String, String) = (row.get(0)?, row.get(1)?);
            transaction!(records, |tx| {
                let mut upload = rows::lock_of(tx, &submission, &id).await?;
                let is_late = upload.expires_ms <= now;
                if is_late && matches!(upload.state, State::Open | State::Part) {
                    create::end(tx, &mut upload, State::Expired, now).await?;
                }
                Ok::<_, Refusal>(())
            })?;
            tracing::info!(upload = id, submission, "an upload has expired");
        }
        Ok(())
    }

    async fn clear(&self) -> Result<(), Error> {
        let records = self.0.desk.tables.ready().await?;
        let age = self.0.limits.loose.as_millis() as i64;
        let due = self.now().saturating_sub(age);
        let all = read!(records, |tx| loose::since(tx, due, AT_ONCE).await)?;
        for one in all {
            self.clear_one(&one).await?;
        }
        Ok(())
    }

    /// First nobody may make it a piece any more; then it is removed, and after a while again.
    async fn clear_one(&self, one: &Loose) -> Result<(), Error> {
        let records = self.0.desk.tables.ready().await?;
        let now = self.now();
        if one.fate == Fate::Written {
            transaction!(records, |tx| loose::move_on(tx, one, Fate::Removed, now)
                .await)?;
            return Ok(());
        }
        if let Err(error) = self.0.stores.remove(&one.place, &one.object).await {
            let (store, object) = (&*one.place, &*one.object);
            tracing::warn!(store, object, %error, "cannot remove what an upload left behind");
            transaction!(records, |tx| loose::postpone(tx, one, now).await)?;
            return Ok(());
        }
        transaction!(records, |tx| match one.fate {
            Fate::RemovedAgain => loose::forget(tx, &one.object).await,
            _ => loose::move_on(tx, one, Fate::RemovedAgain, now)
                .await
                .map(drop),
        })?;
        Ok(())
    }
}
