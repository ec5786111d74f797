//! Whether a store is asked: one that was away a moment ago holds up nobody for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a store is left alone after it has failed; twice as long each time, up to the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts how a store behaves.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until then it is left alone; then one may try.
    closed_until: Option<Instant>,
}

impl Breaker {
    /// Whether it may be asked now. Of many who ask after a pause only one is let through: the others wait for
    /// how it fares.
    pub(super) fn admits(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        match state.closed_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.closed_until = Some(now + pause(state.failures));
                true
            }
        }
    }

    pub(super) fn succeeded(&self) {
        *self.state() = State::default();
    }

    /// Tells whether it was well before.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state();
        let was_well = state.failures == 0;
        state.closed_until = Some(Instant::now() + pause(state.failures));
        state.failures = state.failures.saturating_add(1);
        was_well
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_failed_is_left_alone_then_tried_by_one() {
        let breaker = Breaker::default();
        assert!(breaker.admits() && breaker.admits());
        assert!(breaker.failed(), "it was well before");
        assert!(!breaker.admits());
        tokio::time::advance(FIRST).await;
        assert!(breaker.admits(), "one tries");
        assert!(!breaker.admits(), "the others wait");
        assert!(!breaker.failed());
        tokio::time::advance(FIRST).await;
        assert!(!breaker.admits(), "the pause is longer now");
        tokio::time::advance(FIRST).await;
        assert!(breaker.admits());
        breaker.succeeded();
        assert!(breaker.admits() && breaker.admits());
    }
}
