use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use hydrant_contracts::{InstanceId, Pattern, ServiceId, TokenKey};
use tokio::sync::{oneshot, watch};

use crate::balance::Chooser;
use crate::clock::Moment;
use crate::explain::{self, Explanation};
use crate::passing::Taps;
use crate::priority::Priority;
use crate::proxies::Proxies;
use crate::snapshot::Snapshot;
use crate::sockets::{Gate, Sockets};
use crate::stats::{self, InstanceStats};
use crate::table::Table;
use crate::tls::{Front, PeerTls, PublicTls, PublicTlsError, Tls, TlsError};
use crate::worker::{self, Parts, Phase};

/// How a router is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the outside comes in; port 0 chooses one.
    pub public: SocketAddr,
    /// Where the outside comes in by TLS; `None` where it does not.
    pub secure: Option<SecureConfig>,
    /// Where the services of this server come in; port 0 chooses one.
    pub local: SocketAddr,
    /// Where the nodes of other servers come in; `None` where there are none.
    pub peer: Option<PeerConfig>,
    /// Who stands in front of the public listeners.
    pub proxies: Proxies,
    /// Event loops, one thread each; at least 1.
    pub workers: usize,
    /// Checks the tokens of callers.
    pub key: TokenKey,
    /// Bounds on sizes, counts and times.
    pub limits: Limits,
    /// The services that this server is to have. Who asks for one before its instances have come hears that it
    /// is not ready, and not that there is none: a client takes the first for a reason to ask again.
    pub expected: Vec<ServiceId>,
}

/// How a router is reached by TLS from the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureConfig {
    /// Where it listens; port 0 chooses one.
    pub listen: SocketAddr,
    /// What becomes of requests in clear text, at `public`.
    pub plain: Plain,
    /// Certificates, versions, and who has to prove who it is.
    pub tls: PublicTls,
}

/// What becomes of a request that the outside sends in clear text, beside TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plain {
    /// It is served.
    #[default]
    Serve,
    /// The client is sent to the same host and path by TLS, at this port, or that of the listener.
    Redirect(Option<u16>),
}

/// How a router is reached by the nodes of other servers, and reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it listens; port 0 chooses one.
    pub listen: SocketAddr,
    /// How nodes prove themselves to each other, the same way in both directions; `None` speaks in
    /// clear text, which is for the loopback only.
    pub tls: Option<PeerTls>,
}

