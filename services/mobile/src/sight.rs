use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hydrant_runtime::Clock;
use hydrant_sdk::State;

use crate::snapshot::KEY;

/// How often the state is asked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// The oldest answer of the node's memory that says more than none.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Until when what is served counts as fresh.
const FRESH: Duration = Duration::from_secs(5);

/// When the state was last seen: while it is away, what is served may be old, and nobody would
/// hear of anything new.
#[derive(Clone)]
pub(crate) struct Sight {
    seen_unix_ms: Arc<AtomicI64>,
    clock: Clock,
}

impl Sight {
    /// The state was seen just now.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            seen_unix_ms: Arc::new(AtomicI64::new(clock.unix_ms())),
            clock,
        }
    }

    /// Asks the state again and again.
    pub(crate) async fn keep(&self, state: &State) {
        loop {
            let asked = self.clock.unix_ms();
            let answer = tokio::time::timeout(ANSWER, state.get_within(KEY, MEMORY));
            if let Ok(Ok(found)) = answer.await {
                let age = i64::try_from(found.age.as_millis()).unwrap_or(i64::MAX);
                self.saw(asked.saturating_sub(age));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The state was there at this time.
    pub(crate) fn saw(&self, unix_ms: i64) {
        self.seen_unix_ms.fetch_max(unix_ms, Ordering::Relaxed);
    }

    /// For how many seconds the state has not been seen; `None` while that is not worth a word.
    pub(crate) fn age(&self) -> Option<i64> {
        let seen = self.seen_unix_ms.load(Ordering::Relaxed);
        let age = self.clock.unix_ms().saturating_sub(seen);
        (age > FRESH.as_millis() as i64).then_some(age / 1000)
    }
}
