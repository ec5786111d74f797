//! Shared state: bytes by key.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{EngineError, Entry, Expect, Key, Prefix, Watch};

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 4 * 1024 * 1024;

/// State that the processes of a fleet share.
///
/// # Promises
///
/// - A write is durable when its call returns: it outlives a crash of the engine's process, and,
///   with the embedded engine, of the machine. An engine that can lose an acknowledged write, as
///   in a fail-over to a replica, says so in its own documentation, with the window; it tells it by
///   [`State::failovers`] so that marks are raised again, and it never shows a reader a key under a
///   lower epoch than that reader has seen of it.
/// - Writes of one key are in order, and each has a higher revision than the one before, also
///   when the key was deleted or ran out in between.
/// - A mark is the highest epoch of its name that was raised or written under. Once `raise`
///   returns, every write under a lower epoch of that name is refused, on every key, whether the
///   new holder has touched it or not. The check and the write are one atomic step.
/// - A key whose time to live is over is not read any more, and its watchers are told soon.
/// - A watch begins with all that is there and converges to the truth, as in
///   [`Coordination`](crate::Coordination).
#[async_trait]
pub trait State: Send + Sync + 'static {
    /// The engine's name, for people.
    fn name(&self) -> &'static str;

    /// Reads a key.
    async fn get(&self, key: &Key) -> Result<Option<StateEntry>, EngineError>;

    /// Writes a key and returns its revision. Fails with `Conflict` or `Superseded`.
    async fn put(&self, key: &Key, value: Bytes, options: Put) -> Result<u64, EngineError>;

    /// Deletes a key; tells whether it was there.
    async fn delete(
        &self,
        key: &Key,
        expect: Expect,
        under: Option<Under>,
    ) -> Result<bool, EngineError>;

    /// At most `limit` keys below a prefix, sorted, behind `after`.
    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, EngineError>;

    /// Tells all that is below a prefix, then every change of it.
    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError>;

    /// Raises the mark to `epoch`. Fails with `Superseded` when it is already higher.
    async fn raise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError>;

    /// The highest epoch that is known; 0 when none is.
    async fn mark(&self, mark: &Key) -> Result<u64, EngineError>;

    /// Grows whenever acknowledged writes may have been lost: caches are void, and who holds a
    /// seat raises its mark again. The sender is gone where that can't happen.
    fn failovers(&self) -> watch::Receiver<u64>;

    /// Fails when the engine can't do its work now.
    async fn check(&self) -> Result<(), EngineError>;
}

/// How a key is written.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// What the key must be.
    pub expect: Expect,
    /// How long it lives; `None` until it is deleted.
    pub ttl: Option<Duration>,
    /// The epoch under which the writer acts.
    pub under: Option<Under>,
}

/// A write under an epoch: refused when a higher one of the same mark is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Under {
    /// The election or lock that the epoch belongs to.
    pub mark: Key,
    /// The writer's epoch.
    pub epoch: u64,
}

/// A key of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The key, its value and its revision.
    pub entry: Entry,
    /// How long it has to live; `None` until it is deleted.
    pub ttl: Option<Duration>,
}
