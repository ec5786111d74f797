use std::cell::{Cell, RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hydrant_contracts::TokenKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::alarms::{Alarms, GRAIN};
use crate::balance::{self, Chooser, Tried};
use crate::clock::Moment;
use crate::decide::{Listener, Route};
use crate::http1;
use crate::http2::{self, Http2};
use crate::identity::{CallerSeat, Who};
use crate::listen::Limits;
use crate::outlier::Judge;
use crate::passing::{Asked, Passing, Taps};
use crate::priority::Priority;
use crate::refusal::{Reason, Refusal};
use crate::scratch::Scratch;
use crate::service::Instance;
use crate::shed::Watch;
use crate::snapshot::Snapshot;
use crate::splice::Pipes;
use crate::stream::Stream;
use crate::tls::{Protocol, Tls};
use crate::upstream::Pools;
use crate::visitors::{Visitors, network};

/// How often idle connections to instances are looked through, in sweeps of the alarms.
const SWEEPS_PER_POOL_SWEEP: u32 = 10;
/// How long no connection is accepted after the system could not give one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The most refused connections of a worker that are told why; more are closed at once.
const MAX_TURNING_AWAY: usize = 64;

/// How often the files of certificates are looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often, at most, one worker logs that it refused a connection between nodes.
const TURNED_AWAY_EVERY: Duration = Duration::from_secs(1);

/// What a router tells its workers to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Accept no more, end what is under way.
    Draining,
    Stopped,
}

/// One event loop on one thread, and all that its connections share. Connections never leave
/// their worker, so nothing here needs a lock.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) limits: Limits,
    pub(crate) key: TokenKey,
    pub(crate) scratch: Scratch,
    pub(crate) pools: Pools,
    pub(crate) http2: Http2,
    pub(crate) pipes: Rc<Pipes>,
    pub(crate) alarms: Rc<Alarms>,
    /// How nodes prove themselves; `None` where they speak in clear text.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Who listens to requests.
    taps: Arc<Taps>,
    rng: RefCell<fastrand::Rng>,
    current: RefCell<Current>,
    hosts: [Box<str>; 2],
    draining: Cell<bool>,
    last_turned_away: Cell<Option<Moment>>,
    /// The services of which it was the first to refuse a request for load.
    shedding: RefCell<Vec<Watch>>,
    connections: Cell<usize>,
    addresses: Visitors<IpAddr>,
    callers: Visitors<Box<str>>,
    /// Connections that are told why they are refused.
    turning_away: Cell<usize>,
    last_closed: tokio::sync::Notify,
}

/// The snapshot in use. The worker's own handle on it is counted without touching memory that
/// other workers write.
#[derive(Debug)]
struct Current {
    cache: arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    snapshot: Rc<Held>,
}

