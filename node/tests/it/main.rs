//! The local API with the embedded engine, asked by real clients over TCP.

mod authority;
mod election;
mod node;
mod pages;
mod registry;
mod sessions;
mod state;
mod supervisor;
mod support;
