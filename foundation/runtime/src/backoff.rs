use std::time::Duration;

/// Waits that double up to a limit, each with jitter so that many waiters do not return at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// From `first`, doubled each time, to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// The next wait: between half of its nominal length and all of it.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        doubled.min(self.most).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Begins again with the first wait, after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many waits there were since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_begin_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        for nominal in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next_wait().as_millis();
            assert!(
                (nominal / 2..=nominal).contains(&wait),
                "{wait} of {nominal}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.next_wait() <= most);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }
}
