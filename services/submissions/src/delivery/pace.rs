//! How many begin in a second.

use tokio::time::{Duration, Instant, sleep};

/// A bucket that fills at a steady rate, with room for one second; without a rate it never gets empty.
pub(super) struct Pace {
    rate: Option<f64>,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            tokens: 1.0,
            filled: Instant::now(),
        }
    }

    /// Waits until at least one may begin; takes as many as may, up to `most`.
    pub(super) async fn take(&mut self, most: u32) -> u32 {
        let Some(rate) = self.rate else {
            return most;
        };
        loop {
            self.fill(rate);
            if self.tokens >= 1.0 {
                let taken = most.min(self.tokens as u32);
                self.tokens -= f64::from(taken);
                return taken;
            }
            let wait = Duration::from_secs_f64((1.0 - self.tokens) / rate);
            sleep(wait + Duration::from_millis(1)).await;
        }
    }

    /// Gives back what was not used.
    pub(super) fn give_back(&mut self, unused: u32) {
        self.tokens += f64::from(unused);
    }

    fn fill(&mut self, rate: f64) {
        let since = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        self.tokens = (self.tokens + since * rate).min(rate.max(1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_begin_than_the_rate_allows() {
        let mut pace = Pace::new(Some(5.0));
        let (start, mut begun) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(10) {
            begun += pace.take(3).await;
        }
        assert!((48..=54).contains(&begun), "{begun}");
        assert_eq!(Pace::new(None).take(7).await, 7);
    }
}
