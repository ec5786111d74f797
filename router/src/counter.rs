use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Moment;

/// A number that one worker writes and anybody reads. Relaxed load and store: with one writer no
/// locked instruction is needed.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.set(self.get().saturating_sub(n));
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A measure that one worker writes and anybody reads, 0 at first.
#[derive(Debug, Default)]
pub(crate) struct Measure(Count);

impl Measure {
    pub(crate) fn set(&self, value: f64) {
        self.0.set(value.to_bits());
    }

    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.get())
    }
}

/// How long `Rate` remembers, in seconds.
pub(crate) const WINDOW: u64 = 10;

/// Events of the last ten seconds, counted by second. One worker writes, anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// Each holds a second in its upper and that second's count in its lower half. One more than
    /// the window: the present second is not over yet.
    seconds: [Count; WINDOW as usize + 1],
}

impl Rate {
    pub(crate) fn add(&self, now: Moment) {
        let second = now.second();
        let cell = &self.seconds[(second % (WINDOW + 1)) as usize];
        let cell_is_current = cell.get() >> 32 == second & 0xffff_ffff;
        if cell_is_current {
            cell.add(1);
        } else {
            cell.set(second << 32 | 1);
        }
    }

    /// The events of the last ten whole seconds and of the present one.
    pub(crate) fn sum(&self, now: Moment) -> u64 {
        let oldest = now.second().saturating_sub(WINDOW) & 0xffff_ffff;
        let cells = self.seconds.iter().map(Count::get);
        cells
            .filter(|cell| (cell >> 32) >= oldest && (cell >> 32) <= now.second())
            .map(|cell| cell & 0xffff_ffff)
            .sum()
    }

    /// Events a second over the last ten seconds.
    pub(crate) fn per_second(&self, now: Moment) -> f64 {
        let whole_seconds = WINDOW as f64;
        let present_second = (now.nanos() % 1_000_000_000) as f64 / 1e9;
        self.sum(now) as f64 / (whole_seconds + present_second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_forgets_after_its_window() {
        let (rate, start) = (Rate::default(), Moment::from_nanos(50_000_000_000));
        for second in 0..10 {
            for _ in 0..7 {
                rate.add(start.after(Duration::from_secs(second)));
            }
        }
        let later = |seconds| start.after(Duration::from_secs(seconds));
        assert_eq!(rate.sum(later(9)), 70);
        assert!((rate.per_second(later(10)) - 7.0).abs() < 0.01);
        assert_eq!(rate.sum(later(15)), 35);
        assert_eq!(rate.sum(later(20)), 0);
        rate.add(later(20));
        assert_eq!(rate.sum(later(20)), 1);
    }
}
