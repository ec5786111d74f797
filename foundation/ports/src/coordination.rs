//! Coordination: who is there, who leads, who holds what.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{EngineError, Entry, Expect, Key, Prefix, Versioned, Watch};

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// Small keys that the whole fleet agrees on: ephemeral ones that live as long as a session, and
/// kept ones.
///
/// # Promises
///
/// - A kept key's write is durable when its call returns: it outlives a crash of the engine's
///   process. An ephemeral key is never durable; it is gone when its session is lost or closed,
///   and after a restart of an embedded engine.
/// - Writes of one key are in order, and each has a higher revision than the one before, also
///   when the key was deleted in between.
/// - A watch begins with all that is there, and converges to the truth: changes that follow each
///   other fast may be told as one, but the last one is told. It says nothing of the order of
///   changes of different keys.
/// - An epoch of an election, and a fence of a lock, is higher than every earlier one of the same
///   name, also after a restart of the engine, and when the engine was rebuilt from nothing. At
///   most 2^53, so that every language can carry it.
/// - At most one seat of a name is held at a time as the engine sees it. A holder that was paused
///   may believe in a seat that it has lost: only the epoch, checked where the write happens,
///   stops it.
#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// The engine's name, for people.
    fn name(&self) -> &'static str;

    /// Opens a session. `owner` names the process that opens it, over its restarts: a session takes
    /// over the ephemeral keys that an earlier session of its owner put and the engine has not
    /// given up yet. Two processes at a time must not be one owner. `ttl` is how long the engine
    /// waits for the session's process before it calls the session lost; an embedded engine shares
    /// the fate of its process and ignores it.
    async fn open_session(
        &self,
        owner: &str,
        ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError>;

    /// Reads a key.
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError>;

    /// Everything below a prefix, sorted by key.
    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError>;

    /// Tells all that is below a prefix, then every change of it.
    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError>;

    /// Writes a kept key and returns its revision. Fails with `Conflict` when the key is not what
    /// was expected, or is an ephemeral one.
    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError>;

    /// Deletes a kept or ephemeral key; tells whether it was there.
    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError>;

    /// Who holds a seat; `None` while nobody does.
    async fn holder(&self, seat: &SeatName)
    -> Result<watch::Receiver<Option<Holder>>, EngineError>;

    /// Fails when the engine can't do its work now.
    async fn check(&self) -> Result<(), EngineError>;
}

/// A presence in the engine. Closing or dropping it gives up all that it holds.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// How the session is. `Lost` is final.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// Writes a key that is gone with the session, and returns its revision. Fails with
    /// `Conflict` when the key is not what was expected, is a kept one, or belongs to a session of
    /// another owner. A key of an earlier session of the same owner is taken over in one step: no
    /// reader and no watcher sees it absent, and the end of that session does not take it away.
    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError>;

    /// Waits in line for a seat and takes it. Dropping the future leaves the line.
    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError>;

    /// Gives up all that the session holds.
    async fn close(&self);
}

/// How a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The engine answers.
    Connected,
    /// The engine does not answer; what the session holds may still be there.
    Suspended,
    /// The engine has given away what the session held, or may have. Final.
    Lost,
}

/// What can be held by one at a time: the leadership of an election, or a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeatName(pub Key);

/// Who holds a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// As it was named when it asked.
    pub name: String,
    /// The epoch under which it holds.
    pub epoch: u64,
}

/// A seat that is held. Dropping it gives it up.
#[async_trait]
pub trait Seat: Send + Sync + 'static {
    /// Higher than that of every earlier holder of the same seat.
    fn epoch(&self) -> u64;

    /// Resolves when the seat is lost, or may be.
    async fn lost(&self);

    /// Gives it up, and returns when the engine knows.
    async fn give_up(self: Box<Self>);
}
