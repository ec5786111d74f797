//! What every process of Hydrant needs to run: shutdown, clock, back-off, units, configuration
//! files and telemetry.

mod backoff;
mod causes;
pub mod client;
mod clock;
pub mod config;
pub mod redaction;
mod shutdown;
pub mod telemetry;
mod units;

pub use backoff::Backoff;
pub use causes::with_causes;
pub use client::{Client, ClientHeaders};
pub use clock::Clock;
pub use redaction::Redaction;
pub use shutdown::{Shutdown, termination_signal};
pub use units::{ByteSize, Duration, InvalidUnit};