/// A snapshot that a worker holds once, however many of its requests use it.
#[derive(Debug)]
pub(crate) struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) limits: Limits,
    pub(crate) key: TokenKey,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) public: std::net::TcpListener,
    pub(crate) local: std::net::TcpListener,
    pub(crate) peer: Option<std::net::TcpListener>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) taps: Arc<Taps>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Worker {
    fn new(parts: &Parts) -> std::io::Result<Self> {
        let host = |listener: &std::net::TcpListener| -> std::io::Result<Box<str>> {
            Ok(listener.local_addr()?.to_string().into())
        };
        Ok(Self {
            index: parts.index,
            limits: parts.limits.clone(),
            key: parts.key.clone(),
            scratch: Scratch::new(),
            pools: Pools::default(),
            http2: Http2::default(),
            pipes: Rc::default(),
            alarms: Rc::default(),
            tls: parts.tls.clone(),
            taps: Arc::clone(&parts.taps),
            rng: RefCell::new(fastrand::Rng::new()),
            current: RefCell::new(Current {
                snapshot: Rc::new(Held(parts.snapshot.load_full())),
                cache: arc_swap::Cache::new(Arc::clone(&parts.snapshot)),
            }),
            hosts: [host(&parts.public)?, host(&parts.local)?],
            draining: Cell::new(false),
            last_turned_away: Cell::new(None),
            shedding: RefCell::default(),
            connections: Cell::new(0),
            addresses: Visitors::default(),
            callers: Visitors::default(),
            turning_away: Cell::new(0),
            last_closed: tokio::sync::Notify::new(),
        })
    }

    /// The routing snapshot that holds now.
    pub(crate) fn snapshot(&self) -> Rc<Held> {
        let mut current = self.current.borrow_mut();
        let Current { cache, snapshot } = &mut *current;
        let latest = cache.load();
        if !Arc::ptr_eq(latest, &snapshot.0) {
            *snapshot = Rc::new(Held(Arc::clone(latest)));
        }
        Rc::clone(snapshot)
    }

    /// Chance, for the choice of instances.
    pub(crate) fn rng(&self) -> RefMut<'_, fastrand::Rng> {
        self.rng.borrow_mut()
    }

    /// Begins to tell of a request, when somebody wants to hear of it.
    pub(crate) fn passing<'a>(&self, asked: impl FnOnce() -> Asked<'a>) -> Option<Rc<Passing>> {
        Passing::begin(&self.taps, || self.rng().u32(..), asked)
    }

    /// The instance that a request goes to.
    pub(crate) fn choose<'s>(
        &self,
        route: &Route<'s>,
        tried: &Tried,
        priority: Priority,
    ) -> Result<&'s Arc<Instance>, Refusal> {
        let chooser = Chooser {
            worker: self.index,
            now: Moment::now(),
            priority,
        };
        let chosen = balance::choose(route, tried, chooser, &mut self.rng());
        // What another node sent here it may send elsewhere, and counts itself.
        if let Err(refusal) = &chosen
            && refusal.reason == Reason::Overloaded
            && route.only.is_none()
        {
            self.shed(route, chooser);
        }
        chosen
    }

    fn shed(&self, route: &Route<'_>, chooser: Chooser) {
        let shedding = route.service.live.shedding();
        if shedding.refuse(self.index, chooser.priority, chooser.now) {
            let watch = Watch::begin(route.service);
            self.shedding.borrow_mut().push(watch);
        }
    }

    /// Somebody came to the peer listener who is no node of the fleet.
    fn turned_away(&self, address: SocketAddr, error: &str) {
        if self.may_warn() {
            tracing::warn!(%address, %error, "refused a connection to the peer listener");
        } else {
            tracing::debug!(%address, %error, "refused a connection to the peer listener");
        }
    }

    /// Who comes again and again does not fill the log.
    fn may_warn(&self) -> bool {
        let now = Moment::now();
        let last = self.last_turned_away.get();
        let may = last.is_none_or(|last| now.since(last) >= TURNED_AWAY_EVERY);
        if may {
            self.last_turned_away.set(Some(now));
        }
        may
    }

    /// The seat of one more connection of a caller.
    /// Another node has counted it already.
    pub(crate) fn seat(&self, from: Listener, who: &Who) -> Result<Option<CallerSeat>, Refusal> {
        if from == Listener::Peer {
            return Ok(None);
        }
        let (caller, most) = (&*who.text, self.limits.connections_per_caller);
        let seat = self.callers.enter(caller.into(), most);
        seat.map(Some).ok_or_else(|| {
            if self.may_warn() {
                tracing::warn!(
                    caller,
                    most,
                    "a caller has as many connections as one may have"
                );
            }
            too_many_connections(caller, most)
        })
    }

    /// The router ends: no request after the present ones.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The name of a listener, for clients that name none.
    pub(crate) fn host(&self, listener: Listener) -> &str {
        match listener {
            Listener::Public => &self.hosts[0],
            Listener::Local | Listener::Peer => &self.hosts[1],
        }
    }
}

/// A connection that counts against the limit as long as this lives.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        if left == 0 {
            self.0.last_closed.notify_one();
        }
    }
}

/// Runs a worker on this thread until its router stops it.
pub(crate) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(work(parts))
}

async fn work(parts: Parts) -> std::io::Result<()> {
    let worker = Rc::new(Worker::new(&parts)?);
    worker.alarms.sweep(Moment::now());
    let Parts {
        public,
        local,
        peer,
        mut phase,
        snapshot,
        ..
    } = parts;
    let mut sockets = vec![(public, Listener::Public), (local, Listener::Local)];
    sockets.extend(peer.map(|peer| (peer, Listener::Peer)));
    let mut accepting = Vec::new();
    for (socket, which) in sockets {
        let listener = TcpListener::from_std(socket)?;
        let task = accept(Rc::clone(&worker), listener, which);
        accepting.push(tokio::task::spawn_local(task));
    }
    tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    if worker.index == 0 {
        let probes = Arc::clone(snapshot.load().probes());
        let tls = worker.tls.clone();
        tokio::task::spawn_local(async move { probes.run(tls.as_deref()).await });
        tokio::task::spawn_local(refresh(worker.tls.clone()));
    }
    let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
    for task in accepting {
        task.abort();
    }
    worker.draining.set(true);
    worker.http2.close();
    worker.pools.clear();
    worker.alarms.wake_all();
    tokio::select! {
        () = drained(&worker) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopped) => {}
    }
    Ok(())
}

