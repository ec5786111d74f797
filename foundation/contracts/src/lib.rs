//! What crosses a process: names, messages, errors, context and tokens.
//!
//! Names are parsed once, at the edge, and carried as types from there on.

pub mod bucket;
mod context;
mod endpoint;
mod error;
mod grpc;
mod instance;
mod name;
mod pattern;
pub mod rules;
mod server;
mod tier;
mod token;

pub use context::{CorrelationId, Timeout, TraceParent, header};
pub use endpoint::{Endpoint, MethodPath};
pub use error::{Code, Error, Fault};
pub use instance::{Instance, InstanceState, Method, PathPrefix, RepeatablePath};
pub use name::{InstanceId, InvalidName, ServerName, ServiceId, ServiceName, Version, ZoneName};
pub use pattern::Pattern;
pub use server::Server;
pub use tier::Tier;
pub use token::{Caller, Identity, InvalidToken, TokenKey};

/// The messages and services of the node's local API, package `hydrant.v1`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    connectrpc::include_generated!();
    pub use self::hydrant::v1::*;
}

/// The name under which the node registers itself, in every tier's reach: `/service/node/…`.
pub const NODE_SERVICE: &str = "node";
