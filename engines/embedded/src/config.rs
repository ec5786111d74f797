use std::path::PathBuf;

use hydrant_runtime::Clock;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file; its folder must be there.
    pub path: PathBuf,
    /// What it may hold.
    pub limits: Limits,
    /// Tells when the time of a key is over.
    pub clock: Clock,
}

impl Config {
    /// The store in the file `path`, with the default limits and the machine's clock.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            limits: Limits::default(),
            clock: Clock::system(),
        }
    }
}

/// What a store may hold. It is in memory as a whole, so these bound the memory too. A write above
/// a limit fails with `TooLarge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Coordination, in bytes: keys, values and [`RECORD_OVERHEAD`](Self::RECORD_OVERHEAD) each.
    pub coordination: usize,
    /// State, in bytes, counted the same way.
    pub state: usize,
    /// How many names seats may have ever had, and how many marks may have been raised: an epoch
    /// is never forgotten.
    pub names: usize,
    /// How many wait in line for one seat.
    pub line: usize,
    /// How many sessions are open.
    pub sessions: usize,
    /// How many watch coordination, and how many watch state.
    pub watchers: usize,
}

impl Limits {
    /// What a key costs beside its bytes and those of its value.
    pub const RECORD_OVERHEAD: usize = 128;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            coordination: 64 << 20,
            state: 256 << 20,
            names: 1 << 20,
            line: 4096,
            sessions: 1 << 16,
            watchers: 1 << 14,
        }
    }
}
