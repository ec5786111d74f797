//! What a stream of the local API holds: a registration, a candidacy, a lock.
//!
//! A lease ends when its stream ends, and when its owner is silent for longer than the time to
//! live: a frozen process keeps its sockets open, so the stream alone proves nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::{Code, Error, Identity};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::quota::{Permit, Quota};

/// The shortest and the longest time to live that a client may ask for.
const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);

/// Every lease that this node has granted.
#[derive(Clone)]
pub(crate) struct Leases {
    quota: Quota,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

struct Entry {
    owner: Identity,
    ttl: Duration,
    renewed: Instant,
    heard: Arc<Notify>,
}

/// A lease that is held. Dropping it ends it.
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) ttl: Duration,
    heard: Arc<Notify>,
    leases: Leases,
    _permit: Permit,
}

impl Leases {
    pub(crate) fn new(per_caller: usize, in_all: usize) -> Self {
        Self {
            quota: Quota::new("leases", per_caller, in_all),
            entries: Arc::default(),
        }
    }

    /// Grants a lease that lives for `ttl` from now.
    pub(crate) fn grant(&self, owner: &Identity, ttl: Duration) -> Result<Lease, Error> {
        let permit = self.quota.take(owner)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let heard = Arc::new(Notify::new());
        let entry = Entry {
            owner: owner.clone(),
            ttl,
            renewed: Instant::now(),
            heard: heard.clone(),
        };
        self.entries().insert(id.clone(), entry);
        Ok(Lease {
            id,
            ttl,
            heard,
            leases: self.clone(),
            _permit: permit,
        })
    }

    /// Begins the time to live anew and returns it. A lease that has ended stays ended, and one
    /// of somebody else is as unknown as one that never was.
    pub(crate) fn keep_alive(&self, owner: &Identity, id: &str) -> Result<Duration, Error> {
        let mut entries = self.entries();
        let now = Instant::now();
        let entry = entries
            .get_mut(id)
            .filter(|entry| entry.owner == *owner && now < entry.due())
            .ok_or_else(gone)?;
        entry.renewed = now;
        entry.heard.notify_waiters();
        Ok(entry.ttl)
    }

    /// How many leases are held.
    pub(crate) fn count(&self) -> usize {
        self.quota.count()
    }

    /// When the lease is due; `None` once it has ended. One that is due ends here, so that no
    /// late KeepAlive brings back what may already be somebody else's.
    fn due(&self, id: &str) -> Option<Instant> {
        let mut entries = self.entries();
        let due = entries.get(id)?.due();
        if due <= Instant::now() {
            entries.remove(id);
            return None;
        }
        Some(due)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn due(&self) -> Instant {
        self.renewed + self.ttl
    }
}

impl Lease {
    /// Resolves when the owner has been silent for longer than the time to live. The lease has
    /// ended then.
    pub(crate) async fn silent(&self) {
        while let Some(due) = self.leases.due(&self.id) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// Whether the owner has not been heard for half of the time to live: it may be frozen. One
    /// that keeps its lease alive in good time is heard more often.
    pub(crate) fn is_overdue(&self) -> bool {
        let entries = self.leases.entries();
        let entry = entries.get(&self.id);
        entry.is_none_or(|entry| entry.renewed.elapsed() > entry.ttl / 2)
    }

    /// Resolves when the owner was heard lately, if it ever is again.
    pub(crate) async fn heard_lately(&self) {
        loop {
            // Before the look, so that nothing said in between is missed.
            let heard = self.heard.notified();
            if !self.is_overdue() {
                return;
            }
            heard.await;
        }
    }

    /// What its owner is told when it was silent.
    pub(crate) fn silence(&self) -> String {
        format!("no KeepAlive came within {} ms", self.ttl.as_millis())
    }

    /// The time to live as it travels.
    pub(crate) fn ttl_ms(&self) -> u32 {
        millis(self.ttl)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.entries().remove(&self.id);
    }
}

/// The time to live that a client gets: what it asks for within bounds, or the default for 0.
pub(crate) fn ttl(asked_ms: u32, default: Duration) -> Duration {
    match asked_ms {
        0 => default,
        ms => Duration::from_millis(ms.into()).clamp(*TTL.start(), *TTL.end()),
    }
}

/// Milliseconds as they travel.
pub(crate) fn millis(duration: Duration) -> u32 {
    duration.as_millis().try_into().unwrap_or(u32::MAX)
}

pub(crate) fn gone() -> Error {
    Error::new(
        Code::NotFound,
        "lease_gone",
        "there is no such lease: it has ended, or its owner was silent for too long",
    )
    .mend("open the stream again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Identity {
        Identity::Service(name.parse().unwrap())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_lease_lives_as_long_as_its_owner_is_heard() {
        let leases = Leases::new(10, 10);
        let lease = leases.grant(&owner("api/a"), SECOND).unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(900)).await;
            leases.keep_alive(&owner("api/a"), &lease.id).unwrap();
        }
        let heard = Instant::now();
        lease.silent().await;
        assert!(heard.elapsed() >= SECOND, "{:?}", heard.elapsed());
        let late = leases.keep_alive(&owner("api/a"), &lease.id).unwrap_err();
        assert_eq!(late.reason, "lease_gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_keep_alive_after_the_time_to_live_comes_too_late() {
        let leases = Leases::new(10, 10);
        let lease = leases.grant(&owner("api/a"), SECOND).unwrap();
        tokio::time::sleep(SECOND).await;
        assert!(leases.keep_alive(&owner("api/a"), &lease.id).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_heard_for_half_the_time_is_overdue_until_he_is() {
        let leases = Leases::new(10, 10);
        let lease = leases.grant(&owner("api/a"), SECOND).unwrap();
        lease.heard_lately().await;
        tokio::time::sleep(SECOND * 6 / 10).await;
        assert!(lease.is_overdue());
        let begun = Instant::now();
        let speak = async {
            tokio::time::sleep(SECOND / 10).await;
            leases.keep_alive(&owner("api/a"), &lease.id).unwrap();
        };
        tokio::join!(lease.heard_lately(), speak);
        assert_eq!(begun.elapsed(), SECOND / 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_keeps_a_lease_alive_and_dropping_ends_it() {
        let leases = Leases::new(10, 10);
        let lease = leases.grant(&owner("api/a"), SECOND).unwrap();
        assert!(leases.keep_alive(&owner("api/b"), &lease.id).is_err());
        let id = lease.id.clone();
        drop(lease);
        assert!(leases.keep_alive(&owner("api/a"), &id).is_err());
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn a_client_asks_within_bounds() {
        let ms = |asked| ttl(asked, SECOND).as_millis();
        assert_eq!(
            [ms(0), ms(1), ms(2500), ms(u32::MAX)],
            [1000, 500, 2500, 60_000]
        );
    }
}
