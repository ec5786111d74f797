//! What this process holds, for how long by its own clock, and how it is held for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Keeper;
use crate::proto::{Lease, RenewRequest};

/// How long a claim waits for work at most.
const WAIT: Duration = Duration::from_secs(20);

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

    /// How long who claims may wait for work. A lease is counted from when it was asked for, so the wait is
    /// a small part of it: most of the lease is left for the work, and the first renewal comes in time.
    pub(super) fn longest_wait(&self) -> Duration {
        WAIT.min(self.lasting / 6)
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
            let keys: Vec<Key> = self.held().keys().cloned().collect();
            if keys.is_empty() {
                continue;
            }
            let asked = Instant::now();
            let request = RenewRequest {
                leases: keys.iter().map(named).collect(),
                lease_ms: self.lease_ms(),
                ..Default::default()
            };
            match timeout(every, keeper.renew(request)).await {
                Ok(Ok(answer)) => self.renewed(&keys, asked, &answer.into_owned().lost),
                Ok(Err(error)) => tracing::warn!(%error, "leases could not be renewed"),
                Err(_) => tracing::warn!("leases could not be renewed: no answer"),
            }
        }
    }

    /// What was asked for is held for longer, or lost. What came to be held meanwhile was not asked for.
    fn renewed(&self, keys: &[Key], asked: Instant, lost: &[Lease]) {
        let held = self.held();
        for key in keys {
            let Some(until) = held.get(key) else { continue };
            let is_lost = lost.iter().any(|lease| key_of(lease) == *key);
            until.send_replace(match is_lost {
                true => asked,
                false => asked + self.lasting,
            });
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
        leases.renewed(std::slice::from_ref(&held.key), Instant::now(), &[]);
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
        let keys = [lost.key.clone(), kept.key.clone()];
        leases.renewed(&keys, Instant::now(), &[lost.lease()]);
        assert!(!lost.is_held());
        lost.lost().await;
        assert!(kept.is_held());
        drop(lost);
        assert_eq!(leases.held().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_asked_for_is_not_held_for_longer() {
        let leases = Leases::new(LASTING);
        let asked = leases.hold("a", 0, 1, Instant::now());
        let other = leases.hold("b", 0, 1, Instant::now());
        tokio::time::advance(LASTING / 2).await;
        leases.renewed(std::slice::from_ref(&asked.key), Instant::now(), &[]);
        tokio::time::advance(LASTING / 2).await;
        assert!(asked.is_held());
        assert!(!other.is_held());
    }

    #[test]
    fn a_claim_waits_for_a_small_part_of_its_lease() {
        for seconds in [1, 5, 30, 3600] {
            let lasting = Duration::from_secs(seconds);
            let leases = Leases::new(lasting);
            // A third later it is renewed, and that takes up to a third as well.
            assert!(leases.longest_wait() + lasting / 3 * 2 < lasting);
            assert!(leases.longest_wait() <= WAIT);
        }
    }
}
