use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hydrant_runtime::Clock;
use hydrant_sdk::{Error, State};

use crate::sources::snapshot::DECLARED;

/// How often the state is asked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// The oldest answer of the node's memory that will do: all processes of a server, together, ask the
/// store about once in this time. An older memory would only tell its own age.
const MEMORY: Duration = Duration::from_secs(1);
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
            self.look(|| async { Ok(state.get_within(DECLARED, MEMORY).await?.age) })
                .await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `ask` tells how old an answer of the state is.
    async fn look<F>(&self, ask: impl FnOnce() -> F)
    where
        F: Future<Output = Result<Duration, Error>>,
    {
        let asked = self.clock.unix_ms();
        if let Ok(Ok(age)) = tokio::time::timeout(ANSWER, ask()).await {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            self.saw(asked.saturating_sub(age));
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::UNIX_EPOCH;

    use hydrant_sdk::Code;

    use super::*;

    /// A node that answers from its memory where that is allowed, else from a store.
    struct Node {
        is_away: Cell<bool>,
        memory_unix_ms: Cell<i64>,
        clock: Clock,
    }

    impl Node {
        fn ask(&self, max_age: Duration) -> Result<Duration, Error> {
            let now = self.clock.unix_ms();
            let age = Duration::from_millis((now - self.memory_unix_ms.get()) as u64);
            if age <= max_age {
                return Ok(age);
            }
            if self.is_away.get() {
                return Err(Error::new(Code::Unavailable, "engine_unavailable", "away"));
            }
            self.memory_unix_ms.set(now);
            Ok(Duration::ZERO)
        }
    }

    #[tokio::test]
    async fn the_state_is_away_when_it_is_and_not_when_nothing_changes() {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(100));
        let node = Node {
            is_away: Cell::new(false),
            memory_unix_ms: Cell::new(0),
            clock: clock.clone(),
        };
        let sight = Sight::new(clock.clone());
        let after = async |seconds| {
            for _ in 0..seconds {
                clock.advance(Duration::from_secs(1));
                sight.look(|| async { node.ask(MEMORY) }).await;
            }
            sight.age()
        };
        assert_eq!(after(60).await, None, "nothing changes, and all is well");
        node.is_away.set(true);
        assert_eq!(after(3).await, None, "not worth a word yet");
        assert!(matches!(after(7).await, Some(10 | 11)));
        node.is_away.set(false);
        assert_eq!(after(1).await, None, "it is back");
    }
}