/// Bounds that hold for every connection. Fixed beside these: a head has at most 64 KB and 100
/// fields, and 64 KB of a request are kept for a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of one worker; more are closed at once.
    pub connections: usize,
    /// Of these, the connections from one address to the public listener; more are answered with 503.
    pub connections_per_address: usize,
    /// Of these, the connections of one caller who has a token; more are answered with 503.
    pub connections_per_caller: usize,
    /// For a client to send the head that it has begun; then 408.
    pub head: Duration,
    /// For a client to begin its next request. Longer than the 90 s after which common clients
    /// drop idle connections themselves, so that none sends into one that is being closed.
    pub client_idle: Duration,
    /// For an instance to accept a connection.
    pub connect: Duration,
    /// For an instance to begin its answer to a request that is sent; then 504.
    pub answer: Duration,
    /// For either side to take bytes that wait for it.
    pub send: Duration,
    /// For anything to move in a request whose answer has begun or whose body still comes, and
    /// in a tunnel.
    pub stream_idle: Duration,
    /// For a connection to an instance to wait for its next request.
    pub upstream_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            connections_per_address: 25_000,
            connections_per_caller: 25_000,
            head: Duration::from_secs(10),
            client_idle: Duration::from_secs(120),
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(60),
            send: Duration::from_secs(60),
            stream_idle: Duration::from_secs(3600),
            upstream_idle: Duration::from_secs(60),
        }
    }
}

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens there.
    #[error("the {which} address {address} is in use; choose another with --{which}")]
    InUse {
        /// `public`, `local`, `peer` or `tls`.
        which: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system refuses the address.
    #[error("cannot listen on the {which} address {address}")]
    Listen {
        /// `public`, `local`, `peer` or `tls`.
        which: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Between servers nothing goes in clear text.
    #[error("the peer address {0} is not on the loopback: without TLS nodes listen only there")]
    InClear(SocketAddr),
    /// The proofs of the node can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS can't be spoken with the outside.
    #[error(transparent)]
    PublicTls(#[from] PublicTlsError),
    /// The system gives no more files.
    #[error("cannot keep the listening sockets for a successor")]
    Share(#[source] io::Error),
    /// The system gives no thread.
    #[error("cannot start a worker of the router")]
    Thread(#[source] io::Error),
}

/// The data plane: listens, and sends requests where its snapshot says. Dropping it stops it at
/// once.
#[derive(Debug)]
pub struct Router {
    public: SocketAddr,
    secure: Option<SocketAddr>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    front: Option<Arc<Front>>,
    key: TokenKey,
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// Held while a snapshot is made from the one before.
    publishing: Mutex<()>,
    taps: Arc<Taps>,
    phase: watch::Sender<Phase>,
    /// Where it listens, to be handed on; empty as soon as it accepts no more.
    sockets: Mutex<Sockets>,
    workers: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Router {
    /// Binds the listeners and starts the workers. There are no instances yet.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let router = Self::prepare(config, Sockets::default())?;
        router.open();
        Ok(router)
    }

    /// As [`start`](Self::start), on the sockets that were `handed` where they are at the configured addresses.
    /// Nothing is accepted before it is [opened](Self::open).
    pub fn prepare(config: Config, handed: Sockets) -> Result<Self, StartError> {
        let count = config.workers.max(1);
        let sockets = bind(&config, count, handed)?;
        let secure = config.secure.as_ref();
        let front = secure.map(|secure| Front::load(&secure.tls)).transpose()?;
        let peer_tls = config.peer.as_ref().map(load).transpose()?.flatten();
        let address = |gate, asked| sockets.address(gate).unwrap_or(asked);
        let (phase, _) = watch::channel(Phase::Waiting);
        let first = Snapshot::expecting(count, config.expected, Moment::now());
        let mut router = Self {
            public: address(Gate::Public, config.public),
            secure: secure.map(|secure| address(Gate::Tls, secure.listen)),
            front: front.map(Arc::new),
            local: address(Gate::Local, config.local),
            peer: config.peer.map(|peer| address(Gate::Peer, peer.listen)),
            key: config.key.clone(),
            snapshot: Arc::new(ArcSwap::from_pointee(first)),
            publishing: Mutex::new(()),
            taps: Arc::default(),
            phase,
            sockets: Mutex::new(sockets.try_clone().map_err(StartError::Share)?),
            workers: Vec::with_capacity(count),
        };
        let proxies = Arc::new(config.proxies);
        let redirects = secure.and_then(|secure| secure.redirects_to(router.secure));
        for (index, sockets) in sockets.deal(count).into_iter().enumerate() {
            let parts = Parts {
                index,
                limits: config.limits.clone(),
                proxies: Arc::clone(&proxies),
                key: config.key.clone(),
                snapshot: Arc::clone(&router.snapshot),
                hosts: [router.public, router.local],
                sockets,
                front: router.front.clone(),
                redirects,
                tls: peer_tls.clone(),
                taps: Arc::clone(&router.taps),
                phase: router.phase.subscribe(),
            };
            router.workers.push(start_worker(parts)?);
        }
        Ok(router)
    }

    /// Accepts from now on.
    pub fn open(&self) {
        self.phase.send_replace(Phase::Running);
    }

    /// Its sockets once more, for another one that accepts on them too. None when it accepts no more itself.
    ///
    /// # Errors
    ///
    /// If the system gives no more files.
    pub fn sockets(&self) -> io::Result<Sockets> {
        self.held_sockets().try_clone()
    }

    /// Leaves its sockets to another one that accepts on them: each connection ends with its next answer, and
    /// those that have no request may still send one.
    pub fn leave(&self) {
        *self.held_sockets() = Sockets::default();
        self.phase.send_replace(Phase::Leaving);
    }

    fn held_sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the public listener listens.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the outside comes in by TLS, if it does.
    pub fn secure_addr(&self) -> Option<SocketAddr> {
        self.secure
    }

    /// What is wrong, or soon will be, with the files of TLS; a line each.
    pub fn tls_troubles(&self) -> Vec<String> {
        let front = self.front.as_ref();
        front.map(|front| front.troubles()).unwrap_or_default()
    }

    /// Numbers of TLS with the outside, in Prometheus' text format; empty without it.
    pub fn tls_metrics(&self) -> String {
        let mut out = String::new();
        if let Some(front) = &self.front {
            front.write_metrics(&mut out);
            stats::write_handshakes(&mut out, &self.snapshot.load());
        }
        out
    }

    /// Where the local listener listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where the peer listener listens, if there is one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Routes to the instances of the table and no others from now on. What is known of those that stay is
    /// kept; requests under way are not touched.
    pub fn publish(&self, table: &Table) {
        let _turn = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = self.snapshot.load().next(table, Moment::now());
        self.snapshot.store(Arc::new(next));
    }

    /// The snapshot that holds now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Who listens to requests as they pass.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// Requests that are at an instance now; also at one that is no longer registered.
    pub fn in_flight(&self, id: &InstanceId) -> u64 {
        self.snapshot.load().in_flight(id)
    }

    /// What was counted at the instances that match.
    pub fn stats(&self, pattern: &Pattern) -> Vec<InstanceStats> {
        stats::instances(&self.snapshot.load(), pattern, Moment::now())
    }

    /// What would happen to a request, without sending it.
    pub fn explain(&self, request: &explain::Request) -> Explanation {
        let chooser = Chooser {
            worker: 0,
            now: Moment::now(),
            priority: Priority::Normal,
        };
        let mut rng = fastrand::Rng::new();
        explain::explain(&self.snapshot.load(), &self.key, request, chooser, &mut rng)
    }

    /// Accepts no more, lets requests under way end for at most `drain`, and stops.
    pub async fn shutdown(mut self, drain: Duration) {
        *self.held_sockets() = Sockets::default();
        self.phase.send_replace(Phase::Draining);
        let workers = std::mem::take(&mut self.workers);
        let (threads, ended): (Vec<_>, Vec<_>) = workers
            .into_iter()
            .map(|worker| (worker.thread, worker.ended))
            .unzip();
        let _ = tokio::time::timeout(drain, futures::future::join_all(ended)).await;
        self.phase.send_replace(Phase::Stopped);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
    }
}

impl SecureConfig {
    /// The port to which clients in clear text are sent, if they are; `bound` is where TLS listens.
    fn redirects_to(&self, bound: Option<SocketAddr>) -> Option<u16> {
        match self.plain {
            Plain::Serve => None,
            Plain::Redirect(port) => port.or(bound.map(|bound| bound.port())),
        }
    }
}

fn start_worker(parts: Parts) -> Result<Running, StartError> {
    let (end, ended) = oneshot::channel();
    let name = format!("router-{}", parts.index);
    let work = move || {
        if let Err(error) = worker::run(parts) {
            tracing::error!(%error, "a worker of the router ended");
        }
        drop(end);
    };
    let thread = std::thread::Builder::new().name(name).spawn(work);
    Ok(Running {
        thread: thread.map_err(StartError::Thread)?,
        ended,
    })
}

/// Every gate that is configured.
fn bind(config: &Config, workers: usize, mut handed: Sockets) -> Result<Sockets, StartError> {
    if let Some(peer) = &config.peer
        && peer.tls.is_none()
        && !peer.listen.ip().is_loopback()
    {
        return Err(StartError::InClear(peer.listen));
    }
    let gates = [
        (Gate::Public, Some(config.public)),
        (Gate::Local, Some(config.local)),
        (Gate::Tls, config.secure.as_ref().map(|tls| tls.listen)),
        (Gate::Peer, config.peer.as_ref().map(|peer| peer.listen)),
    ];
    let mut sockets = Sockets::default();
    for (gate, address) in gates {
        if let Some(address) = address {
            sockets.bind(gate, address, workers, &mut handed)?;
        }
    }
    Ok(sockets)
}

fn load(peer: &PeerConfig) -> Result<Option<Arc<Tls>>, TlsError> {
    let load = |files| Tls::load(files).map(Arc::new);
    peer.tls.as_ref().map(load).transpose()
}
