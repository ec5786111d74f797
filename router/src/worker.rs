mod accept;

use std::cell::{Cell, RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hydrant_contracts::TokenKey;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::accept::{Door, accept, too_many_connections};
use crate::alarms::{Alarms, GRAIN};
use crate::balance::{self, Chooser, Tried};
use crate::clock::Moment;
use crate::decide::{Listener, Route};
use crate::http2::Http2;
use crate::identity::{CallerSeat, Who};
use crate::listen::Limits;
use crate::origin::Origin;
use crate::outlier::Judge;
use crate::passing::{Asked, Passing, Taps};
use crate::priority::Priority;
use crate::proxies::{Client, Proxies, Visit};
use crate::refusal::{Reason, Refusal};
use crate::rule::Fields;
use crate::scratch::Scratch;
use crate::service::Instance;
use crate::shed::Watch;
use crate::snapshot::Snapshot;
use crate::sockets::Gate;
use crate::splice::Pipes;
use crate::tls::{Front, Tls};
use crate::upstream::Pools;
use crate::visitors::{Seat, Visitors, network};

/// How often idle connections to instances are looked through, in sweeps of the alarms.
const SWEEPS_PER_POOL_SWEEP: u32 = 10;

/// How often the files of certificates are looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often, at most, one worker logs that it refused a connection between nodes.
const TURNED_AWAY_EVERY: Duration = Duration::from_secs(1);

/// What a router tells its workers to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accept nothing yet.
    Waiting,
    Running,
    /// Another process accepts on the same sockets: end each connection with its next answer.
    Leaving,
    /// Accept no more, end what is under way, and idle connections at once.
    Draining,
    Stopped,
}

