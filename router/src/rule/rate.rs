//! How many requests a rule lets through in a time. All workers of a router count together.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hydrant_contracts::rules::{Limit, LimitBy};

use super::matching::Asked;
use super::source;
use crate::clock::Moment;
use crate::visitors::network;

/// The counts of one rule lie in so many parts, each with its own lock.
const SHARDS: usize = 16;
/// Of each part: groups, and the counts that one of them holds. Together [`MOST`] counts of 16 bytes.
const SETS: usize = 128;
const WAYS: usize = 8;
#[cfg(test)]
const MOST: usize = SHARDS * SETS * WAYS;

/// A rule's limit, and what it has let through.
#[derive(Debug)]
pub(super) struct Limiter {
    pace: Pace,
    counts: Counts,
}

/// A count is one moment: until when what was let through is paid for, at one request in each interval.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Nanoseconds between two requests.
    interval: u64,
    /// How far ahead of the present a count may be.
    slack: u64,
}

#[derive(Debug)]
enum Counts {
    One(AtomicU64),
    Each(Box<Each>),
}

/// A count for each key, as many as there is room for. One more takes the place of the one that has been quiet for the
/// longest time in its group.
#[derive(Debug)]
struct Each {
    /// Drawn at its start, so that nobody can choose keys that share a place.
    hasher: RandomState,
    shards: [Mutex<Vec<Count>>; SHARDS],
}

/// The key's hash, which is never 0, and the count. The key itself is not kept.
type Count = [u64; 2];

impl Pace {
    fn of(limit: &Limit) -> Self {
        let interval = limit.rate.interval().as_nanos() as u64;
        let more = u64::from(limit.burst()).saturating_sub(1);
        Self {
            interval: interval.max(1),
            slack: interval.saturating_mul(more),
        }
    }

    /// The count after one more request; else how many nanoseconds it has to wait.
    fn next(self, count: u64, now: u64) -> Result<u64, u64> {
        let ahead = count.saturating_sub(now);
        match ahead.checked_sub(self.slack) {
            Some(wait) if wait > 0 => Err(wait),
            _ => Ok(count.max(now).saturating_add(self.interval)),
        }
    }
}

impl Limiter {
    pub(super) fn new(limit: &Limit) -> Self {
        let counts = match limit.by {
            LimitBy::All => Counts::One(AtomicU64::new(0)),
            _ => Counts::Each(Box::new(Each {
                hasher: RandomState::new(),
                shards: std::array::from_fn(|_| Mutex::default()),
            })),
        };
        Self {
            pace: Pace::of(limit),
            counts,
        }
    }

    /// Counts a request, unless it comes too soon: then it says how long to wait.
    pub(super) fn pass(
        &self,
        by: &LimitBy,
        asked: &Asked<'_>,
        now: Moment,
    ) -> Result<(), Duration> {
        self.ask(by, asked, now, true)
    }

    /// What would become of a request. It changes nothing.
    pub(super) fn peek(
        &self,
        by: &LimitBy,
        asked: &Asked<'_>,
        now: Moment,
    ) -> Result<(), Duration> {
        self.ask(by, asked, now, false)
    }

    fn ask(
        &self,
        by: &LimitBy,
        asked: &Asked<'_>,
        now: Moment,
        counts: bool,
    ) -> Result<(), Duration> {
        let now = now.nanos();
        let asked = match &self.counts {
            Counts::One(count) if counts => {
                let next = |count| self.pace.next(count, now).ok();
                let passed = count.fetch_update(Relaxed, Relaxed, next);
                passed
                    .map(drop)
                    .map_err(|count| self.pace.next(count, now).err().unwrap_or(0))
            }
            Counts::One(count) => self.pace.next(count.load(Relaxed), now).map(drop),
            Counts::Each(each) => {
                let key = each.hash(by, asked);
                match counts {
                    false => self.pace.next(each.look(key), now).map(drop),
                    true => each.change(key, |count| {
                        *count = self.pace.next(*count, now)?;
                        Ok(())
                    }),
                }
            }
        };
        asked.map_err(Duration::from_nanos)
    }
}

