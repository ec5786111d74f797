use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use hydrant_contracts::{Error, Identity, InstanceId, ServerName, ServiceId, TokenKey};
use hydrant_ports::{Coordination, Expect, Key};
use hydrant_router::{PeerConfig, Router, Sockets};

use crate::agent::{Agent, Legacy, Parts};
use crate::config::{Engines, NodeConfig};
use crate::deadline::bounded;
use crate::error::StartError;
use crate::exports::{Exports, Sources};
use crate::identity::{invalid, load_or_create_key, write_operator_token};
use crate::logs::{Logs, LogsConfig};
use crate::passing;
use crate::supervision::Supervised;
use crate::supervisor::{Hooks, ServiceSpec, Supervisor, SupervisorConfig};
use crate::traffic::RouterTraffic;

/// How long the supervised services may take to end.
const SERVICES_END_WITHIN: Duration = Duration::from_secs(4);

/// How long connections without a request stay at a node that has given its server over.
const IDLE_STAY: Duration = Duration::from_secs(10);

/// How long the last requests may take once the services have ended.
const ROUTER_DRAINS: Duration = Duration::from_millis(300);

/// The agent of a server: router, local API and supervisor together.
pub struct Node {
    public: SocketAddr,
    secure: Option<SocketAddr>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    traffic: Arc<RouterTraffic>,
    agent: Arc<Agent>,
    supervisor: Supervisor,
    logs: Logs,
    exports: Exports,
}

/// What a node has of the one that it follows.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Where that one listens.
    pub sockets: Sockets,
    /// Its registrations.
    pub legacy: Legacy,
}

impl Node {
    /// Makes the node's secrets where they are missing, listens, opens the local API, and starts
    /// or takes over the supervised services. The data folder must be held by this process alone.
    pub async fn start(config: NodeConfig, engines: Engines) -> Result<Self, StartError> {
        let node = Self::prepare(config, engines, Inheritance::default()).await?;
        node.open();
        Ok(node)
    }

    /// As [`start`](Self::start), in the place of another node. It accepts nothing before it is
    /// [opened](Self::open).
    pub async fn prepare(
        config: NodeConfig,
        engines: Engines,
        before: Inheritance,
    ) -> Result<Self, StartError> {
        make_folder(&config.data)?;
        let key = match &config.fleet {
            Some(fleet) => fleet.key.clone(),
            None => load_or_create_key(&config.data.join("key"))?,
        };
        let router_config = hydrant_router::Config {
            public: config.public,
            secure: config.secure.clone(),
            proxies: config.proxies.clone(),
            local: config.local,
            peer: config.fleet.as_ref().map(|fleet| PeerConfig {
                listen: fleet.peer,
                tls: fleet.tls.clone(),
            }),
            workers: config.workers,
            key: key.clone(),
            limits: config.limits.clone(),
            expected: (config.services.iter())
                .map(|service| service.id.clone())
                .collect(),
        };
        let router = Router::prepare(router_config, before.sockets)?;
        let (public, local) = (router.public_addr(), router.local_addr());
        let (secure, peer) = (router.secure_addr(), router.peer_addr());
        if config.access_log > 0.0 {
            router.taps().sample(config.access_log);
            tokio::spawn(passing::log(router.taps().sampled()));
        }
        let traffic = Arc::new(RouterTraffic::new(router));
        let supervised = Arc::new(Supervised {
            logs: open_logs(&config)?,
            supervisor: OnceLock::new(),
        });
        let exports = Exports::new(&config.exports);
        let agent = Agent::start(Parts {
            server: config.server.clone(),
            zone: config.zone.clone(),
            peer: config
                .fleet
                .as_ref()
                .and_then(|fleet| fleet.advertise)
                .or(peer),
            session: config.session,
            before: before.legacy,
            key: key.clone(),
            engines: engines.clone(),
            traffic: traffic.clone(),
            supervision: supervised.clone(),
            router_ports: [Some(public), secure, Some(local), peer]
                .iter()
                .flatten()
                .map(SocketAddr::port)
                .collect(),
            quotas: config.quotas,
            exports: exports.clone(),
            clock: config.clock.clone(),
        });
        let agent = Arc::new(agent.await?);
        let sources = Sources {
            server: config.server.clone(),
            logs: supervised.logs.clone(),
            health: agent.health(),
            clock: config.clock.clone(),
        };
        let started = exports.start(&config.exports, sources);
        started.map_err(StartError::Exports)?;
        write_operator_token(&config.data.join("operator.token"), &key)?;
        let engines = bounded(&engines);
        let services = kept_scale(&*engines.coordination, &config).await?;
        let hooks = Arc::new(AgentHooks {
            agent: Arc::downgrade(&agent),
            coordination: engines.coordination,
            server: config.server.clone(),
        });
        let supervisor = Supervisor::start(
            SupervisorConfig {
                data: config.data,
                grace: config.grace,
                local_url: url(local),
                public_url: url(public),
                issue_token: issue_token(key),
                hooks,
                logs: supervised.logs.clone(),
                clock: config.clock,
            },
            config.program,
            services,
        )
        .map_err(StartError::Supervisor)?;
        let _ = supervised.supervisor.set(supervisor.clone());
        Ok(Self {
            public,
            secure,
            local,
            peer,
            traffic,
            agent,
            supervisor,
            logs: supervised.logs.clone(),
            exports,
        })
    }

    /// Accepts from now on.
    pub fn open(&self) {
        self.traffic.open();
    }

