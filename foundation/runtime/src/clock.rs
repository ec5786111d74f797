use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day, which a test can set. For waiting and measuring use `tokio::time`, which a
/// test can pause.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<SystemTime>>>);

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is moved.
    pub fn manual(start: SystemTime) -> Self {
        Self(Some(Arc::new(Mutex::new(start))))
    }

    /// The time of day.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The time of day in milliseconds since 1970.
    pub fn unix_ms(&self) -> i64 {
        self.now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }

    /// Moves a manual clock on.
    ///
    /// # Panics
    ///
    /// If it is the machine's own clock.
    pub fn advance(&self, by: Duration) {
        let time = self.0.as_ref().expect("only a manual clock can be moved");
        *time.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}
