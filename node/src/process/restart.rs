use std::time::Duration;

use hydrant_runtime::Backoff;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A process that ran for so long was well. Short, because what this guards against is a program
/// that fails as it starts; a service whose processes are killed now and then must not be left
/// with ever fewer of them.
pub(crate) const GOOD_RUN: Duration = Duration::from_secs(2);

/// How long to wait before a process that has ended is started again.
#[derive(Debug)]
pub struct Restarts(Backoff);

impl Restarts {
    /// Nothing has ended yet.
    pub const fn new() -> Self {
        Self(Backoff::new(FIRST_WAIT, LONGEST_WAIT))
    }

    /// The wait after a process that ran for `lived`: longer each time while they end soon, from
    /// a tenth of a second to ten seconds.
    pub fn wait_after(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD_RUN {
            self.0.reset();
        }
        self.0.next_wait()
    }
}

impl Default for Restarts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_at_once_waits_longer_each_time() {
        let mut restarts = Restarts::new();
        let waits: Vec<_> = (0..10)
            .map(|_| restarts.wait_after(Duration::ZERO))
            .collect();
        assert!(waits[0] <= FIRST_WAIT, "{waits:?}");
        assert!(
            waits[9] >= LONGEST_WAIT / 2 && waits[9] <= LONGEST_WAIT,
            "{waits:?}"
        );
    }

    #[test]
    fn what_is_killed_now_and_then_comes_back_at_once() {
        let mut restarts = Restarts::new();
        for _ in 0..20 {
            assert!(restarts.wait_after(Duration::from_secs(3)) <= FIRST_WAIT);
        }
    }
}
