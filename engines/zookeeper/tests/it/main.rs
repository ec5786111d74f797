//! The engine against real servers.

mod contract;
mod support;
