//! What a service author imports: declare a service, call others, lead, lock, share state.
//!
//! A service talks to the node on its own server and to nothing else. [`Service`] declares what a
//! process answers and runs it; [`Hydrant`] is the way from it to everything else.

mod client;
mod clock;
mod config;
mod context;
mod discovery;
mod duty;
mod election;
mod gauge;
mod idempotency;
mod kept;
mod lease;
mod lock;
mod problem;
mod registration;
mod seat;
mod server;
mod service;
mod state;
mod transport;
mod watching;

pub use client::{Call, Hydrant};
pub use config::Config;
pub use context::{Context, spawn, spawn_blocking};
pub use discovery::{InstanceChange, InstanceWatch};
pub use duty::{Duty, Term, turns};
pub use election::{Leader, Leadership, Observation};
pub use gauge::Gauge;
pub use hydrant_contracts::{
    Caller, Code, CorrelationId, Endpoint, Error, Fault, Identity, Instance, InstanceId,
    InstanceState, Method, PathPrefix, Pattern, RepeatablePath, ServiceId, ServiceName, Tier,
    Timeout, TraceParent, Version,
};
pub use hydrant_runtime::{Client, Redaction};
pub use idempotency::{
    Attempt, Guarded, IDEMPOTENCY_LEASE, IDEMPOTENCY_REMEMBERED, IDEMPOTENCY_REPLAYED, Idempotency,
    idempotency_key,
};
pub use kept::{Kept, KeptValue};
pub use lock::Lock;
pub use problem::Problem;
pub use registration::Registration;
pub use service::Service;
pub use state::{Entry, Seat, Seen, State, StateChange, StateWatch};
pub use transport::Transport;

/// The web framework that [`Service::http`] takes its routes from.
pub use axum;
