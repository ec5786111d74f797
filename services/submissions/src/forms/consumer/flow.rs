//! How much a consumer gets at a time, and what happens when it fails.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

const CONCURRENCY: u32 = 4;
const MAX_CONCURRENCY: u32 = 256;
const MAX_RATE: f64 = 10_000.0;
const ATTEMPTS: u32 = 20;
const MAX_ATTEMPTS: u32 = 10_000;
const FAILURES: u32 = 5;
const MAX_FAILURES: u32 = 1000;
const LEASE: Duration = Duration::from_secs(30);
const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const WAITS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

/// How much a consumer gets at a time, from each process of `orchestration/delivery`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flow {
    /// How many submissions are on their way to it at once.
    pub(crate) concurrency: u32,
    /// How many begin in a second; as many as there are when absent.
    pub(crate) rate: Option<f64>,
    /// After how many counted attempts a submission is parked.
    pub(crate) attempts: u32,
    /// How long a worker is trusted without a word.
    pub(crate) lease: Duration,
    /// The waits between the attempts of one submission.
    pub(crate) backoff: Waits,
    pub(crate) breaker: Breaker,
}

/// When a consumer is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Breaker {
    /// After how many failures in a row.
    pub(crate) failures: u32,
    /// The waits before it is tried again with a single submission.
    pub(crate) waits: Waits,
}

/// Waits that double, from the first to the longest; each is drawn from zero to its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waits {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

#[derive(Deserialize)]
pub(super) struct FlowTable {
    concurrency: Option<u32>,
    rate: Option<f64>,
    attempts: Option<u32>,
    lease: Option<hydrant_runtime::Duration>,
    backoff: Option<WaitsTable>,
    breaker: Option<BreakerTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitsTable {
    first: Option<hydrant_runtime::Duration>,
    most: Option<hydrant_runtime::Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerTable {
    failures: Option<u32>,
    first: Option<hydrant_runtime::Duration>,
    most: Option<hydrant_runtime::Duration>,
}

impl Waits {
    /// The wait after this many failures, drawn from zero to its length: who failed together does not come
    /// back together.
    pub(crate) fn draw(self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(20));
        doubled.min(self.most).mul_f64(fastrand::f64())
    }

    fn checked(
        first: Option<hydrant_runtime::Duration>,
        most: Option<hydrant_runtime::Duration>,
        usual: Self,
    ) -> Result<Self, String> {
        let waits = Self {
            first: first.map_or(usual.first, |first| first.get()),
            most: most.map_or(usual.most, |most| most.get()),
        };
        let is_good = WAITS.contains(&waits.first) && WAITS.contains(&waits.most);
        match is_good && waits.first <= waits.most {
            true => Ok(waits),
            false => {
                Err("has waits that are not from 10ms to 1h, the first at most the most".into())
            }
        }
    }
}

impl FlowTable {
    pub(super) fn checked(self) -> Result<Flow, String> {
        let concurrency = self.concurrency.unwrap_or(CONCURRENCY);
        within("concurrency", concurrency, 1..=MAX_CONCURRENCY)?;
        let attempts = self.attempts.unwrap_or(ATTEMPTS);
        within("attempts", attempts, 1..=MAX_ATTEMPTS)?;
        if self
            .rate
            .is_some_and(|rate| !(0.01..=MAX_RATE).contains(&rate))
        {
            return Err(format!(
                "has a `rate` that is not from 0.01 to {MAX_RATE} a second"
            ));
        }
        let lease = self.lease.map_or(LEASE, |lease| lease.get());
        if !LEASES.contains(&lease) {
            return Err("has a `lease` that is not from 1s to 10m".into());
        }
        let backoff = self.backoff.map_or(Ok(BACKOFF), |table| {
            Waits::checked(table.first, table.most, BACKOFF)
        })?;
        Ok(Flow {
            concurrency,
            rate: self.rate,
            attempts,
            lease,
            backoff,
            breaker: self.breaker.map_or(Ok(BREAKER), BreakerTable::checked)?,
        })
    }
}

const BACKOFF: Waits = Waits {
    first: Duration::from_secs(2),
    most: Duration::from_secs(300),
};

const BREAKER: Breaker = Breaker {
    failures: FAILURES,
    waits: Waits {
        first: Duration::from_secs(1),
        most: Duration::from_secs(30),
    },
};

impl BreakerTable {
    fn checked(self) -> Result<Breaker, String> {
        let failures = self.failures.unwrap_or(FAILURES);
        within("breaker.failures", failures, 1..=MAX_FAILURES)?;
        Ok(Breaker {
            failures,
            waits: Waits::checked(self.first, self.most, BREAKER.waits)?,
        })
    }
}

fn within(name: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), String> {
    match range.contains(&value) {
        true => Ok(()),
        false => {
            let (least, most) = (range.start(), range.end());
            Err(format!("has a `{name}` that is not from {least} to {most}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_drawn_from_zero_to_twice_as_long_each_time() {
        for failures in 0..40 {
            let most = (2 << failures.min(20)).min(300);
            let drawn: Vec<_> = (0..200).map(|_| BACKOFF.draw(failures)).collect();
            let longest = drawn.iter().max().unwrap();
            assert!(*longest <= Duration::from_secs(most), "{failures}");
            assert!(*longest > Duration::from_secs(most) / 2, "{failures}");
            assert!(*drawn.iter().min().unwrap() < Duration::from_secs(most) / 4);
        }
    }
}