impl Each {
    /// Who does not say whose a request is counts together with all others who do not.
    fn hash(&self, by: &LimitBy, asked: &Asked<'_>) -> u64 {
        let hash = match by {
            LimitBy::All => 0,
            LimitBy::Caller => self.hasher.hash_one(asked.caller),
            LimitBy::Address => self.hasher.hash_one(asked.address.map(network)),
            LimitBy::Said(from) => {
                let mut hash = 0;
                source::with_id(from, asked, &mut |id| hash = self.hasher.hash_one(id));
                hash
            }
        };
        hash | 1
    }

    fn change<T>(&self, key: u64, change: impl FnOnce(&mut u64) -> T) -> T {
        let (shard, range) = self.group(key);
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.is_empty() {
            *counts = vec![[0; 2]; SETS * WAYS];
        }
        let group = &mut counts[range];
        let at = place(group, key);
        if group[at][0] != key {
            group[at] = [key, 0];
        }
        change(&mut group[at][1])
    }

    fn look(&self, key: u64) -> u64 {
        let (shard, range) = self.group(key);
        let counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = counts.get(range).into_iter().flatten();
        group
            .find(|[known, _]| *known == key)
            .map_or(0, |[_, count]| *count)
    }

    /// The part that has the count of a key, and where in it.
    fn group(&self, key: u64) -> (&Mutex<Vec<Count>>, Range<usize>) {
        let (shard, set) = ((key >> 1) as usize, (key >> 32) as usize);
        let start = set % SETS * WAYS;
        (&self.shards[shard % SHARDS], start..start + WAYS)
    }
}

/// Where the count of a key is, or comes.
fn place(group: &[Count], key: u64) -> usize {
    let known = group.iter().position(|[known, _]| *known == key);
    let oldest = || {
        let all = group.iter().enumerate();
        all.min_by_key(|(_, [_, count])| *count)
            .map_or(0, |(at, _)| at)
    };
    known.unwrap_or_else(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: &str, burst: u32) -> Pace {
        Pace::of(&Limit {
            rate: rate.parse().unwrap(),
            burst: Some(burst),
            by: LimitBy::All,
        })
    }

    #[test]
    fn so_many_pass_at_once_and_then_one_in_each_interval() {
        let pace = pace("10/s", 3);
        let (mut count, mut passed) = (0, Vec::new());
        for ms in 1000..2000 {
            let now = ms * 1_000_000;
            while let Ok(next) = pace.next(count, now) {
                count = next;
                passed.push(ms);
            }
        }
        assert_eq!(passed[..3], [1000; 3]);
        let later: Vec<u64> = (1100..2000).step_by(100).collect();
        assert_eq!(passed[3..], later);
        let wait = pace.next(count, 2_000_000_000 - 40_000_000).unwrap_err();
        assert_eq!(wait, 40_000_000);
    }

    #[test]
    fn a_slow_rate_and_a_large_burst_overflow_nothing() {
        let pace = pace("1/h", 1_000_000);
        let now = u64::MAX - 5;
        assert!(pace.next(0, now).is_ok());
        assert!(pace.next(u64::MAX, 0).is_err());
    }

    #[test]
    fn a_new_key_takes_a_free_place_or_that_of_the_longest_quiet() {
        let group = [[11, 40], [13, 20], [15, 30], [17, 20_000]];
        assert_eq!(place(&group, 15), 2);
        assert_eq!(place(&group, 19), 1);
        assert_eq!(place(&[[11, 40], [0, 0], [15, 30]], 19), 1);
    }

    #[test]
    fn keys_have_counts_of_their_own_and_the_oldest_makes_room() {
        let each = Each {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        };
        let key = |number: u64| each.hasher.hash_one(number) | 1;
        for number in 0..10 * MOST as u64 {
            each.change(key(number), |count| *count = number + 1);
        }
        let all: usize = (each.shards.iter())
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert_eq!(all, MOST);
        let newest = 10 * MOST as u64 - 1;
        assert_eq!(each.look(key(newest)), newest + 1);
        assert_eq!(each.look(key(0)), 0);
    }
}
