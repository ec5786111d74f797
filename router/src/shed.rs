//! What a service's callers were refused because its instances had all that they can answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hydrant_contracts::ServiceId;

use crate::clock::Moment;
use crate::counter::Count;
use crate::endpoint::ServiceLive;
use crate::priority::Priority;
use crate::service::Service;

/// When nothing was refused for so long, it is over.
const QUIET: Duration = Duration::from_secs(3);

/// Refusals for load by priority: one row for each worker, which alone writes it.
#[derive(Debug)]
pub(crate) struct Shedding {
    workers: Box<[Row]>,
    /// Since when, in nanoseconds; 0 while nothing is refused. Written when it begins and ends.
    since: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    refused: [Count; Priority::ALL.len()],
    last: Count,
}

/// How many were refused, in the order of [`Priority::ALL`].
pub(crate) type Refused = [u64; Priority::ALL.len()];

impl Shedding {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Row::default()).collect(),
            since: AtomicU64::new(0),
        }
    }

    /// Counts a request that `worker` refused; tells whether it is the first of all for a while.
    pub(crate) fn refuse(&self, worker: usize, priority: Priority, now: Moment) -> bool {
        let row = &self.workers[worker];
        row.refused[priority as usize].add(1);
        row.last.set(now.nanos());
        self.since.load(Relaxed) == 0
            && self
                .since
                .compare_exchange(0, now.nanos(), Relaxed, Relaxed)
                .is_ok()
    }

    /// For how long requests have been refused, if they are.
    pub(crate) fn lasts(&self, now: Moment) -> Option<Duration> {
        let since = self.since.load(Relaxed);
        (since > 0).then(|| now.since(Moment::from_nanos(since)))
    }

    /// Over all workers.
    pub(crate) fn refused(&self) -> Refused {
        let sum = |at: usize| self.workers.iter().map(|row| row.refused[at].get()).sum();
        std::array::from_fn(sum)
    }

    /// Ends it when nothing was refused for a while; tells how long it was.
    pub(crate) fn end(&self, now: Moment) -> Option<Duration> {
        let last = self.workers.iter().map(|row| row.last.get()).max();
        let last = Moment::from_nanos(last.unwrap_or_default());
        if now.since(last) < QUIET {
            return None;
        }
        let since = self.since.swap(0, Relaxed);
        Some(last.since(Moment::from_nanos(since)))
    }
}

/// A service that refuses requests for load, until it is said that it is over.
#[derive(Debug)]
pub(crate) struct Watch {
    service: ServiceId,
    live: Arc<ServiceLive>,
    /// What it had refused before.
    before: Refused,
}

impl Watch {
    /// Says that it begins. The first refusal is counted already.
    pub(crate) fn begin(service: &Service) -> Self {
        let instances = service.instances.len();
        tracing::warn!(service = %service.id, instances,
            "requests are refused: the instances have all that they can answer");
        Self {
            service: service.id.clone(),
            live: Arc::clone(&service.live),
            before: service.live.shedding().refused(),
        }
    }

    /// Says when it is over.
    pub(crate) fn goes_on(&self, now: Moment) -> bool {
        let Some(lasted) = self.live.shedding().end(now) else {
            return true;
        };
        let refused = self.live.shedding().refused();
        let [low, normal, high] =
            std::array::from_fn(|at| refused[at].saturating_sub(self.before[at]));
        let lasted_ms = lasted.as_millis() as u64;
        tracing::info!(service = %self.service, lasted_ms, low, normal, high,
            "no more requests are refused; so many were, by their priority");
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_once_and_ends_after_a_quiet_while() {
        let (shedding, start) = (Shedding::new(2), Moment::from_nanos(1_000_000_000));
        let at = |ms: u64| start.after(Duration::from_millis(ms));
        assert!(shedding.refuse(0, Priority::Low, start));
        assert!(!shedding.refuse(1, Priority::Normal, at(500)));
        assert_eq!(shedding.refused(), [1, 1, 0]);
        assert_eq!(shedding.end(at(3499)), None);
        assert_eq!(shedding.lasts(at(600)), Some(Duration::from_millis(600)));
        assert_eq!(shedding.end(at(3500)), Some(Duration::from_millis(500)));
        assert_eq!(shedding.lasts(at(3500)), None);
        assert!(shedding.refuse(0, Priority::High, at(9000)), "anew");
    }
}
