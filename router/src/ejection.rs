use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Moment;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Of one that is worse than the others: longer than what is held against it is remembered.
const FIRST_EXCLUSION: Duration = Duration::from_secs(12);
const LONGEST_EXCLUSION: Duration = Duration::from_secs(120);
/// Who was well for so long after an exclusion is judged by it no more.
const FORGIVEN: Duration = Duration::from_secs(120);
/// Who comes back gets its full share after so long, and what it gets at first.
const SLOW_START: Duration = Duration::from_secs(10);
const FIRST_SHARE: f64 = 0.1;

/// Whether an instance is kept out of the choice, shared by all workers. It is read on every
/// choice and written only when an instance fails or comes back.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// When it may be tried again, in nanoseconds; 0 while it is in.
    until: AtomicU64,
    /// Why it is out, one of the constants below.
    cause: AtomicU8,
    /// Ejections since the last request that it served.
    strikes: AtomicU32,
    total: AtomicU64,
    /// Until when it is out because it is worse than the others; 0 when it never was.
    excluded_until: AtomicU64,
    /// An [`Outlier`].
    excluded_for: AtomicU8,
    exclusions: AtomicU32,
    /// Too few are left without it.
    pardoned: AtomicBool,
    /// It was said that it is out.
    told: AtomicBool,
}

/// How an instance is worse than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlier {
    /// It fails more of its requests.
    Failing,
    /// It takes longer.
    Slow,
}

/// Its requests failed: it comes back with time.
const FAILING: u8 = 0;
/// It refuses connections: it stays out until one is made.
const REFUSING: u8 = 1;
/// It refuses connections, and nobody here can ask whether it still does: it comes back with time.
const REFUSING_AFAR: u8 = 2;

/// What the choice makes of an instance's ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not ejected.
    In,
    /// Its requests failed one after the other: taken when there is nothing better.
    Failing,
    /// It refuses connections.
    Refusing {
        /// Its next trial is due.
        due: bool,
    },
    /// It is worse than the others: taken when there is nothing better.
    Excluded(Outlier),
}

impl Standing {
    pub(crate) fn is_in(self) -> bool {
        self == Standing::In
    }

    /// Why it is out, for people; empty when it is not.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Standing::In => "",
            Standing::Failing => "ejected: its requests failed one after the other",
            Standing::Refusing { .. } => "ejected: it refuses connections",
            Standing::Excluded(Outlier::Failing) => {
                "ejected: it fails many more of its requests than the others"
            }
            Standing::Excluded(Outlier::Slow) => "ejected: it is much slower than the others",
        }
    }
}

impl Ejection {
    /// As the choice sees it: when too few are left, what an instance did counts no more.
    pub(crate) fn standing(&self, now: Moment) -> Standing {
        match self.true_standing(now) {
            Standing::Failing | Standing::Excluded(_) if self.pardoned.load(Relaxed) => {
                Standing::In
            }
            standing => standing,
        }
    }

