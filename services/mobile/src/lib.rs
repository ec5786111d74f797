//! The service that a mobile app asks first when it starts: configuration, content and whatever
//! else it needs, from many sources, in one answer.
//!
//! `service/mobile` elects a leader; only the leader polls the sources and writes what it found,
//! the snapshot, to shared state. `api/mobile` is stateless: it watches the snapshot and answers
//! from it. So there is one poll per interval, however many instances there are, and a source that
//! fails never fails an answer: its last good value stays, marked stale.

mod alarms;
mod api;
mod bundle;
mod compiled;
mod configuration;
mod content;
mod demo;
mod documents;
mod evaluate;
mod experiments;
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod limits;
mod operations;
mod reading;
mod service;
mod settings;
mod sources;
mod upstream;
mod views;

pub use api::run_api;
pub use content::copy::{ImagesCopy, ImagesFound};
pub use content::edit as entry;
pub use demo::{DEMO, install_demo};
pub use experiments::set_members;
pub use keys::NewKey;
pub use service::run_service;
pub use sources::{SOURCES, Source, Sources, SourcesError};
pub use upstream::run_demo_upstream;

/// Makes all tables of `service/mobile` in a database, or brings them up.
///
/// # Errors
///
/// As [`Records::migrate`](hydrant_records::Records::migrate).
pub async fn make_tables(
    records: &hydrant_records::Records,
) -> Result<(), hydrant_records::RecordsError> {
    service::TABLES.make(records).await?;
    experiments::make_tables(records).await?;
    content::make_tables(records).await?;
    sources::make_tables(records).await
}

/// The messages and services of `service/mobile`, package `hydrant.mobile.v1`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    connectrpc::include_generated!();
    pub use self::hydrant::mobile::v1::*;
}

/// The version of the built-in services.
const VERSION: &str = env!("CARGO_PKG_VERSION");
