//! Coordination on a ZooKeeper ensemble.
//!
//! What is kept where, below the chroot:
//!
//! ```text
//! keys/instances/api/greeter/=greeter-1      a key: its owner and its value
//! seats                                      the era
//! seats/elections/api/=greeter               a seat: its last epoch and who won it
//! seats/elections/api/=greeter/c-…-0000000007    who waits in its line
//! ```
//!
//! The engine has one session by which it reads, watches and writes kept keys, and one for each
//! session that is opened by the port. Directories stay when they are empty: there are as many as
//! there were ever services and seats.
//!
//! # Limits of the promises
//!
//! - An ensemble that is *restored from a backup* brings back old epochs. Delete the znode `seats`
//!   after that: the next engine makes it anew under a higher era.
//! - A session is suspended while no server answers, and lost when the ensemble says so or has not
//!   answered for 1.4 times the session's time to live. A seat is lost earlier: before the ensemble
//!   could give it to another.

mod config;
mod coordination;
mod dial;
mod era;
mod error;
mod holder;
mod hub;
mod leaf;
mod link;
mod path;
mod read;
mod seats;
mod session;
mod write;

pub use config::{Access, Config, Limits, Password, SessionTimes, Tls};
pub use coordination::ZookeeperCoordination;