/// One event loop on one thread, and all that its connections share. Connections never leave
/// their worker, so nothing here needs a lock.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) limits: Limits,
    pub(crate) proxies: Arc<Proxies>,
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
    /// The port of TLS to which the outside is sent when it comes in clear text.
    redirects: Option<u16>,
    rng: RefCell<fastrand::Rng>,
    current: RefCell<Current>,
    hosts: [Box<str>; 2],
    draining: Cell<bool>,
    /// Connections without a request stay open.
    keeps_idle: Cell<bool>,
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
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) key: TokenKey,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where the public and the local listener are.
    pub(crate) hosts: [SocketAddr; 2],
    pub(crate) sockets: Vec<(Gate, std::net::TcpListener)>,
    pub(crate) front: Option<Arc<Front>>,
    pub(crate) redirects: Option<u16>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) taps: Arc<Taps>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Worker {
    fn new(parts: &Parts) -> Self {
        Self {
            index: parts.index,
            limits: parts.limits.clone(),
            proxies: Arc::clone(&parts.proxies),
            key: parts.key.clone(),
            scratch: Scratch::new(),
            pools: Pools::default(),
            http2: Http2::default(),
            pipes: Rc::default(),
            alarms: Rc::default(),
            tls: parts.tls.clone(),
            taps: Arc::clone(&parts.taps),
            redirects: parts.redirects,
            rng: RefCell::new(fastrand::Rng::new()),
            current: RefCell::new(Current {
                snapshot: Rc::new(Held(parts.snapshot.load_full())),
                cache: arc_swap::Cache::new(Arc::clone(&parts.snapshot)),
            }),
            hosts: parts.hosts.map(|address| address.to_string().into()),
            draining: Cell::new(false),
            keeps_idle: Cell::new(true),
            last_turned_away: Cell::new(None),
            shedding: RefCell::default(),
            connections: Cell::new(0),
            addresses: Visitors::default(),
            callers: Visitors::default(),
            turning_away: Cell::new(0),
            last_closed: tokio::sync::Notify::new(),
        }
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

    /// Notes whose request it is, when a trusted proxy sends it.
    pub(crate) fn hear(
        &self,
        origin: &Origin,
        fields: &dyn Fields,
        visit: &mut Visit,
    ) -> Result<(), Refusal> {
        if !origin.trusted {
            return Ok(());
        }
        let word = self.proxies.word(origin.address.ip(), fields);
        visit.note(word, |address| self.seat_of_address(address))
    }

    /// The seat of one more connection from an address. The proxies themselves stand for many.
    fn seat_of_address(&self, address: IpAddr) -> Result<Option<Seat<IpAddr>>, Refusal> {
        if self.proxies.trusts(address) {
            return Ok(None);
        }
        let most = self.limits.connections_per_address;
        let seat = self.addresses.enter(network(address), most);
        seat.map(Some).ok_or_else(|| {
            if self.may_warn() {
                tracing::warn!(%address, most, "an address has as many connections as one may have");
            }
            too_many_connections(&address.to_string(), most)
        })
    }

    /// A proxy did not say for whom it opened a connection.
    fn headless(&self, address: SocketAddr, error: &dyn std::fmt::Display) {
        const MESSAGE: &str = "closed a connection of a trusted proxy, which must begin with a header of the \
                               PROXY protocol";
        if self.may_warn() {
            tracing::warn!(%address, %error, "{MESSAGE}");
        } else {
            tracing::debug!(%address, %error, "{MESSAGE}");
        }
    }

    /// The router ends: no request of a connection after its present one.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A connection without a request may still send one. Clients send into one that is closed for no reason
    /// of theirs, and lose what they sent.
    pub(crate) fn keeps_idle(&self) -> bool {
        self.keeps_idle.get()
    }

    /// Sends who comes from the outside in clear text to the same by TLS, where that is wanted.
    pub(crate) fn check_scheme(
        &self,
        client: &Client<'_>,
        listener: Listener,
        host: Option<&str>,
        target: &str,
    ) -> Result<(), Refusal> {
        match self.redirects {
            Some(port) if !client.https && listener == Listener::Public => {
                Err(to_https(port, host, target))
            }
            _ => Ok(()),
        }
    }

    /// The name of a listener, for clients that name none.
    pub(crate) fn host(&self, listener: Listener) -> &str {
        match listener {
            Listener::Public => &self.hosts[0],
            Listener::Local | Listener::Peer => &self.hosts[1],
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
    let worker = Rc::new(Worker::new(&parts));
    worker.alarms.sweep(Moment::now());
    let Parts {
        sockets,
        front,
        mut phase,
        snapshot,
        ..
    } = parts;
    let door = |gate| match (gate, &front, &worker.tls) {
        (Gate::Public, ..) => Some(Door::Public),
        (Gate::Local, ..) => Some(Door::Local),
        (Gate::Tls, front, _) => front.clone().map(Door::Secure),
        (Gate::Peer, _, None) => Some(Door::Peer),
        (Gate::Peer, _, Some(tls)) => Some(Door::SecurePeer(Arc::clone(tls))),
    };
    let mut accepting = Vec::new();
    for (gate, socket) in sockets {
        let Some(door) = door(gate) else { continue };
        let listener = TcpListener::from_std(socket)?;
        let task = accept(Rc::clone(&worker), listener, door, phase.clone());
        accepting.push(tokio::task::spawn_local(task));
    }
    tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    if worker.index == 0 {
        let probes = Arc::clone(snapshot.load().probes());
        let tls = worker.tls.clone();
        tokio::task::spawn_local(async move { probes.run(tls.as_deref()).await });
        tokio::task::spawn_local(refresh(worker.tls.clone(), front));
    }
    let _ = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
    for task in accepting {
        task.abort();
    }
    worker.draining.set(true);
    worker.http2.close();
    let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
    worker.keeps_idle.set(false);
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

/// The same host and path by TLS. Any method is kept, and so is its body.
fn to_https(port: u16, host: Option<&str>, target: &str) -> Refusal {
    let Some(host) = host.map(without_port).filter(|host| !host.is_empty()) else {
        return Refusal::new(Reason::BadRequest, "the request names no host")
            .mend("ask by https://");
    };
    let target = if target.starts_with('/') { target } else { "/" };
    let location = match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    Refusal::redirect(308, location, "clear text is not served".into())
}

/// Of a host that was checked: the colons of an address stand in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Reads certificates again when their files have changed.
async fn refresh(tls: Option<Arc<Tls>>, front: Option<Arc<Front>>) {
    if tls.is_none() && front.is_none() {
        return;
    }
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let (tls, front) = (tls.clone(), front.clone());
        let refresh = move || {
            if let Some(tls) = tls {
                tls.refresh();
            }
            if let Some(front) = front {
                front.refresh();
            }
        };
        let _ = tokio::task::spawn_blocking(refresh).await;
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
