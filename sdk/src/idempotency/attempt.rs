use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::SteadyClock;

tokio::task_local! {
    static CURRENT: Attempt;
}

/// One run of a handler under a key. In a handler of axum it is an `Extension<Attempt>`, everywhere
/// [`Attempt::current`].
#[derive(Clone, Debug)]
pub struct Attempt {
    key: Arc<str>,
    epoch: u64,
    held: Held,
}

impl Attempt {
    pub(super) fn new(key: &str, epoch: u64, held: Held) -> Self {
        Self {
            key: key.into(),
            epoch,
            held,
        }
    }

    /// The attempt in which this runs; `None` when the request had no key.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// What the client calls its request: the same in all attempts. Two callers may use the same.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Higher than that of every earlier attempt under the same key. Whatever the handler changes may refuse a
    /// lower one, so that an attempt which was paused changes nothing after another took over.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether another attempt may have taken over. Reads the clock, so that a process which was stopped knows
    /// at once.
    pub fn is_lost(&self) -> bool {
        self.held.is_over()
    }

    pub(super) async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }
}

/// Until when a key is held, by the clock of this process.
#[derive(Clone, Debug)]
pub(super) struct Held {
    clock: SteadyClock,
    until_ms: Arc<AtomicU64>,
}

impl Held {
    /// Held for `lease` since `asked`, when the write was begun.
    pub(super) fn since(clock: SteadyClock, asked: Duration, lease: Duration) -> Self {
        let held = Self {
            clock,
            until_ms: Arc::default(),
        };
        held.renew(asked, lease);
        held
    }

    pub(super) fn renew(&self, asked: Duration, lease: Duration) {
        let until = u64::try_from((asked + lease).as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(until, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.clock.now().as_millis() >= u128::from(self.until_ms.load(Ordering::Acquire))
    }
}
