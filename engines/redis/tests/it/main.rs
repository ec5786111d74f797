//! The engine on real Redis servers.

mod contract;
mod errors;
mod servers;
