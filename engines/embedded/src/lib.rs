//! Coordination and state in one process, over one file.
//!
//! All that is kept lies in a [redb] file and, as a whole, in memory: reads never touch the disk,
//! so they never block an event loop. That is right for what a fleet coordinates by, and wrong for
//! a large data set; [`Limits`] bounds it.
//!
//! # What is durable when
//!
//! - `put` and `delete` of a kept key and of state, `raise`, and `take_seat` (its epoch) return
//!   after the commit that holds them has been synced to the disk. Writes that wait at the same
//!   time share one commit.
//! - Ephemeral keys, sessions and the holding of seats live in memory and end with the process.
//! - Revisions grow across all of it, also across a restart.
//! - The end of a key's time to live is stored as a time of day, so it goes on while the process
//!   is away, and moves with the machine's clock when that is set.
//!
//! # When the disk fails
//!
//! A write that can't be made durable fails with `Unavailable`, and so do those that waited with
//! it; whether they happened is known when the file could be read again, which every later write
//! and [`check`](hydrant_ports::Coordination::check) tries. Until then what is in memory is still
//! read, and sessions and seats live. `check` writes to the disk: it is not free.

mod config;
mod coordination;

mod disk;
mod error;
mod image;
mod queue;
mod seats;
mod state;
mod store;
mod writer;

pub use config::{Config, Limits};
pub use error::OpenError;

use std::path::PathBuf;
use std::sync::Arc;

use hydrant_ports::{Coordination, EngineError, Key, State};

use crate::store::Core;
use coordination::EmbeddedCoordination;
use state::EmbeddedState;

/// An open store. The engines that it hands out keep it open; when the last of them is dropped,
/// what was asked before is finished and the file is free again. That drop waits for the commit that
/// is under way; where waiting is not welcome, use [`close`](Self::close).
pub struct EmbeddedStore(Arc<Core>);

impl EmbeddedStore {
    /// Opens the store in the file `path` and makes it when it is not there. Blocks: it checks and
    /// reads the whole file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::open_with(Config::new(path))
    }

    /// As [`open`](Self::open), with all that can be set.
    pub fn open_with(config: Config) -> Result<Self, OpenError> {
        Core::open(config).map(|core| Self(Arc::new(core)))
    }

    /// Sessions, keys and seats.
    pub fn coordination(&self) -> Arc<dyn Coordination> {
        Arc::new(EmbeddedCoordination::new(self.0.clone()))
    }

    /// Shared state.
    pub fn state(&self) -> Arc<dyn State> {
        Arc::new(EmbeddedState::new(self.0.clone()))
    }

    /// Every mark that was ever raised, with its epoch, sorted by name. Fails when the store is
    /// closed.
    pub fn marks(&self) -> Result<Vec<(Key, u64)>, EngineError> {
        let marks = self.0.shared()?.marks();
        let mut marks: Vec<_> = marks
            .iter()
            .map(|(mark, epoch)| (mark.clone(), *epoch))
            .collect();
        marks.sort();
        Ok(marks)
    }

    /// Ends the store: what was asked before is finished, what is asked later fails with `Closed`.
    /// Sessions and seats are lost, watches end. The file is free when it returns.
    pub async fn close(self) {
        self.0.close().await;
    }
}
