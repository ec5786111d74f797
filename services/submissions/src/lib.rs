//! Submissions: forms with attachments that clients send over bad lines, accepted once, delivered in
//! order, never lost.
//!
//! `api/submissions` is stateless: it checks what comes and passes it on. `service/submissions` owns the
//! tables and the object stores, and says 201 only after a transaction is durable.
//! `orchestration/delivery` leases what was submitted and brings it to the consumers: to the REST consumer
//! first, which gives the reference number, then to the others.

mod api;
mod attachments;
mod audit;
mod client;
mod delivery;
mod demo;
mod demo_consumer;
mod exposure;
mod forms;
mod receipt;
mod service;
mod sites;

pub use api::run_api;
pub use delivery::run_delivery;
pub use demo::install_demo;
pub use demo_consumer::run_demo_consumer;
pub use forms::FORMS;
pub use receipt::{CheckedHop, CheckedReceipt, check_receipt};
pub use service::run_service;

/// The messages and services of `service/submissions`, package `hydrant.submissions.v1`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    connectrpc::include_generated!();
    pub use self::hydrant::submissions::v1::*;
}

/// The version of the built-in services.
const VERSION: &str = env!("CARGO_PKG_VERSION");
