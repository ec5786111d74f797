//! How often somebody may ask: a token bucket for each, in a table of fixed size.
//!
//! A bucket is one number, the time at which it is full again (the "generic cell rate algorithm"): so
//! there is nothing to refill and nothing to clean up. The table has many small sets with a lock each:
//! two requests wait for each other only when they fall into one set, for some nanoseconds. When a set is
//! full, who is nearest to a full bucket makes room: somebody who is at their limit stays there, however
//! many others come.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How many sets the table has; a power of two.
const SETS: usize = 4096;
/// How many buckets a set has: 32,768 in all, in half a megabyte.
const WAYS: usize = 8;

const SECOND: f64 = 1e9;

/// How often somebody may ask.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Text")]
pub(crate) struct Rate {
    /// How long a bucket takes to get one token back, in nanoseconds.
    token: u64,
    /// How long an empty bucket takes to be full, in nanoseconds.
    full: u64,
}

/// A rate, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Text {
    per_second: f64,
    burst: Option<u32>,
}

impl Rate {
    /// So many requests a second in the long run, and `burst` at once.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        let token = (SECOND / per_second) as u64;
        Self {
            token,
            full: token.saturating_mul(u64::from(burst)),
        }
    }
}

impl TryFrom<Text> for Rate {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, Self::Error> {
        if !(0.01..=1e6).contains(&text.per_second) {
            return Err("`perSecond` is a number from 0.01 to 1000000");
        }
        let twice = (text.per_second * 2.0).ceil().max(1.0) as u32;
        match text.burst.unwrap_or(twice) {
            burst @ 1..=2_000_000 => Ok(Self::new(text.per_second, burst)),
            _ => Err("`burst` is a number from 1 to 2000000"),
        }
    }
}

/// The buckets of all who ask one process.
pub(crate) struct Limiter {
    sets: Box<[Mutex<Set>]>,
    hasher: RandomState,
    start: Instant,
}

type Set = [Bucket; WAYS];

/// The bucket of one who asks.
#[derive(Clone, Copy, Default)]
struct Bucket {
    who: u64,
    /// When it is full again, in nanoseconds since the start.
    full_at: u64,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// Takes a token out of the bucket of `who`.
    ///
    /// # Errors
    ///
    /// When it is empty: how long until there is one.
    pub(crate) fn take(&self, who: &impl Hash, rate: &Rate) -> Result<(), Duration> {
        self.take_at(self.start.elapsed(), who, rate)
    }

    /// The same, at a time since the start.
    fn take_at(&self, now: Duration, who: &impl Hash, rate: &Rate) -> Result<(), Duration> {
        // The hasher has a random key: nobody can choose who shares a set.
        let who = self.hasher.hash_one(who);
        let set = &self.sets[who as usize % SETS];
        let now = now.as_nanos() as u64;
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket_of(&mut set, who);
        let full_at = bucket.full_at.max(now).saturating_add(rate.token);
        match (full_at - now).checked_sub(rate.full) {
            None | Some(0) => {
                bucket.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// The bucket of `who`; a full one in place of the fullest when there is none yet.
fn bucket_of(set: &mut Set, who: u64) -> &mut Bucket {
    let known = set.iter().position(|bucket| bucket.who == who);
    let at = known.unwrap_or_else(|| {
        let fullest = (0..WAYS).min_by_key(|at| set[*at].full_at);
        fullest.unwrap_or_default()
    });
    if known.is_none() {
        set[at] = Bucket { who, full_at: 0 };
    }
    &mut set[at]
}

/// A wait as `Retry-After` says it: whole seconds, at least one.
pub(crate) fn retry_after(wait: Duration) -> u64 {
    let rounded = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    rounded.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_secs(7);

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_the_truth() {
        let (limiter, rate) = (Limiter::new(), Rate::new(10.0, 5));
        for _ in 0..5 {
            limiter.take_at(START, &"a", &rate).unwrap();
        }
        let wait = limiter.take_at(START, &"a", &rate).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        limiter.take_at(START, &"b", &rate).expect("another bucket");
        let nearly = START + wait - Duration::from_nanos(1);
        limiter.take_at(nearly, &"a", &rate).unwrap_err();
        limiter.take_at(START + wait, &"a", &rate).unwrap();
        limiter.take_at(START + wait, &"a", &rate).unwrap_err();
    }

    #[test]
    fn who_is_at_the_limit_stays_there_however_many_others_come() {
        let (limiter, rate) = (Limiter::new(), Rate::new(1.0, 3));
        for _ in 0..3 {
            limiter.take_at(START, &"greedy", &rate).unwrap();
        }
        for other in 0..500_000 {
            let _ = limiter.take_at(START, &other, &rate);
        }
        limiter.take_at(START, &"greedy", &rate).unwrap_err();
    }

    #[test]
    fn threads_get_no_more_than_the_bucket_has() {
        let (limiter, rate) = (Limiter::new(), Rate::new(0.01, 1000));
        let taken = |_| {
            (0..1000)
                .filter(|_| limiter.take(&"a", &rate).is_ok())
                .count()
        };
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || taken(at))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(all, 1000);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_zero() {
        for (wait, told) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_001, 60)] {
            assert_eq!(retry_after(Duration::from_millis(wait)), told);
        }
    }

    proptest! {
        /// Whatever the pace: never more than the burst and what the rate gave back meanwhile.
        #[test]
        fn no_pace_gets_more_than_the_rate(
            steps in proptest::collection::vec(0_u64..400, 1..300),
            per_second in 1_u32..200,
            burst in 1_u32..50,
        ) {
            let (limiter, rate) = (Limiter::new(), Rate::new(per_second.into(), burst));
            let (mut taken, mut passed) = (0, Duration::ZERO);
            for step in steps {
                passed += Duration::from_millis(step);
                taken += u64::from(limiter.take_at(passed, &1, &rate).is_ok());
            }
            let most = f64::from(burst) + passed.as_secs_f64() * f64::from(per_second) * 1.000_001;
            prop_assert!(taken as f64 <= most, "{taken} of {most}");
        }

        #[test]
        fn any_text_of_a_rate_is_read_or_refused(per_second in any::<f64>(), burst in any::<Option<u32>>()) {
            if let Ok(rate) = Rate::try_from(Text { per_second, burst }) {
                prop_assert!(rate.token >= 1000 && rate.full >= rate.token);
            }
        }
    }
}
