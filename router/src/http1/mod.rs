//! HTTP/1.1, by hand: strict where two parties could read a message differently, and without a
//! copy, a buffer or a call of the kernel that is not needed.

pub mod body;
mod connection;
mod deliver;
mod exchange;
mod forward;
pub mod head;
mod refuse;
mod request;
pub mod response;
mod tunnel;

pub use forward::{Forward, Way};

pub(crate) use connection::{serve, turn_away};
