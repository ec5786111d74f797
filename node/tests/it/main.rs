//! The local API with the embedded engine, asked by real clients over TCP.

mod authority;
mod election;
mod fleet;
mod kept;
mod node;
mod pages;
mod peers;
mod registry;
mod sessions;
mod shaky;
mod shared_state;
mod state;
mod supervisor;
mod support;
