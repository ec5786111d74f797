//! The agent of a server: it serves the local API, registers the instances of its server, feeds
//! the router, supervises services, and tells how all of it is.

mod agent;
mod config;
mod deadline;
mod entries;
mod error;
mod exports;
mod gauges;
mod health;
mod identity;
mod instances;
mod leases;
mod local_api;
pub mod logs;
mod metrics;
mod near_cache;
mod node;
mod passing;
pub mod process;
mod quota;
mod registration;
mod rules;
mod seats;
mod servers;
mod session;
mod supervision;
pub mod supervisor;
mod table;
mod traffic;

pub use agent::{Agent, Legacy, Parts};
pub use config::{Engines, FleetConfig, NodeConfig, Quotas, SESSION};
pub use error::StartError;
pub use exports::{Exports, ExportsConfig, GraphiteConfig, SplunkConfig, collector_url};
pub use identity::{IdentityError, load_or_create_key, write_operator_token};
pub use node::{Inheritance, Node, Retired};
pub use process::Limits;
pub use supervision::Supervision;
pub use supervisor::{MAX_INSTANCES, ServiceSpec};
pub use traffic::Traffic;
