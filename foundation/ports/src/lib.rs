//! The ports: what Hydrant asks of an engine, each with the promises that its callers build on.
//!
//! An engine that is not proved by the suites in [`contract`] does not exist.

mod error;
mod key;
mod watch;

pub mod coordination;
pub mod state;

#[cfg(feature = "contract")]
pub mod contract;

pub use coordination::Coordination;
pub use error::{EngineError, ErrorKind};
pub use key::{InvalidKey, Key, Prefix};
pub use state::State;
pub use watch::{Change, Watch, WatchSender, watch_channel};

use bytes::Bytes;

/// A value with the revision at which it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes that were written.
    pub value: Bytes,
    /// Grows with every write of this key, also across deletion; never 0.
    pub revision: u64,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full key.
    pub key: Key,
    /// The bytes that were written.
    pub value: Bytes,
    /// Grows with every write of this key, also across deletion; never 0.
    pub revision: u64,
}

/// What a key must be for a write to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Anything, or nothing.
    #[default]
    Any,
    /// The key does not exist.
    Absent,
    /// The key is at this revision.
    Revision(u64),
}