    /// Gives the server over to another node, and routes on by what is known now until that one does. The
    /// services run on for it. With `keeps_session` the fleet sees no gap: what this node has put in coordination
    /// stays until the other one has taken it over.
    pub async fn retire(self, keeps_session: bool) -> Retired {
        // What ends now is not gone.
        self.traffic.freeze();
        self.supervisor.leave();
        let legacy = self.agent.retire(keeps_session).await;
        self.logs.end().await;
        self.exports.stop().await;
        Retired {
            traffic: self.traffic,
            agent: self.agent,
            legacy,
        }
    }

    /// Where it listens, for another node in its place.
    ///
    /// # Errors
    ///
    /// If the system gives no more files.
    pub fn sockets(&self) -> io::Result<Sockets> {
        self.traffic.sockets()
    }

    /// Where the outside comes in.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the outside comes in by TLS, if it does.
    pub fn secure_addr(&self) -> Option<SocketAddr> {
        self.secure
    }

    /// Where the services of this server come in.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where the nodes of other servers come in; `None` where there are none.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Drains and stops the supervised services, then ends every lease, then the router. Takes
    /// less than 5 seconds.
    pub async fn shutdown(self) {
        let services = self.supervisor.shutdown();
        if tokio::time::timeout(SERVICES_END_WITHIN, services)
            .await
            .is_err()
        {
            tracing::error!("some supervised services did not end in time");
        }
        tokio::join!(self.agent.stop(), self.traffic.shutdown(ROUTER_DRAINS));
        // What the services said last goes out too.
        self.logs.settle().await;
        self.exports.stop().await;
    }
}

/// A node that has given its server over. Its router goes on by what it knew then, until another one does.
pub struct Retired {
    traffic: Arc<RouterTraffic>,
    agent: Arc<Agent>,
    legacy: Legacy,
}

impl Retired {
    /// What the next node needs of this one.
    ///
    /// # Errors
    ///
    /// If the system gives no more files.
    pub fn inheritance(&self) -> io::Result<Inheritance> {
        Ok(Inheritance {
            sockets: self.traffic.sockets()?,
            legacy: self.legacy.clone(),
        })
    }

    /// The registrations that the next node takes over.
    pub fn legacy(&self) -> &Legacy {
        &self.legacy
    }

    /// Another one accepts: ends each connection with its next answer, those without a request after a while, and
    /// all that is left after `drain`.
    pub async fn end(self, drain: Duration) {
        self.traffic.leave();
        self.agent.close().await;
        tokio::time::sleep(IDLE_STAY.min(drain)).await;
        self.traffic.shutdown(drain.saturating_sub(IDLE_STAY)).await;
    }
}

fn make_folder(data: &Path) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|source| StartError::Data {
            path: data.into(),
            source,
        })
}

fn open_logs(config: &NodeConfig) -> Result<Logs, StartError> {
    Logs::open(&config.data, LogsConfig::default(), config.clock.clone()).map_err(|source| {
        StartError::Data {
            path: config.data.join("logs"),
            source,
        }
    })
}

fn issue_token(key: TokenKey) -> Arc<dyn Fn(&ServiceId) -> String + Send + Sync> {
    Arc::new(move |service| key.issue(&Identity::Service(service.clone())))
}

/// How this server's own processes reach a listener: one on all addresses, by the loopback.
fn url(mut listener: SocketAddr) -> String {
    if listener.ip().is_unspecified() {
        listener.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    format!("http://{listener}")
}

/// What the supervisor asks of the rest of the node.
struct AgentHooks {
    agent: Weak<Agent>,
    coordination: Arc<dyn Coordination>,
    server: ServerName,
}

#[async_trait]
impl Hooks for AgentHooks {
    async fn drain(&self, instance: &InstanceId, limit: Duration) {
        let Some(agent) = self.agent.upgrade() else {
            return;
        };
        // Coordination may be away; the process is stopped all the same.
        match tokio::time::timeout(limit, agent.drain(instance, limit)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(left)) => tracing::warn!(%instance, left, "stopped with requests in flight"),
            Ok(Err(error)) => tracing::warn!(%instance, %error, "cannot drain an instance"),
            Err(_) => tracing::warn!(%instance, "draining an instance took too long"),
        }
    }

    async fn ready(&self, instance: &InstanceId) {
        if let Some(agent) = self.agent.upgrade() {
            agent.ready(instance).await;
        }
    }

    async fn keep_scale(&self, service: &ServiceId, instances: u32) -> Result<(), Error> {
        let key = scale_key(&self.server, service)
            .map_err(|error| invalid("invalid_name", error.to_string()))?;
        let value = instances.to_string().into();
        self.coordination.put(&key, value, Expect::Any).await?;
        Ok(())
    }
}

/// The services with the number of processes that somebody has asked for since.
async fn kept_scale(
    coordination: &dyn Coordination,
    config: &NodeConfig,
) -> Result<Vec<ServiceSpec>, StartError> {
    let mut services = config.services.clone();
    for service in &mut services {
        let Ok(key) = scale_key(&config.server, &service.id) else {
            continue;
        };
        let kept = coordination
            .get(&key)
            .await
            .map_err(|source| StartError::Engine {
                port: "coordination",
                source,
            })?;
        let text = kept
            .as_ref()
            .and_then(|kept| str::from_utf8(&kept.value).ok());
        if let Some(instances) = text.and_then(|text| text.parse().ok()) {
            service.instances = instances;
        }
    }
    Ok(services)
}

/// Where the number of processes is kept that a service shall have on a server.
fn scale_key(server: &ServerName, service: &ServiceId) -> Result<Key, hydrant_ports::InvalidKey> {
    format!("scale/{server}/{service}").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_the_loopback() {
        assert_eq!(url(([0, 0, 0, 0], 80).into()), "http://127.0.0.1:80");
        assert_eq!(url(([10, 0, 0, 1], 80).into()), "http://10.0.0.1:80");
    }
}
