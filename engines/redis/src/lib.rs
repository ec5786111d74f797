//! State on Redis: one server, a master with Sentinels, or a cluster.

mod address;
mod config;
mod core;
mod dial;
mod error;
mod keeper;
mod message;
mod names;
mod requests;
mod seen;
mod server;
mod state;
mod topology;
mod view;
mod watcher;

pub use config::{Config, Mode, Secret, Tls};
pub use state::RedisState;

/// What has happened since the engine was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that the connected replicas did not confirm in time.
    pub unconfirmed_writes: u64,
    /// Reads that were refused since the key had been seen under a higher epoch.
    pub hidden_reads: u64,
    /// How often messages were found to be lost, and all was compared.
    pub lost_messages: u64,
    /// How often changes were subscribed to.
    pub subscriptions: u64,
}
