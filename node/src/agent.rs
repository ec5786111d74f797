//! The local API with what stands behind it: registrations, seats, state and the routing table.
//! It is the node without its router and its supervisor, which it sees as traits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use hydrant_contracts::rules::RuleSet;
use hydrant_contracts::{
    Error, Instance, InstanceId, InstanceState, PathPrefix, Server, ServerName, ServiceId,
    TokenKey, Version, ZoneName,
};
use hydrant_runtime::{Clock, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::config::{Engines, Quotas};
use crate::deadline::bounded;
use crate::entries::Entries;
use crate::error::StartError;
use crate::exports::Exports;
use crate::gauges::Gauges;
use crate::health::{self, Health};
use crate::identity::{Authority, node_service};
use crate::leases::Leases;
use crate::local_api::{self, LocalApi};
use crate::near_cache::NearCache;
use crate::quota::Quota;
use crate::registration::{self, Inherited, Registrations};
use crate::rules::{self, Rules};
use crate::seats::Seats;
use crate::session::Presence;
use crate::supervision::Supervision;
use crate::table::Table;
use crate::traffic::Traffic;

/// How long the tasks may take to give up what they hold.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// How long coordination may take to end the session. When it is away, it does that by itself.
const CLOSE_WITHIN: Duration = Duration::from_millis(700);

/// What an agent leaves to the one that follows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Legacy {
    /// Which process of the server it is, where its session goes on until the next one has taken all over.
    incarnation: Option<String>,
    /// What is registered with it.
    instances: Vec<Inherited>,
}

/// What an agent is built of.
pub struct Parts {
    /// The name of this server in the fleet.
    pub server: ServerName,
    /// Where it stands.
    pub zone: ZoneName,
    /// Where the nodes of other servers reach this one; `None` where there are no others.
    pub peer: Option<SocketAddr>,
    /// How long coordination waits for a silent node.
    pub session: Duration,
    /// What is taken over of the agent that had this server before.
    pub before: Legacy,
    /// Checks and makes tokens.
    pub key: TokenKey,
    /// What stands behind the ports.
    pub engines: Engines,
    /// The router.
    pub traffic: Arc<dyn Traffic>,
    /// The supervisor.
    pub supervision: Arc<dyn Supervision>,
    /// The ports of the router's own listeners, where no instance can be.
    pub router_ports: Vec<u16>,
    /// How much the local API gives to its callers.
    pub quotas: Quotas,
    /// What goes to other systems, to be counted.
    pub exports: Exports,
    /// The time of day.
    pub clock: Clock,
}

/// A running local API.
pub struct Agent {
    /// The local API, as the router sees it.
    own: Arc<Instance>,
    presence: Arc<Presence>,
    registrations: Arc<Registrations>,
    table: Arc<Table>,
    near: Arc<NearCache>,
    health: Arc<Health>,
    shutdown: Shutdown,
}

impl Agent {
    /// Opens the node's session, listens on a free port of the loopback, and feeds the router: it
    /// routes to the local API when this returns.
    pub async fn start(mut parts: Parts) -> Result<Self, StartError> {
        parts.engines = bounded(&parts.engines);
        let coordination = parts.engines.coordination.clone();
        let (server, before) = (own_server(&parts), parts.before.incarnation.take());
        let presence = Presence::open(coordination, server, before, parts.session).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(StartError::Api)?;
        let rules = rules::first(&*parts.engines.coordination).await;
        let agent = Self::new(&parts, presence, rules, &listener)?;
        let api = agent.local_api(&parts);
        let inherited = std::mem::take(&mut parts.before.instances);
        agent.run(parts, listener, api.into_router());
        agent.registrations.inherit(inherited).await;
        agent.table.begun().await;
        Ok(agent)
    }

    /// Where the local API listens.
    pub fn address(&self) -> SocketAddr {
        self.own.address
    }

    /// Takes an instance out of the routing table and waits until its last request is done, at
    /// most for `limit`. Returns how many are left.
    pub async fn drain(&self, instance: &InstanceId, limit: Duration) -> Result<u64, Error> {
        self.registrations.drain_instance(instance, limit).await
    }

    /// Resolves when the instance is in the routing table as ready.
    pub async fn ready(&self, instance: &InstanceId) {
        self.table.has_ready(instance).await;
    }

    /// How the node is, and what it counts.
    pub(crate) fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Ends every lease and every stream, and gives up the session.
    pub async fn stop(&self) {
        self.end().await;
        self.close().await;
    }

    /// Ends every lease and every stream; tells what the next one is to take over. With `keeps_session`, what the
    /// session holds stays in coordination until then.
    pub(crate) async fn retire(&self, keeps_session: bool) -> Legacy {
        let legacy = Legacy {
            incarnation: keeps_session.then(|| self.presence.incarnation().to_owned()),
            instances: self.registrations.inheritance(),
        };
        self.end().await;
        if !keeps_session {
            self.close().await;
        }
        legacy
    }

    async fn end(&self) {
        self.shutdown.begin();
        if !self.shutdown.finished(STOP_WITHIN).await {
            tracing::warn!("some streams of the local API did not end in time");
        }
    }

