use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{ServerName, TokenKey, ZoneName};
use hydrant_ports::{Coordination, State};
use hydrant_runtime::Clock;

use crate::exports::ExportsConfig;
use crate::supervisor::ServiceSpec;

/// What stands behind the ports of a node.
#[derive(Clone)]
pub struct Engines {
    /// Who is there, who leads, who holds what.
    pub coordination: Arc<dyn Coordination>,
    /// Bytes by key that the fleet shares.
    pub state: Arc<dyn State>,
}

/// How long coordination waits for a silent node when nothing else is set.
pub const SESSION: Duration = Duration::from_secs(10);

/// How a node lives with the nodes of other servers.
#[derive(Clone)]
pub struct FleetConfig {
    /// Where it listens for them; port 0 takes a free one.
    pub peer: SocketAddr,
    /// Where they are told to find it; `None` tells them where it listens.
    pub advertise: Option<SocketAddr>,
    /// How nodes prove themselves to each other; `None` speaks in clear text, which is for the
    /// loopback only.
    pub tls: Option<hydrant_router::PeerTls>,
    /// Makes and checks the tokens of the whole fleet.
    pub key: TokenKey,
}

/// How a node is set up.
#[derive(Clone)]
pub struct NodeConfig {
    /// The name of this server in the fleet.
    pub server: ServerName,
    /// Where it stands.
    pub zone: ZoneName,
    /// How it lives with other servers; `None` for one that is alone.
    pub fleet: Option<FleetConfig>,
    /// How long coordination waits for a silent node before it gives up what hangs on its session.
    pub session: Duration,
    /// The data folder; made when it is not there.
    pub data: PathBuf,
    /// Where the outside comes in; port 0 takes a free one.
    pub public: SocketAddr,
    /// Where the outside comes in by TLS; `None` where it does not.
    pub secure: Option<hydrant_router::SecureConfig>,
    /// Who stands in front of `public` and `secure`.
    pub proxies: hydrant_router::Proxies,
    /// Where the services of this server come in; on the loopback.
    pub local: SocketAddr,
    /// How many event loops the router has.
    pub workers: usize,
    /// Bounds of the router on sizes, counts and times.
    pub limits: hydrant_router::Limits,
    /// The services that the node starts and keeps running.
    pub services: Vec<ServiceSpec>,
    /// The program with the command `run`, which starts plain web servers.
    pub program: PathBuf,
    /// How long services live without a node.
    pub grace: Duration,
    /// How much the local API gives to its callers.
    pub quotas: Quotas,
    /// Where logs and metrics go to.
    pub exports: ExportsConfig,
    /// The share of requests that a line is logged for, between 0 and 1.
    pub access_log: f64,
    /// The time of day.
    pub clock: Clock,
}

impl NodeConfig {
    /// A node on free ports of the loopback that supervises nothing.
    pub fn new(server: ServerName, data: impl Into<PathBuf>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            server,
            zone: ZoneName::default(),
            fleet: None,
            session: SESSION,
            data: data.into(),
            public: free,
            secure: None,
            proxies: hydrant_router::Proxies::default(),
            local: free,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: hydrant_router::Limits::default(),
            services: Vec::new(),
            program: crate::supervisor::own_program(),
            grace: Duration::from_secs(30),
            quotas: Quotas::default(),
            exports: ExportsConfig::default(),
            access_log: 0.0,
            clock: Clock::system(),
        }
    }
}

/// How many things of the local API are held at a time, by one caller and by all.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Registrations, candidacies and locks of one caller.
    pub leases_per_caller: usize,
    /// Registrations, candidacies and locks of all.
    pub leases: usize,
    /// Watches, observations and followed logs of one caller.
    pub watches_per_caller: usize,
    /// Watches, observations and followed logs of all.
    pub watches: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            leases_per_caller: 1000,
            leases: 10_000,
            watches_per_caller: 1000,
            watches: 10_000,
        }
    }
}
