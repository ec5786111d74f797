//! What every process of Hydrant needs to run: shutdown, clock, back-off, units, configuration
//! files and telemetry.

mod backoff;
mod clock;
pub mod config;
mod shutdown;
pub mod telemetry;
mod units;

pub use backoff::Backoff;
pub use clock::Clock;
pub use shutdown::{Shutdown, termination_signal};
pub use units::{ByteSize, Duration, InvalidUnit};
