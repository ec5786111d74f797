//! Keys are claimed, held and given an outcome, each by compare-and-put.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hydrant_contracts::{Code, Error};

use super::Times;
use super::attempt::Held;
use super::record::{Outcome, Record, Stage};
use super::shelf::Shelf;
use crate::clock::SteadyClock;
use crate::state::Entry;

/// How often a claim is tried while others write the same key.
const CLAIMS: u32 = 5;
/// How often an outcome is stored while the state does not answer, and how long to wait in between.
const STORES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What a request is about.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) shelf: Arc<dyn Shelf>,
    pub(super) clock: SteadyClock,
    pub(super) times: Times,
    /// Where the key stands.
    pub(super) place: String,
    pub(super) fingerprint: String,
}

/// What becomes of a request under its key.
pub(super) enum Found {
    /// It runs.
    Claimed(Claim),
    /// It has run.
    Done(Outcome),
    /// Another one runs; so long its lease still lasts.
    Running(Duration),
    /// The key has another content.
    Reused,
}

/// A key that is held.
pub(super) struct Claim {
    wish: Wish,
    nonce: u64,
    epoch: u64,
    /// Where the key stands now, as far as this process knows.
    revision: AtomicU64,
    held: Held,
}

/// What stands at the key, for this request.
enum Standing {
    /// Free to claim at this revision.
    Free(u64),
    Taken(Found),
}

impl Wish {
    pub(super) async fn claim(self) -> Result<Found, Error> {
        // Most keys are new: one write claims them.
        let mut revision = 0;
        for _ in 0..CLAIMS {
            match self.take(revision).await {
                Ok(claim) => return Ok(Found::Claimed(claim)),
                Err(error) if error.code != Code::Aborted => return Err(error),
                Err(_) => {}
            }
            match self.standing().await? {
                Standing::Free(at) => revision = at,
                Standing::Taken(found) => return Ok(found),
            }
        }
        Ok(Found::Running(self.times.lease))
    }

    async fn take(&self, revision: u64) -> Result<Claim, Error> {
        let nonce = fastrand::u64(..);
        let record = Record::new(&self.fingerprint, self.times, Stage::Running { nonce });
        let asked = self.clock.now();
        let epoch = self.write(&record, revision).await?;
        Ok(Claim {
            held: Held::since(self.clock, asked, self.times.lease),
            wish: self.clone(),
            nonce,
            epoch,
            revision: AtomicU64::new(epoch),
        })
    }

    async fn standing(&self) -> Result<Standing, Error> {
        let Some((record, entry)) = self.read().await? else {
            return Ok(Standing::Free(0));
        };
        Ok(self.judge(record, &entry))
    }

    fn judge(&self, record: Record, entry: &Entry) -> Standing {
        let is_same = record.fingerprint == self.fingerprint;
        let left = record.lease_left(entry.ttl);
        match record.stage {
            Stage::Free => Standing::Free(entry.revision),
            _ if !is_same => Standing::Taken(Found::Reused),
            Stage::Open => Standing::Free(entry.revision),
            Stage::Done(outcome) => Standing::Taken(Found::Done(outcome)),
            Stage::Running { .. } if left.is_zero() => Standing::Free(entry.revision),
            Stage::Running { .. } => Standing::Taken(Found::Running(left)),
        }
    }

    async fn read(&self) -> Result<Option<(Record, Entry)>, Error> {
        let Some(entry) = self.shelf.get(&self.place).await? else {
            return Ok(None);
        };
        Ok(Some((Record::from_bytes(&entry.value)?, entry)))
    }

    async fn write(&self, record: &Record, revision: u64) -> Result<u64, Error> {
        let written = self
            .shelf
            .swap(record.life(), &self.place, revision, record.to_bytes());
        written.await
    }
}

impl Claim {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }

    /// Renews the lease for as long as it is polled. Dropping it in the middle is safe: what it wrote is known by
    /// its nonce.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(self.wish.times.lease / 3).await;
            let asked = self.wish.clock.now();
            match self.put(self.running()).await {
                Ok(()) => self.held.renew(asked, self.wish.times.lease),
                Err(error) if error.code == Code::Aborted => return self.lost().await,
                Err(error) => tracing::debug!(%error, "the lease of a key is not renewed yet"),
            }
        }
    }

    async fn lost(&self) {
        tracing::warn!("another attempt has taken over under the same key");
        self.held.end();
        std::future::pending().await
    }

    fn running(&self) -> Stage {
        Stage::Running { nonce: self.nonce }
    }

    /// Gives the key its outcome, or frees it; `None` when that is done. When another attempt has taken over,
    /// nothing is stored, and this is what stands there now.
    ///
    /// # Errors
    ///
    /// If the state does not answer: the outcome may be stored.
    pub(super) async fn store(self, stage: Stage) -> Result<Option<Found>, Error> {
        let mut left = STORES;
        loop {
            let error = match self.put(stage.clone()).await {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            if error.code == Code::Aborted {
                return self.found().await.map(Some);
            }
            left -= 1;
            if left == 0 {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn found(&self) -> Result<Found, Error> {
        Ok(match self.wish.standing().await? {
            Standing::Taken(found) => found,
            // Who took over has failed, and the next one may run.
            Standing::Free(_) => Found::Running(Duration::ZERO),
        })
    }

    /// Writes while the key is held. A write whose answer was lost has moved the key on: it is known by the nonce.
    async fn put(&self, stage: Stage) -> Result<(), Error> {
        let record = Record::new(&self.wish.fingerprint, self.wish.times, stage);
        let at = self.revision.load(Ordering::Acquire);
        let revision = match self.wish.write(&record, at).await {
            Err(error) if error.code == Code::Aborted => self.again(&record, error).await?,
            written => written?,
        };
        self.revision.store(revision, Ordering::Release);
        Ok(())
    }

    async fn again(&self, record: &Record, error: Error) -> Result<u64, Error> {
        match self.wish.read().await? {
            Some((found, entry)) if found == *record && !found.is_of(self.nonce) => {
                Ok(entry.revision)
            }
            Some((found, entry)) if found.is_of(self.nonce) => {
                self.wish.write(record, entry.revision).await
            }
            _ => Err(error),
        }
    }
}
