//! The service that a mobile app asks first when it starts: configuration, content and whatever
//! else it needs, from many sources, in one answer.
//!
//! `service/mobile` elects a leader; only the leader polls the sources and writes what it found,
//! the snapshot, to shared state. `api/mobile` is stateless: it watches the snapshot and answers
//! from it. So there is one poll per interval, however many instances there are, and a source that
//! fails never fails an answer: its last good value stays, marked stale.

mod api;
mod compose;
mod conditional;
mod demo;
mod fetch;
mod parameters;
mod poll;
mod sight;
mod snapshot;
mod sources;
mod upstream;

pub use api::run_api;
pub use demo::install_demo;
pub use poll::run_service;
pub use sources::{SOURCES, Source, Sources, SourcesError};
pub use upstream::run_demo_upstream;

/// The version of the built-in services.
const VERSION: &str = env!("CARGO_PKG_VERSION");
