//! Several routers in one process, each the node of a server of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use hydrant_contracts::{Identity, Instance, Server, TokenKey};
use hydrant_router::{Config, Limits, PeerConfig, PeerTls, Router, Table};

use crate::raw::{SECRET, Wire, instance};

/// One server.
pub struct Node {
    pub name: String,
    pub router: Router,
}

/// All servers of a test.
pub struct Fleet {
    pub nodes: Vec<Node>,
}

impl Node {
    pub fn start(name: &str, tls: Option<PeerTls>, limits: Limits) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let router = Router::start(Config {
            public: any,
            local: any,
            peer: Some(PeerConfig { listen: any, tls }),
            workers: 1,
            key: TokenKey::new(&SECRET),
            limits,
        });
        Self {
            name: name.into(),
            router: router.unwrap(),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.router.peer_addr().unwrap()
    }

    pub fn public(&self) -> Wire {
        Wire::connect(self.router.public_addr())
    }

    pub fn local(&self) -> Wire {
        Wire::connect(self.router.local_addr())
    }
}

impl Fleet {
    /// Servers that speak in clear text.
    pub fn start(names: &[&str]) -> Self {
        Self::with(names, |_| None, Limits::default())
    }

    pub fn with(names: &[&str], tls: impl Fn(&str) -> Option<PeerTls>, limits: Limits) -> Self {
        let start = |name: &&str| Node::start(name, tls(name), limits.clone());
        Self {
            nodes: names.iter().map(start).collect(),
        }
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    pub fn servers(&self) -> Vec<Arc<Server>> {
        let server = |node: &Node| server(&node.name, node.peer());
        self.nodes.iter().map(server).collect()
    }

    /// Tells every node the same instances.
    pub fn publish(&self, instances: &[Instance]) {
        let servers = self.servers();
        for node in &self.nodes {
            publish(node, &servers, instances);
        }
    }

    /// Takes a server away as a killed process goes: connections break.
    pub fn kill(&mut self, name: &str) {
        self.nodes.retain(|node| node.name != name);
    }
}

pub fn server(name: &str, peer: SocketAddr) -> Arc<Server> {
    Arc::new(Server {
        name: name.parse().unwrap(),
        zone: "here".parse().unwrap(),
        peer: Some(peer),
        version: "1.0.0".parse().unwrap(),
        since_unix_ms: 1,
        pid: 1,
    })
}

/// Tells one node.
pub fn publish(node: &Node, servers: &[Arc<Server>], instances: &[Instance]) {
    node.router.publish(&Table {
        own: node.name.parse().unwrap(),
        servers: servers.to_vec(),
        instances: instances.iter().cloned().map(Arc::new).collect(),
    });
}

/// An instance of `api/t` on a server.
pub fn on(server: &str, id: &str, address: SocketAddr) -> Instance {
    Instance {
        server: server.into(),
        ..instance(id, address)
    }
}

pub fn token(who: &str) -> String {
    let identity = match who {
        "operator" => Identity::Operator,
        service => Identity::Service(service.parse().unwrap()),
    };
    TokenKey::new(&SECRET).issue(&identity)
}
