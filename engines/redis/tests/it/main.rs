//! The engine on real Redis servers.

mod contract;
mod errors;
mod failover;
mod faults;
mod fence;
mod servers;
mod tls;
mod watches;
