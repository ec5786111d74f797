//! The keys that this node keeps in coordination under its session. One task for each key brings
//! coordination to what is wanted, in order, for as long as that takes: through lost sessions and
//! while the engine is away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hydrant_contracts::Error;
use hydrant_ports::{EngineError, ErrorKind, Expect, Key};
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::watch;

use crate::session::{Presence, Standing};
use crate::table::Table;

/// Waits between two tries of a write.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Every key that this node has put, or removes.
pub(crate) struct Entries {
    presence: Arc<Presence>,
    table: Arc<Table>,
    kept: Mutex<HashMap<Key, Kept>>,
    shutdown: Shutdown,
}

struct Kept {
    wanted: watch::Sender<Wanted>,
    done: watch::Receiver<Done>,
}

/// What should stand at a key; `None` for nothing.
#[derive(Clone)]
struct Wanted {
    value: Option<Bytes>,
    /// Counts the wishes.
    number: u64,
}

/// The last wish that was fulfilled, or refused for good.
#[derive(Clone)]
struct Done {
    number: u64,
    refused: Option<Error>,
}

/// A wish whose fulfilment can be waited for.
pub(crate) struct Written {
    done: watch::Receiver<Done>,
    number: u64,
    standing: watch::Receiver<Standing>,
}

impl Entries {
    pub(crate) fn new(presence: Arc<Presence>, table: Arc<Table>, shutdown: Shutdown) -> Arc<Self> {
        Arc::new(Self {
            presence,
            table,
            kept: Mutex::default(),
            shutdown,
        })
    }

    /// Wants `value` at `key`, or nothing. Wishes for one key are fulfilled in the order of these
    /// calls; one that is overtaken by the next may be left out.
    pub(crate) fn set(self: &Arc<Self>, key: &Key, value: Option<Bytes>) -> Written {
        let mut all = self.kept();
        let kept = all.entry(key.clone()).or_insert_with(|| self.begin(key));
        let mut number = 0;
        kept.wanted.send_modify(|wanted| {
            wanted.number += 1;
            wanted.value = value;
            number = wanted.number;
        });
        Written {
            done: kept.done.clone(),
            number,
            standing: self.presence.standing(),
        }
    }

    fn begin(self: &Arc<Self>, key: &Key) -> Kept {
        let (wanted, wishes) = watch::channel(Wanted {
            value: None,
            number: 0,
        });
        let (tell, done) = watch::channel(Done {
            number: 0,
            refused: None,
        });
        let (all, key) = (self.clone(), key.clone());
        self.shutdown.spawn(async move {
            tokio::select! {
                biased;
                () = all.shutdown.begun() => {}
                () = all.keep(&key, wishes, tell) => {}
            }
        });
        Kept { wanted, done }
    }

    /// Fulfils the wishes for a key, again with every new session, until nothing is wanted there
    /// and nothing is.
    async fn keep(
        &self,
        key: &Key,
        mut wanted: watch::Receiver<Wanted>,
        tell: watch::Sender<Done>,
    ) {
        let mut sessions = self.presence.changes();
        let mut standing = self.presence.standing();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut is_ours = false;
        loop {
            sessions.mark_unchanged();
            standing.mark_unchanged();
            let Wanted { value, number } = wanted.borrow_and_update().clone();
            let is_removal = value.is_none();
            let refused = match self.write(key, value, &mut is_ours).await {
                Ok(()) => None,
                Err(error) if is_final(&error) => {
                    tracing::warn!(%key, %error, "coordination refuses an entry of this node");
                    Some(error.into())
                }
                Err(error) => {
                    if *standing.borrow() == Standing::Present {
                        tracing::warn!(%key, %error, "cannot write to coordination; trying again");
                    }
                    tokio::select! {
                        _ = wanted.changed() => {}
                        _ = sessions.changed() => {}
                        _ = standing.changed() => {}
                        () = tokio::time::sleep(backoff.next_wait()) => {}
                    }
                    continue;
                }
            };
            backoff.reset();
            tell.send_replace(Done { number, refused });
            if is_removal && self.forget(key, number) {
                self.table.removed_own(key);
                return;
            }
            tokio::select! {
                _ = wanted.changed() => {}
                _ = sessions.changed() => {}
            }
        }
    }

    /// `is_ours` says whether this node may have put what stands there. What is not is never
    /// removed.
    async fn write(
        &self,
        key: &Key,
        value: Option<Bytes>,
        is_ours: &mut bool,
    ) -> Result<(), EngineError> {
        let Some(value) = value else {
            if *is_ours {
                self.presence.coordination.delete(key, Expect::Any).await?;
            }
            return Ok(());
        };
        let session = self.presence.session()?;
        let put = session.put_ephemeral(key, value, Expect::Any).await;
        *is_ours = !matches!(&put, Err(error) if error.kind == ErrorKind::Conflict);
        put.map(|_| ())
    }

    /// Forgets a key that is gone, unless something has been wanted there since.
    fn forget(&self, key: &Key, number: u64) -> bool {
        let mut kept = self.kept();
        let is_last = kept
            .get(key)
            .is_some_and(|kept| kept.wanted.borrow().number == number);
        if is_last {
            kept.remove(key);
        }
        is_last
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// Waits until coordination knows, at most for `limit`, and no longer than coordination is
    /// there: with it away, the wish is fulfilled when it is back.
    ///
    /// # Errors
    ///
    /// If coordination refuses it for good.
    pub(crate) async fn settled(mut self, limit: Duration) -> Result<(), Error> {
        let number = self.number;
        let is_away = |standing: &Standing| *standing != Standing::Present;
        tokio::select! {
            biased;
            done = self.done.wait_for(|done| done.number >= number) => {
                match done.ok().and_then(|done| done.refused.clone()) {
                    Some(refused) => Err(refused),
                    None => Ok(()),
                }
            }
            _ = self.standing.wait_for(is_away) => Ok(()),
            () = tokio::time::sleep(limit) => Ok(()),
        }
    }
}

fn is_final(error: &EngineError) -> bool {
    !matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Closed)
}
