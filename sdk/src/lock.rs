use std::time::Duration;

use hydrant_contracts::Error;
use hydrant_contracts::proto::{
    AcquireEvent, AcquireRequest, LOCK_ACQUIRE_SPEC, LOCK_KEEP_ALIVE_SPEC, acquire_event,
};

use crate::client::Hydrant;
use crate::seat::{Claim, Contest, Mark, Seat, SeatEvent, Stamp, TTL};

/// A lock that is held. Dropping it releases.
///
/// A lock alone cannot stop a holder that was paused. Write [under](crate::State::under) it, or
/// give its [fence](Lock::fence) to whatever it protects and let that refuse a lower one.
pub struct Lock(Seat);

impl Lock {
    /// Higher than that of every earlier holder of the same lock.
    pub fn fence(&self) -> u64 {
        self.stamp().epoch()
    }

    /// Whether it is lost. Reads the clock, so that a process which was stopped knows at once.
    pub fn is_lost(&self) -> bool {
        self.stamp().is_over()
    }

    /// Resolves when it is lost.
    pub async fn lost(&self) {
        self.stamp().over().await;
    }

    /// Releases it.
    pub fn release(self) {}

    pub(crate) fn stamp(&self) -> &Stamp {
        self.0.stamp()
    }
}

impl Hydrant {
    /// Waits for a lock of the own service. Dropping the future leaves the line.
    ///
    /// # Errors
    ///
    /// If the node refuses it for good, as with a wrong token.
    pub async fn lock(&self, name: &str) -> Result<Lock, Error> {
        self.acquire(name, None).await
    }

    /// Waits for a lock at most for `wait`.
    ///
    /// # Errors
    ///
    /// `deadline_exceeded` when the time is over, and as [`Hydrant::lock`].
    pub async fn lock_within(&self, name: &str, wait: Duration) -> Result<Lock, Error> {
        crate::lease::within(wait + TTL, self.acquire(name, Some(wait))).await
    }

    async fn acquire(&self, name: &str, wait: Option<Duration>) -> Result<Lock, Error> {
        let wait_ms = wait.map_or(0, |wait| {
            wait.as_millis().clamp(1, u128::from(u32::MAX)) as u32
        });
        let claim = Claim {
            mark: Mark::Lock(name.into()),
            spec: LOCK_ACQUIRE_SPEC,
            keep_alive: LOCK_KEEP_ALIVE_SPEC,
            request: AcquireRequest {
                name: name.into(),
                holder: self.own_name(),
                ttl_ms: TTL.as_millis() as u32,
                wait_ms,
                ..Default::default()
            },
        };
        claim.wait::<AcquireEvent>(self).await.map(Lock)
    }
}

impl Contest for AcquireEvent {
    fn into_seat_event(self) -> Option<SeatEvent> {
        Some(match self.event? {
            acquire_event::Event::Joined(joined) => SeatEvent::Joined {
                lease_id: joined.lease_id,
                ttl_ms: joined.ttl_ms,
            },
            acquire_event::Event::Acquired(acquired) => SeatEvent::Taken {
                epoch: acquired.fence,
            },
            acquire_event::Event::Lost(lost) => SeatEvent::Lost {
                reason: lost.reason,
            },
        })
    }
}
