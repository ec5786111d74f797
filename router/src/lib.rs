//! The data plane: a routing snapshot in, traffic through. It knows nothing of engines.
//!
//! A request goes down once and comes back once: it is read, `identity` says who sent it,
//! `decide` finds the endpoint and checks the tiers, `balance` chooses an instance, and
//! `instance` counts. On the way it meets no lock and no global.

mod alarms;
mod answer;
pub mod balance;
mod budget;
mod clock;
mod counter;
pub mod decide;
mod ejection;
mod endpoint;
pub mod explain;
mod fleet;
#[doc(hidden)]
pub mod fuzz;
mod histogram;
mod http1;
mod http2;
mod identity;
mod instance;
mod limit;
mod listen;
mod names;
mod origin;
mod outlier;
mod passing;
mod path;
mod peer;
mod priority;
mod probe;
mod proxies;
mod refusal;
mod retry;
mod rule;
mod scratch;
mod service;
mod shed;
mod snapshot;
mod sockets;
mod splice;
pub mod stats;
mod stream;
mod table;
mod tls;
mod totals;
mod upstream;
mod visitors;
mod worker;

pub use answer::{Answer, Style};
pub use budget::Budget;
pub use clock::Moment;
pub use decide::{Listener, Route};
pub use endpoint::{EndpointId, ServiceLive};
pub use explain::Explanation;
pub use identity::{Identities, Who};
pub use instance::{ErrorKind, InFlight, Live};
pub use listen::{Config, Limits, PeerConfig, Plain, Router, SecureConfig, StartError};
pub use passing::{Heard, Passed, Tap, Taps};
pub use peer::{Nearness, Peer, Reach};
pub use priority::Priority;
pub use probe::ProbeQueue;
pub use proxies::{Network, NetworkError, Proxies, Told, Written};
pub use refusal::{Elsewhere, Reason, Refusal, Unsent};
pub use service::{Candidates, Endpoint, EndpointKind, Groups, Instance, Service};
pub use snapshot::Snapshot;
pub use sockets::{Gate, Sockets, UnknownGate};
pub use stats::{EndpointStats, InstanceStats};
pub use table::Table;
pub use tls::{
    CertificateFiles, ClientCertificates, FileError, MinimumVersion, PeerTls, PublicTls,
    PublicTlsError, TlsError,
};
pub use totals::Totals;
