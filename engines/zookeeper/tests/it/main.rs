//! The engine against real servers.

mod contract;
mod eras;
mod refusals;
mod sessions;
mod support;
mod watches;
mod writes;
