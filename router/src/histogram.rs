use std::sync::OnceLock;
use std::time::Duration;

use crate::counter::Count;

/// Buckets of one octave; a value is off by at most half a bucket, 1.6 %.
const STEPS: usize = 32;
/// From 1 µs to 2^36 µs, 19 hours.
const OCTAVES: usize = 32;

/// Latencies in microseconds, counted log-linearly. An octave takes memory when it is first hit,
/// 256 bytes, so a usual histogram has 2 KB and the largest 9 KB. One worker writes.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    octaves: [OnceLock<Box<[Count; STEPS]>>; OCTAVES],
}

impl Histogram {
    pub(crate) fn record(&self, latency: Duration) {
        let (octave, step) = place(latency.as_micros() as u64);
        self.octaves[octave].get_or_init(Box::default)[step].add(1);
    }

    fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        let octaves = self.octaves.iter().enumerate();
        octaves
            .filter_map(|(octave, steps)| Some((octave, steps.get()?)))
            .flat_map(|(octave, steps)| {
                let steps = steps.iter().enumerate();
                steps.map(move |(step, count)| (octave * STEPS + step, count.get()))
            })
            .filter(|(_, count)| *count > 0)
    }
}

/// Octave 0 counts single microseconds; each later one has steps twice as wide.
fn place(us: u64) -> (usize, usize) {
    if us < STEPS as u64 {
        return (0, us as usize);
    }
    let octave = (us.ilog2() - STEPS.ilog2() + 1) as usize;
    if octave >= OCTAVES {
        return (OCTAVES - 1, STEPS - 1);
    }
    (octave, (us >> (octave - 1)) as usize - STEPS)
}

/// The lowest value of a bucket and the width of the bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    let (octave, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    match octave {
        0 => (step, 1),
        _ => ((STEPS as u64 + step) << (octave - 1), 1 << (octave - 1)),
    }
}

/// The sum of some histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// By bucket; empty when nothing was counted.
    counts: Vec<u64>,
}

impl Distribution {
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (bucket, count) in histogram.counts() {
            self.add_at(bucket, count);
        }
    }

    pub(crate) fn merge(&mut self, other: &Distribution) {
        for (bucket, count) in other.counts.iter().enumerate() {
            self.add_at(bucket, *count);
        }
    }

    fn add_at(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value below which the share `q` of all lies, in microseconds; 0 when there is none.
    pub(crate) fn quantile_us(&self, q: f64) -> u64 {
        let rank = (self.total() as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(bucket);
            }
        }
        0
    }

    /// How many lie at or below `us`.
    pub(crate) fn at_most(&self, us: u64) -> u64 {
        let (octave, step) = place(us);
        let end = (octave * STEPS + step + 1).min(self.counts.len());
        self.counts[..end].iter().sum()
    }

    /// The sum of all values, in seconds.
    pub(crate) fn sum_seconds(&self) -> f64 {
        let values = self.counts.iter().enumerate();
        values
            .map(|(bucket, count)| middle(bucket) as f64 * *count as f64)
            .sum::<f64>()
            / 1e6
    }
}

fn middle(bucket: usize) -> u64 {
    let (low, width) = bounds(bucket);
    low + width / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let histogram = Histogram::default();
        for us in values {
            histogram.record(Duration::from_micros(us));
        }
        let mut distribution = Distribution::default();
        distribution.add(&histogram);
        distribution
    }

    #[test]
    fn quantiles_have_two_digits() {
        let distribution = of(1..=10_000);
        for (q, exact) in [(0.5, 5000.0), (0.9, 9000.0), (0.99, 9900.0)] {
            let off = distribution.quantile_us(q) as f64 / exact - 1.0;
            assert!(off.abs() < 0.02, "{q}: {off}");
        }
        assert_eq!(distribution.total(), 10_000);
        assert_eq!(of([]).quantile_us(0.5), 0);
        assert!((distribution.at_most(5000) as f64 / 5000.0 - 1.0).abs() < 0.04);
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(us in any::<u64>()) {
            let (octave, step) = place(us);
            let (low, width) = bounds(octave * STEPS + step);
            let top = octave == OCTAVES - 1 && step == STEPS - 1;
            prop_assert!(low <= us && (us < low + width || top));
            prop_assert!(width <= 1 + low / 32, "wider than 1/32");
        }
    }
}
