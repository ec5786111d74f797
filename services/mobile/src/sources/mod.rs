//! The sources: JSON documents from somewhere else that are part of the answer. The leader of
//! `service/mobile` asks each at its interval; what it found stands in shared state.

mod address;
pub(crate) mod answer;
pub(crate) mod board;
mod courier;
mod definition;
mod fetch;
mod http;
mod keep;
mod poll;
mod schema;
pub(crate) mod snapshot;

pub(crate) use courier::{Brought, Courier, Order};
pub use definition::{SOURCES, Source, Sources, SourcesError};
pub(crate) use fetch::{Asker, Errands, Fetcher};
pub(crate) use keep::make_tables;
pub(crate) use poll::Poller;