async fn drained(worker: &Worker) {
    while worker.connections.get() > 0 {
        worker.last_closed.notified().await;
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, which: Listener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => begin(&worker, stream, address, which),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// Above the limit a connection is closed at once: those that are open matter more.
fn begin(worker: &Rc<Worker>, stream: TcpStream, address: SocketAddr, which: Listener) {
    if worker.connections.get() >= worker.limits.connections || stream.set_nodelay(true).is_err() {
        return;
    }
    let (counted, worker) = (Counted::new(worker), Rc::clone(worker));
    let seat = match which {
        Listener::Public => {
            let most = worker.limits.connections_per_address;
            let Some(seat) = worker.addresses.enter(network(address.ip()), most) else {
                return turn_away(counted, stream, address);
            };
            Some(seat)
        }
        Listener::Local | Listener::Peer => None,
    };
    let tls = worker.tls.clone().filter(|_| which == Listener::Peer);
    tokio::task::spawn_local(async move {
        match tls {
            None => http1::serve(worker, Stream::Plain(stream), address, which).await,
            Some(tls) => Box::pin(serve_tls(worker, &tls, stream, address, which)).await,
        }
        drop((counted, seat));
    });
}

/// Says why to some, and to no more than the others can bear.
fn turn_away(counted: Counted, stream: TcpStream, address: SocketAddr) {
    let worker = Rc::clone(&counted.0);
    let (ip, most) = (address.ip(), worker.limits.connections_per_address);
    let refusal = too_many_connections(&ip.to_canonical().to_string(), most);
    worker
        .snapshot()
        .totals()
        .refused(worker.index, refusal.reason);
    if worker.may_warn() {
        tracing::warn!(address = %ip, most, "an address has as many connections as one may have");
    }
    if worker.turning_away.get() >= MAX_TURNING_AWAY {
        return;
    }
    worker.turning_away.set(worker.turning_away.get() + 1);
    tokio::task::spawn_local(async move {
        http1::turn_away(&worker, Stream::Plain(stream), &refusal).await;
        worker.turning_away.set(worker.turning_away.get() - 1);
        drop(counted);
    });
}

fn too_many_connections(whose: &str, most: usize) -> Refusal {
    let message =
        format!("{whose} has {most} connections to a thread of the router, which is the most");
    Refusal::new(Reason::TooManyConnections, message)
        .mend("use connections again, or raise the limit in [node]")
}

/// Whoever does not prove to be a node of the fleet is not listened to.
async fn serve_tls(
    worker: Rc<Worker>,
    tls: &Tls,
    stream: TcpStream,
    address: SocketAddr,
    which: Listener,
) {
    let handshake = tokio::time::timeout(worker.limits.head, tls.accept(stream)).await;
    match handshake {
        Ok(Ok((stream, Protocol::Http1))) => http1::serve(worker, stream, address, which).await,
        Ok(Ok((stream, Protocol::Http2))) => {
            http2::serve(worker, stream, Vec::new(), address, which).await;
        }
        // A probe, which connects and no more.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Ok(Err(error)) => worker.turned_away(address, &error.to_string()),
        Err(_) => worker.turned_away(address, "the handshake was not finished in time"),
    }
}

/// Reads certificates again when their files have changed.
async fn refresh(tls: Option<Arc<Tls>>) {
    let Some(tls) = tls else {
        return;
    };
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let tls = Arc::clone(&tls);
        let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(GRAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    let mut judge = Judge::default();
    loop {
        ticks.tick().await;
        let now = Moment::now();
        worker.alarms.sweep(now);
        count = count.wrapping_add(1);
        if worker.index == 0 {
            judge.go_on(&worker.snapshot(), now);
        }
        if count.is_multiple_of(SWEEPS_PER_POOL_SWEEP) {
            worker.pools.sweep(now);
            worker.http2.sweep();
            worker
                .shedding
                .borrow_mut()
                .retain(|watch| watch.goes_on(now));
        }
    }
}