    /// Gives up the session.
    pub(crate) async fn close(&self) {
        let closed = tokio::time::timeout(CLOSE_WITHIN, self.presence.close()).await;
        if closed.is_err() {
            tracing::warn!(
                "coordination does not answer; it ends the session when its time is over"
            );
        }
    }

    fn new(
        parts: &Parts,
        presence: Presence,
        rules: RuleSet,
        listener: &TcpListener,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(StartError::Api)?;
        let shutdown = Shutdown::new();
        let presence = Arc::new(presence);
        let table = Arc::new(Table::new(Arc::new(own_server(parts)), rules));
        let entries = Entries::new(presence.clone(), table.clone(), shutdown.clone());
        let quotas = parts.quotas;
        let mut own_ports = parts.router_ports.clone();
        own_ports.push(address.port());
        let registrations = Registrations::new(registration::Parts {
            entries,
            table: table.clone(),
            traffic: parts.traffic.clone(),
            leases: Leases::new(quotas.leases_per_caller, quotas.leases),
            clock: parts.clock.clone(),
            server: parts.server.to_string(),
            own_ports,
            shutdown: shutdown.clone(),
        });
        let watches = Quota::new("watches", quotas.watches_per_caller, quotas.watches);
        let health = Health {
            server: parts.server.to_string(),
            zone: parts.zone.to_string(),
            presence: presence.clone(),
            started: Instant::now(),
            engines: parts.engines.clone(),
            supervision: parts.supervision.clone(),
            table: table.clone(),
            traffic: parts.traffic.clone(),
            leases: registrations.leases().clone(),
            watches,
            exports: parts.exports.clone(),
            gauges: Gauges::default(),
        };
        Ok(Self {
            own: Arc::new(own_instance(parts, address)),
            presence,
            registrations: Arc::new(registrations),
            table,
            health: Arc::new(health),
            near: Arc::new(NearCache::new(parts.engines.state.clone())),
            shutdown,
        })
    }

    fn local_api(&self, parts: &Parts) -> LocalApi {
        let leases = self.registrations.leases().clone();
        LocalApi {
            authority: Authority::new(parts.key.clone()),
            leases: leases.clone(),
            watches: self.health.watches.clone(),
            coordination: parts.engines.coordination.clone(),
            state: parts.engines.state.clone(),
            near: self.near.clone(),
            registrations: self.registrations.clone(),
            seats: Arc::new(Seats {
                presence: self.presence.clone(),
                state: parts.engines.state.clone(),
                leases: leases.clone(),
                shutdown: self.shutdown.clone(),
            }),
            table: self.table.clone(),
            rules: Rules {
                coordination: parts.engines.coordination.clone(),
                table: self.table.clone(),
            },
            traffic: parts.traffic.clone(),
            supervision: parts.supervision.clone(),
            health: self.health.clone(),
            clock: parts.clock.clone(),
            server: parts.server.to_string(),
            shutdown: self.shutdown.clone(),
        }
    }

    fn run(&self, parts: Parts, listener: TcpListener, api: axum::Router) {
        let (presence, shutdown) = (self.presence.clone(), self.shutdown.clone());
        self.shutdown
            .spawn(async move { presence.keep(&shutdown).await });

        let (near, shutdown) = (self.near.clone(), self.shutdown.clone());
        self.shutdown
            .spawn(async move { near.empty_on_failovers(&shutdown).await });

        let (table, shutdown) = (self.table.clone(), self.shutdown.clone());
        let own = self.own.clone();
        // At once: the services of this server need the local API whatever coordination does.
        parts.traffic.publish(&table.routed(&table.view(), &own));
        self.shutdown.spawn(async move {
            let coordination = &parts.engines.coordination;
            table
                .follow(coordination, &*parts.traffic, &own, &shutdown)
                .await;
        });

        let shutdown = self.shutdown.clone();
        self.shutdown.spawn(async move {
            // A KeepAlive is small and must not wait for more.
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            let served = axum::serve(listener, api)
                .with_graceful_shutdown(async move { shutdown.begun().await });
            if let Err(error) = served.await {
                tracing::error!(%error, "the local API has ended");
            }
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// This server, as the other ones see it.
fn own_server(parts: &Parts) -> Server {
    Server {
        name: parts.server.clone(),
        zone: parts.zone.clone(),
        peer: parts.peer,
        version: own_version(),
        since_unix_ms: parts.clock.unix_ms(),
        pid: std::process::id(),
    }
}

fn own_version() -> Version {
    let version = env!("CARGO_PKG_VERSION");
    version
        .parse()
        .expect("the version of a package is semantic")
}

/// The node as an instance of `service/node`, which only its own router knows.
fn own_instance(parts: &Parts, address: SocketAddr) -> Instance {
    let service: ServiceId = node_service();
    let page = |page: &&str| PathPrefix {
        prefix: (*page).into(),
        strip: 0,
    };
    Instance {
        id: InstanceId::generate(&service.name),
        version: own_version(),
        service,
        server: parts.server.to_string(),
        address,
        http2: true,
        methods: local_api::methods(),
        prefixes: health::PAGES.iter().map(page).collect(),
        state: InstanceState::Ready,
        detail: String::new(),
        since_unix_ms: parts.clock.unix_ms(),
        pid: std::process::id(),
        repeatable_paths: Vec::new(),
    }
}
