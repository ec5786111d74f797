//! Several routers in one process, each the node of a server of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_contracts::{Identity, Instance, Server, TokenKey};
use hydrant_router::{
    CertificateFiles, Config, InstanceStats, Limits, PeerConfig, PeerTls, Router, Table,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::raw::{SECRET, Wire, instance};

/// One server.
pub struct Node {
    pub name: String,
    pub router: Router,
}

/// Makes the proofs of servers.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            folder: TempDir::new().unwrap(),
            issuer: Issuer::new(params, key),
            pem: certificate.pem(),
        }
    }

    /// The proofs of a server, in files of their own.
    pub fn issue(&self, server: &str) -> PeerTls {
        self.issue_for(server, &format!("{server}.servers.hydrant"))
    }

    pub fn issue_for(&self, server: &str, name: &str) -> PeerTls {
        let folder = self.folder.path().join(server);
        fs::create_dir_all(&folder).unwrap();
        let files = PeerTls {
            server: server.parse().unwrap(),
            ca: folder.join("ca.pem"),
            certificate: folder.join("node.pem"),
            key: folder.join("node.key"),
        };
        fs::write(&files.ca, &self.pem).unwrap();
        self.write(&files, name);
        files
    }

    /// Signs a certificate and writes it with its key; `stem` names the files. One that is there is
    /// replaced as careful people do: no reader sees half of it.
    pub fn sign(&self, stem: &str, params: CertificateParams) -> CertificateFiles {
        let files = CertificateFiles {
            certificate: self.folder.path().join(format!("{stem}.pem")),
            key: self.folder.path().join(format!("{stem}.key")),
        };
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        replace(&files.certificate, &certificate.pem());
        replace(&files.key, &key.serialize_pem());
        files
    }

    /// The certificate of the authority itself, in a file.
    pub fn file(&self) -> PathBuf {
        let path = self.folder.path().join("authority.pem");
        fs::write(&path, &self.pem).unwrap();
        path
    }

    /// Puts a new certificate and key in the place of those that are there.
    pub fn write(&self, files: &PeerTls, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
    }
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// All servers of a test.
pub struct Fleet {
    pub nodes: Vec<Node>,
}

impl Node {
    pub fn start(name: &str, tls: Option<PeerTls>, limits: Limits) -> Self {
        Self::start_at(name, ([127, 0, 0, 1], 0).into(), tls, limits)
    }

    pub fn start_at(name: &str, listen: SocketAddr, tls: Option<PeerTls>, limits: Limits) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let router = Router::start(Config {
            public: any,
            secure: None,
            local: any,
            peer: Some(PeerConfig { listen, tls }),
            workers: 1,
            key: TokenKey::new(&SECRET),
            limits,
            proxies: hydrant_router::Proxies::default(),
            expected: Vec::new(),
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

    /// Every way in which nodes speak with each other, for tests that hold for all.
    pub fn both(names: &[&str]) -> [Self; 2] {
        let authority = Authority::new();
        [
            Self::start(names),
            Self::with(names, |name| Some(authority.issue(name)), Limits::default()),
        ]
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
        rules: Arc::default(),
    });
}

/// An instance of `api/t` on a server.
pub fn on(server: &str, id: &str, address: SocketAddr) -> Instance {
    Instance {
        server: server.into(),
        ..instance(id, address)
    }
}

/// How many requests failed so at an instance.
pub fn errors(stats: &InstanceStats, name: &str) -> u64 {
    stats.errors.get(name).copied().unwrap_or(0)
}

pub fn token(who: &str) -> String {
    let identity = match who {
        "operator" => Identity::Operator,
        service => Identity::Service(service.parse().unwrap()),
    };
    TokenKey::new(&SECRET).issue(&identity)
}