    /// The same, whether others are left or not.
    pub(crate) fn true_standing(&self, now: Moment) -> Standing {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return self.exclusion(now);
        }
        let due = now.nanos() >= until;
        match self.cause.load(Relaxed) {
            REFUSING => Standing::Refusing { due },
            _ if due => self.exclusion(now),
            REFUSING_AFAR => Standing::Refusing { due },
            _ => Standing::Failing,
        }
    }

    fn exclusion(&self, now: Moment) -> Standing {
        if now.nanos() >= self.excluded_until.load(Relaxed) {
            return Standing::In;
        }
        Standing::Excluded(match self.excluded_for.load(Relaxed) {
            0 => Outlier::Failing,
            _ => Outlier::Slow,
        })
    }

    /// Takes it out for a time because it is worse than the others; longer each time.
    pub(crate) fn exclude(&self, outlier: Outlier, now: Moment) {
        let last = Moment::from_nanos(self.excluded_until.load(Relaxed));
        if now.since(last) > FORGIVEN {
            self.exclusions.store(0, Relaxed);
        }
        let before = self.exclusions.fetch_add(1, Relaxed);
        let wait = FIRST_EXCLUSION.saturating_mul(1 << before.min(10));
        let until = now.after(wait.min(LONGEST_EXCLUSION));
        self.excluded_for.store(outlier as u8, Relaxed);
        self.excluded_until.store(until.nanos(), Relaxed);
        self.total.fetch_add(1, Relaxed);
    }

    /// The share that it gets of what it would have, while it is new in the choice again.
    pub(crate) fn share(&self, now: Moment) -> Option<f64> {
        let back = self.excluded_until.load(Relaxed);
        let since = now.since(Moment::from_nanos(back));
        let ramps = back > 0 && since < SLOW_START;
        ramps.then(|| (since.as_secs_f64() / SLOW_START.as_secs_f64()).max(FIRST_SHARE))
    }

    /// Whether it is used although it is out for what it did.
    pub(crate) fn pardon(&self, pardoned: bool) {
        if self.pardoned.load(Relaxed) != pardoned {
            self.pardoned.store(pardoned, Relaxed);
        }
    }

    /// Notes that it was said whether it is out; tells whether it was said before that it is.
    pub(crate) fn told(&self, out: bool) -> bool {
        let before = self.told.load(Relaxed);
        if before != out {
            self.told.store(out, Relaxed);
        }
        before
    }

    /// Takes it out because it refused a connection; tells whether it was not out for that yet.
    pub(crate) fn refuse(&self, now: Moment) -> bool {
        let first = self.until.load(Relaxed) == 0 || self.cause.load(Relaxed) != REFUSING;
        if first || now.nanos() >= self.until.load(Relaxed) {
            self.cause.store(REFUSING, Relaxed);
            self.extend(now, first);
        }
        first
    }

    /// Takes it out for a time because the node of its server says that it refused a connection.
    pub(crate) fn refuse_afar(&self, now: Moment) {
        if self.standing(now) == Standing::In {
            self.cause.store(REFUSING_AFAR, Relaxed);
            self.extend(now, true);
        }
    }

    /// Takes it out because its requests fail one after the other.
    pub(crate) fn fail(&self, now: Moment) {
        if self.true_standing(now) == Standing::In {
            self.cause.store(FAILING, Relaxed);
            self.extend(now, true);
        }
    }

    fn extend(&self, now: Moment, counts: bool) {
        let strikes = self.strikes.fetch_add(1, Relaxed);
        let wait = FIRST_WAIT.saturating_mul(1 << strikes.min(20));
        let wait = wait.min(LONGEST_WAIT).mul_f64(0.75 + fastrand::f64() / 4.0);
        self.until.store(now.after(wait).nanos(), Relaxed);
        self.total.fetch_add(u64::from(counts), Relaxed);
    }

    /// Takes the trial that is due; only one asker gets it. `limit` is how long the trial may
    /// take before another may begin.
    pub(crate) fn claim_trial(&self, now: Moment, limit: Duration) -> bool {
        let until = self.until.load(Relaxed);
        let next = now.after(limit).nanos();
        until != 0
            && now.nanos() >= until
            && self
                .until
                .compare_exchange(until, next, Relaxed, Relaxed)
                .is_ok()
    }

    /// A trial failed: out for longer.
    pub(crate) fn trial_failed(&self, now: Moment) {
        self.extend(now, false);
    }

    /// It takes connections again.
    pub(crate) fn readmit(&self) {
        self.until.store(0, Relaxed);
    }

    /// It served a request: its past is forgiven.
    pub(crate) fn served(&self, now: Moment) {
        // Read first: the line stays shared between cores as long as nothing fails. An instance
        // that takes no connections may still finish the requests that it has.
        if self.strikes.load(Relaxed) != 0 && self.true_standing(now) == Standing::In {
            self.strikes.store(0, Relaxed);
            self.until.store(0, Relaxed);
        }
    }

    pub(crate) fn next_trial(&self) -> Option<Moment> {
        let until = self.until.load(Relaxed);
        (until != 0 && self.cause.load(Relaxed) == REFUSING).then(|| Moment::from_nanos(until))
    }

    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(1_000_000_000);

    #[test]
    fn a_refusal_keeps_it_out_until_a_connection_is_made() {
        let ejection = Ejection::default();
        assert!(ejection.refuse(START));
        assert!(!ejection.refuse(START), "already out");
        assert_eq!(ejection.total(), 1);
        let later = START.after(Duration::from_secs(60));
        assert_eq!(ejection.standing(later), Standing::Refusing { due: true });
        ejection.readmit();
        assert_eq!(ejection.standing(later), Standing::In);
    }

    #[test]
    fn failures_keep_it_out_for_a_time() {
        let ejection = Ejection::default();
        ejection.fail(START);
        assert_eq!(ejection.standing(START), Standing::Failing);
        let later = START.after(Duration::from_millis(101));
        assert_eq!(ejection.standing(later), Standing::In);
    }

    #[test]
    fn who_refuses_afar_comes_back_with_time_and_waits_longer_when_it_still_does() {
        let ejection = Ejection::default();
        ejection.refuse_afar(START);
        assert_eq!(ejection.standing(START), Standing::Refusing { due: false });
        assert_eq!(ejection.next_trial(), None, "there is nobody to ask");
        let later = START.after(Duration::from_millis(101));
        assert_eq!(ejection.standing(later), Standing::In);
        ejection.refuse_afar(later);
        let still_out = later.after(Duration::from_millis(149));
        assert_eq!(
            ejection.standing(still_out),
            Standing::Refusing { due: false }
        );
        assert_eq!(ejection.total(), 2);
    }

    #[test]
    fn waits_double_to_five_seconds_and_begin_again_after_a_success() {
        let ejection = Ejection::default();
        let mut now = START;
        ejection.refuse(now);
        for nominal in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = ejection.next_trial().unwrap().since(now).as_millis();
            assert!(
                (nominal * 3 / 4..=nominal).contains(&wait),
                "{wait} of {nominal}"
            );
            now = ejection.next_trial().unwrap();
            ejection.trial_failed(now);
        }
        ejection.readmit();
        ejection.served(now);
        ejection.refuse(now);
        assert!(ejection.next_trial().unwrap().since(now) <= FIRST_WAIT);
    }

    #[test]
    fn only_one_asker_gets_a_trial() {
        let ejection = Ejection::default();
        assert!(!ejection.claim_trial(START, LONGEST_WAIT), "it is in");
        ejection.refuse(START);
        assert!(!ejection.claim_trial(START, LONGEST_WAIT), "not due");
        let due = START.after(FIRST_WAIT);
        assert!(ejection.claim_trial(due, LONGEST_WAIT));
        assert!(!ejection.claim_trial(due, LONGEST_WAIT), "taken");
    }
}
