use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point on the router's monotonic clock that fits in an atomic: nanoseconds since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The present.
    pub fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        // One second ahead, so that no moment is 0, which stands for "never" in atomics.
        let start = START.get_or_init(Instant::now);
        Self(1_000_000_000 + start.elapsed().as_nanos() as u64)
    }

    /// The moment with this number of nanoseconds, as `nanos` gives it.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since a second before the clock was first read.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds, for windows of time.
    pub(crate) const fn second(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The moment `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(wait))
    }

    /// The time from `earlier` to this moment; none when it is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
