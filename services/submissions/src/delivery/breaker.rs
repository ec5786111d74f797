//! When a consumer is left alone, and how it is come back to: after failures in a row nothing is sent for a
//! while; then one submission at a time; and after a success a few more with each one that follows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::outcome::{Failure, Trouble};
use crate::forms;

/// The longest that a consumer may ask to be left alone.
const MAX_PAUSE: Duration = Duration::from_secs(600);

pub(super) struct Breaker {
    config: forms::Breaker,
    most: u32,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// So many may be under way; so many failures were seen in a row.
    Closed { allowed: u32, failures: u32 },
    /// Left alone; so often it has been in vain.
    Open { until: Instant, vain: u32 },
}

/// How many more may begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Room {
    For(u32),
    /// One, to see whether it is well again.
    Probe,
    /// None before this time.
    From(Instant),
    /// None before one that is under way has ended.
    Full,
}

impl Breaker {
    pub(super) fn new(config: forms::Breaker, most: u32) -> Self {
        let state = State::Closed {
            allowed: 1,
            failures: 0,
        };
        Self {
            config,
            most,
            state: Mutex::new(state),
        }
    }

    /// How many more may begin while so many are under way.
    pub(super) fn room(&self, under_way: u32) -> Room {
        match *self.state() {
            State::Closed { allowed, .. } if under_way < allowed => Room::For(allowed - under_way),
            State::Closed { .. } => Room::Full,
            State::Open { until, .. } if Instant::now() < until => Room::From(until),
            State::Open { .. } if under_way == 0 => Room::Probe,
            State::Open { .. } => Room::Full,
        }
    }

    /// The consumer answered as it should: it has it, or says that it never will.
    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        let allowed = match *state {
            State::Closed { allowed, .. } => (allowed + 1).min(self.most),
            State::Open { .. } => 1,
        };
        *state = State::Closed {
            allowed,
            failures: 0,
        };
    }

    /// Tells whether the consumer is left alone from now on, when it was not before.
    pub(super) fn failed(&self, failure: &Failure) -> bool {
        if matches!(failure.trouble, Trouble::Refused | Trouble::Ours) {
            return false;
        }
        let mut state = self.state();
        let before = *state;
        *state = self.after(before, failure);
        matches!((before, *state), (State::Closed { .. }, State::Open { .. }))
    }

    fn after(&self, state: State, failure: &Failure) -> State {
        let now = Instant::now();
        let (failures, allowed, vain) = match state {
            State::Closed { allowed, failures } => (failures + 1, allowed, 0),
            // Those that began before it opened say nothing new.
            State::Open { until, .. } if now < until => return state,
            State::Open { vain, .. } => (u32::MAX, 1, vain + 1),
        };
        if let Some(asked) = failure.retry_after {
            let until = now + asked.min(MAX_PAUSE);
            return State::Open { until, vain };
        }
        if failures < self.config.failures {
            let allowed = (allowed / 2).max(1);
            return State::Closed { allowed, failures };
        }
        let until = now + self.config.waits.draw(vain);
        State::Open { until, vain }
    }

    /// How long until the consumer is tried again, and by how much a submission that failed should stay behind
    /// that, so that the next try is made with another one.
    pub(super) fn wait_behind(&self) -> Duration {
        match *self.state() {
            State::Closed { .. } => self.config.waits.draw(0),
            State::Open { until, vain } => {
                let left = until.saturating_duration_since(Instant::now());
                left + self.config.waits.draw(vain)
            }
        }
    }

    /// Whether it is not known to be well.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state(), State::Open { .. })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: forms::Waits = forms::Waits {
        first: Duration::from_secs(1),
        most: Duration::from_secs(8),
    };

    fn breaker() -> Breaker {
        let config = forms::Breaker {
            failures: 3,
            waits: WAITS,
        };
        Breaker::new(config, 4)
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.failed(&Failure::away(""));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_through_at_a_time() {
        let breaker = breaker();
        fail(&breaker, 2);
        breaker.succeeded();
        fail(&breaker, 2);
        assert!(!breaker.is_open(), "a success stood between them");
        assert!(breaker.failed(&Failure::failing("")), "it opens once");
        assert!(!breaker.failed(&Failure::failing("")));
        for round in 0..6 {
            tokio::time::advance(WAITS.most).await;
            assert_eq!(breaker.room(0), Room::Probe, "{round}");
            assert_eq!(breaker.room(1), Room::Full, "{round}");
            fail(&breaker, 1);
            let room = breaker.room(0);
            assert!(matches!(room, Room::From(_) | Room::Probe), "{room:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_it_begins_with_one_and_grows_with_each_success() {
        let breaker = breaker();
        fail(&breaker, 3);
        tokio::time::advance(WAITS.most).await;
        for allowed in [1, 2, 3, 4, 4] {
            breaker.succeeded();
            assert_eq!(breaker.room(0), Room::For(allowed));
        }
        assert_eq!(breaker.room(3), Room::For(1));
        assert_eq!(breaker.room(4), Room::Full);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_be_left_alone_is_left_alone_for_so_long() {
        let breaker = breaker();
        let mut failure = Failure::away("");
        failure.retry_after = Some(Duration::from_secs(60));
        breaker.failed(&failure);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(matches!(breaker.room(0), Room::From(_)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(breaker.room(0), Room::Probe);
        failure.retry_after = Some(Duration::MAX);
        breaker.failed(&failure);
        tokio::time::advance(MAX_PAUSE).await;
        assert_eq!(breaker.room(0), Room::Probe, "nobody asks for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_our_own_troubles_open_nothing() {
        let breaker = breaker();
        for _ in 0..10 {
            breaker.failed(&Failure::refused(""));
            breaker.failed(&Failure::ours(""));
        }
        assert!(!breaker.is_open());
    }
}
