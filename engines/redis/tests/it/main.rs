//! The engine on real Redis servers.

mod contract;
mod errors;
mod failover;
mod faults;
mod servers;
mod tls;
mod watches;
