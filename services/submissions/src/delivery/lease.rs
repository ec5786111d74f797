//! What this process holds, for how long by its own clock, and how it is held for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Keeper;
use crate::proto::{Lease, RenewRequest};

/// The leases of one pump. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leases {
    lasting: Duration,
    held: Arc<Mutex<HashMap<Key, watch::Sender<Instant>>>>,
}

/// Submission, step and epoch.
type Key = (String, u32, u64);

/// One lease; it is given up when this is dropped.
pub(super) struct Held {
    leases: Leases,
    key: Key,
    until: watch::Receiver<Instant>,
}

impl Leases {
    pub(super) fn new(lasting: Duration) -> Self {
        Self {
            lasting,
            held: Arc::default(),
        }
    }

    pub(super) fn lease_ms(&self) -> u32 {
        self.lasting.as_millis() as u32
    }

    /// Holds what was leased by a request that was sent at `asked`: counted from then, so that it ends here
    /// before it ends there.
    pub(super) fn hold(&self, id: &str, step: u32, epoch: u64, asked: Instant) -> Held {
        let key = (id.to_owned(), step, epoch);
        let (sender, until) = watch::channel(asked + self.lasting);
        self.held().insert(key.clone(), sender);
        Held {
            leases: self.clone(),
            key,
            until,
        }
    }

    /// Holds all leases for longer, again and again.
    pub(super) async fn renew(self, keeper: Arc<Keeper>) {
        let every = self.lasting / 3;
        loop {
            sleep(every).await;
            let leases: Vec<_> = self.held().keys().map(named).collect();
            if leases.is_empty() {
                continue;
            }
            let asked = Instant::now();
            let request = RenewRequest {
                leases,
                lease_ms: self.lease_ms(),
                ..Default::default()
            };
            match timeout(every, keeper.renew(request)).await {
                Ok(Ok(answer)) => self.renewed(asked, &answer.into_owned().lost),
                Ok(Err(error)) => tracing::warn!(%error, "leases could not be renewed"),
                Err(_) => tracing::warn!("leases could not be renewed: no answer"),
            }
        }
    }

    fn renewed(&self, asked: Instant, lost: &[Lease]) {
        for (key, until) in self.held().iter() {
            let is_lost = lost.iter().any(|lease| key_of(lease) == *key);
            // What began while this was asked has a later end already.
            match is_lost {
                true => drop(until.send_replace(asked)),
                false => until.send_modify(|until| *until = (*until).max(asked + self.lasting)),
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<Instant>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Whether it is still ours, by our own clock.
    pub(super) fn is_held(&self) -> bool {
        Instant::now() < *self.until.borrow()
    }

    /// Resolves when it is not ours any more.
    pub(super) async fn lost(&self) {
        let mut until = self.until.clone();
        while self.is_held() {
            let end = *until.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                // Its sender lives as long as this.
                _ = until.changed() => {}
            }
        }
    }

    /// How it is named to who has the queue.
    pub(super) fn lease(&self) -> Lease {
        named(&self.key)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.held().remove(&self.key);
    }
}

fn named((id, step, epoch): &Key) -> Lease {
    Lease {
        id: id.clone(),
        step: *step,
        epoch: *epoch,
        ..Default::default()
    }
}

fn key_of(lease: &Lease) -> Key {
    (lease.id.clone(), lease.step, lease.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTING: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_the_own_clock_unless_it_is_renewed() {
        let leases = Leases::new(LASTING);
        let held = leases.hold("a", 0, 1, Instant::now());
        tokio::time::advance(LASTING / 2).await;
        leases.renewed(Instant::now(), &[]);
        tokio::time::advance(LASTING - Duration::from_millis(1)).await;
        assert!(held.is_held());
        let waited = Instant::now();
        held.lost().await;
        assert!(!held.is_held());
        assert!(waited.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_another_has_is_lost_at_once_and_no_other_with_it() {
        let leases = Leases::new(LASTING);
        let [lost, kept] = [1, 2].map(|epoch| leases.hold("a", 0, epoch, Instant::now()));
        leases.renewed(Instant::now(), &[lost.lease()]);
        assert!(!lost.is_held());
        lost.lost().await;
        assert!(kept.is_held());
        drop(lost);
        assert_eq!(leases.held().len(), 1);
    }
}
