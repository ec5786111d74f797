use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::name::{ServerName, Version, ZoneName};
use crate::proto;

/// A server of the fleet whose node is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its name, unique in the fleet.
    pub name: ServerName,
    /// Where it stands.
    pub zone: ZoneName,
    /// Where the nodes of other servers reach its node; `None` where there are no others.
    pub peer: Option<SocketAddr>,
    /// The version of its node.
    pub version: Version,
    /// When its node started, in milliseconds since 1970.
    pub since_unix_ms: i64,
    /// The process id of its node.
    pub pid: u32,
}

impl From<&Server> for proto::Server {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.to_string(),
            zone: server.zone.to_string(),
            peer: server.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            version: server.version.to_string(),
            since_unix_ms: server.since_unix_ms,
            pid: server.pid,
            ..Default::default()
        }
    }
}
