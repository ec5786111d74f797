use crate::clock::Moment;
use crate::counter::{Rate, WINDOW};

/// A retry for every so many requests.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries a second that are allowed however few requests there are.
const RETRIES_PER_SECOND: u64 = 10;

/// What one worker may repeat of one service's requests: 20 % of the last ten seconds, and at
/// least ten a second. So retries can't multiply an outage.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Rate,
    retries: Rate,
}

impl Budget {
    /// Counts a request of a caller, once, however often it is tried.
    pub fn request(&self, now: Moment) {
        self.requests.add(now);
    }

    /// Takes one retry out of the budget; tells whether there was one.
    pub fn take_retry(&self, now: Moment) -> bool {
        let allowed = self.requests.sum(now) / REQUESTS_PER_RETRY;
        let allowed = allowed.max(RETRIES_PER_SECOND * WINDOW);
        let granted = self.retries.sum(now) < allowed;
        if granted {
            self.retries.add(now);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn granted(budget: &Budget, now: Moment) -> usize {
        (0..10_000).filter(|_| budget.take_retry(now)).count()
    }

    #[test]
    fn a_quiet_service_has_ten_a_second() {
        let (budget, now) = (Budget::default(), Moment::from_nanos(90_000_000_000));
        assert_eq!(granted(&budget, now), 100);
        assert_eq!(granted(&budget, now.after(Duration::from_secs(5))), 0);
        assert_eq!(granted(&budget, now.after(Duration::from_secs(11))), 100);
    }

    #[test]
    fn a_busy_service_has_a_fifth() {
        let (budget, now) = (Budget::default(), Moment::from_nanos(90_000_000_000));
        (0..5000).for_each(|_| budget.request(now));
        assert_eq!(granted(&budget, now), 1000);
    }
}
