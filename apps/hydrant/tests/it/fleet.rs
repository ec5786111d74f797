//! Several servers, each with a node, that share ZooKeeper and Redis.

pub mod echo;
pub mod engines;
mod lost_server;
mod many;
pub mod outage;
mod smoke;
