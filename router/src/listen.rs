use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use hydrant_contracts::{InstanceId, Pattern, ServiceId, TokenKey};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::sync::{oneshot, watch};

use crate::balance::Chooser;
use crate::clock::Moment;
use crate::explain::{self, Explanation};
use crate::passing::Taps;
use crate::priority::Priority;
use crate::proxies::Proxies;
use crate::snapshot::Snapshot;
use crate::stats::{self, InstanceStats};
use crate::table::Table;
use crate::tls::{Front, PeerTls, PublicTls, PublicTlsError, Tls, TlsError};
use crate::worker::{self, Parts, Phase};

/// Connections that wait to be accepted, per listener and worker.
const BACKLOG: i32 = 4096;
/// After how long the system asks a silent client whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

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
        let count = config.workers.max(1);
        let public = bind("public", config.public, count)?;
        let local = bind("local", config.local, count)?;
        let (secures, front) = match &config.secure {
            None => (Vec::new(), None),
            Some(secure) => (
                bind("tls", secure.listen, count)?,
                Some(Arc::new(Front::load(&secure.tls)?)),
            ),
        };
        let (peers, tls) = match &config.peer {
            None => (Vec::new(), None),
            Some(peer) => (bind_peer(peer, count)?, load(peer)?),
        };
        let address = |sockets: &[TcpListener], asked: SocketAddr| {
            sockets
                .first()
                .and_then(|socket| socket.local_addr().ok())
                .unwrap_or(asked)
        };
        let (phase, _) = watch::channel(Phase::Running);
        let first = Snapshot::expecting(count, config.expected, Moment::now());
        let secure = config.secure.as_ref();
        let mut router = Self {
            public: address(&public, config.public),
            secure: secure.map(|secure| address(&secures, secure.listen)),
            front: front.clone(),
            local: address(&local, config.local),
            peer: config.peer.map(|peer| address(&peers, peer.listen)),
            key: config.key.clone(),
            snapshot: Arc::new(ArcSwap::from_pointee(first)),
            publishing: Mutex::new(()),
            taps: Arc::default(),
            phase,
            workers: Vec::with_capacity(count),
        };
        let proxies = Arc::new(config.proxies);
        let redirects = secure.and_then(|secure| secure.redirects_to(router.secure));
        let (mut secures, mut peers) = (secures.into_iter(), peers.into_iter());
        for (index, (public, local)) in public.into_iter().zip(local).enumerate() {
            let parts = Parts {
                index,
                limits: config.limits.clone(),
                proxies: Arc::clone(&proxies),
                key: config.key.clone(),
                snapshot: Arc::clone(&router.snapshot),
                public,
                local,
                secure: secures.next().zip(front.clone()),
                redirects,
                peer: peers.next(),
                tls: tls.clone(),
                taps: Arc::clone(&router.taps),
                phase: router.phase.subscribe(),
            };
            router.workers.push(start_worker(parts)?);
        }
        Ok(router)
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
        let _ = self.phase.send(Phase::Draining);
        let workers = std::mem::take(&mut self.workers);
        let (threads, ended): (Vec<_>, Vec<_>) = workers
            .into_iter()
            .map(|worker| (worker.thread, worker.ended))
            .unzip();
        let _ = tokio::time::timeout(drain, futures::future::join_all(ended)).await;
        let _ = self.phase.send(Phase::Stopped);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.phase.send(Phase::Stopped);
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

fn bind_peer(peer: &PeerConfig, workers: usize) -> Result<Vec<TcpListener>, StartError> {
    if peer.tls.is_none() && !peer.listen.ip().is_loopback() {
        return Err(StartError::InClear(peer.listen));
    }
    bind("peer", peer.listen, workers)
}

fn load(peer: &PeerConfig) -> Result<Option<Arc<Tls>>, TlsError> {
    let load = |files| Tls::load(files).map(Arc::new);
    peer.tls.as_ref().map(load).transpose()
}

/// One listening socket per worker.
fn bind(
    which: &'static str,
    address: SocketAddr,
    workers: usize,
) -> Result<Vec<TcpListener>, StartError> {
    sockets(address, workers).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { which, address },
        _ => StartError::Listen {
            which,
            address,
            source,
        },
    })
}

/// The kernel spreads connections over sockets that share a port. So that another process on the
/// same port is noticed and not joined, the port is first taken without sharing.
#[cfg(target_os = "linux")]
fn sockets(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let bound = {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
        probe.local_addr()?.as_socket().unwrap_or(address)
    };
    let shared = |_| {
        let socket = socket(bound)?;
        socket.set_reuse_port(true)?;
        listen(socket, bound)
    };
    (0..workers).map(shared).collect()
}

/// All workers accept from one socket.
#[cfg(not(target_os = "linux"))]
fn sockets(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = listen(socket(address)?, address)?;
    let others = (1..workers)
        .map(|_| first.try_clone())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(first).chain(others).collect())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// What is set here holds for every connection that is accepted.
fn listen(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// Linux hands it on from the listener, which saves a call for each connection.
    #[test]
    fn what_is_accepted_sends_without_delay() {
        let sockets = sockets(([127, 0, 0, 1], 0).into(), 1).unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
