use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use hydrant_contracts::ServerName;

use crate::clock::Moment;
use crate::counter::{Count, Rate};
use crate::ejection::{Ejection, Standing};
use crate::endpoint::{EndpointId, EndpointTable};
use crate::limit::Limit;
use crate::passing::Passing;
use crate::priority::Priority;
use crate::probe::ProbeQueue;

/// How fast a past peak of latency is forgotten.
const DECAY: Duration = Duration::from_secs(10);
/// Failures one after the other, on one worker, that take an instance out for a time.
const FAILURES_TO_EJECT: u64 = 5;
/// What a failure counts as, at least, when latencies are compared: failing fast is not fast.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);
/// The load of an instance that has requests and has never answered one.
const UNKNOWN_LOAD: f64 = 1e15;

/// What went wrong with a request at an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection could be made.
    Connect,
    /// The connection broke before an answer.
    Closed,
    /// The deadline passed before an answer.
    Timeout,
    /// What it answered is not HTTP.
    Protocol,
    /// The answer broke off in its body.
    Truncated,
    /// It answered with a status of 500 or above.
    Status5xx,
    /// The caller went away before the answer; not the instance's fault.
    Canceled,
    /// The router itself had no means left, as file descriptors; not the instance's fault.
    Local,
    /// The node of its server could not be reached, or broke off; not the instance's fault.
    Peer,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::Connect,
        ErrorKind::Closed,
        ErrorKind::Timeout,
        ErrorKind::Protocol,
        ErrorKind::Truncated,
        ErrorKind::Status5xx,
        ErrorKind::Canceled,
        ErrorKind::Local,
        ErrorKind::Peer,
    ];

    /// The kind as programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Connect => "connect",
            ErrorKind::Closed => "closed",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Truncated => "truncated",
            ErrorKind::Status5xx => "status_5xx",
            ErrorKind::Canceled => "canceled",
            ErrorKind::Local => "local",
            ErrorKind::Peer => "peer",
        }
    }

    /// What a failed connect says: whether the instance refused, or we had no means to ask.
    pub fn of_connect(error: &std::io::Error) -> Self {
        let ours = [
            rustix::io::Errno::MFILE,
            rustix::io::Errno::NFILE,
            rustix::io::Errno::NOBUFS,
            rustix::io::Errno::NOMEM,
            rustix::io::Errno::ADDRNOTAVAIL,
        ];
        match error.raw_os_error() {
            Some(code) if ours.iter().any(|errno| errno.raw_os_error() == code) => ErrorKind::Local,
            _ => ErrorKind::Connect,
        }
    }

    const fn is_the_instances(self) -> bool {
        !matches!(
            self,
            ErrorKind::Canceled | ErrorKind::Local | ErrorKind::Peer
        )
    }
}

/// What the data path knows of one instance: its load, its counters, its ejection. It lives as
/// long as the instance, over all snapshots.
#[derive(Debug)]
pub struct Live {
    /// Unique in this process, for maps.
    key: u64,
    address: SocketAddr,
    /// One for each worker, made when the worker first sends a request there.
    slots: Box<[OnceLock<Box<Slot>>]>,
    ejection: Ejection,
    /// Who asks whether it takes connections again; nobody does when it is on another server.
    probes: Option<Arc<ProbeQueue>>,
    /// The server whose node it is, when it is one.
    node: Option<ServerName>,
    me: Weak<Live>,
}

/// What one worker knows of an instance. Only that worker writes. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    pub(crate) in_flight: Count,
    pub(crate) limit: Limit,
    /// Peak EWMA of the latency in nanoseconds, the bits of an f64; 0 when there was no answer.
    ewma: AtomicU64,
    ewma_at: Count,
    failures_in_a_row: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    pub(crate) retries: Count,
    pub(crate) rate: Rate,
    /// Requests that failed, by its own fault.
    pub(crate) failures: Rate,
    pub(crate) errors: [Count; ErrorKind::ALL.len()],
    pub(crate) endpoints: EndpointTable,
}

impl Live {
    pub(crate) fn new(
        address: SocketAddr,
        workers: usize,
        probes: Option<Arc<ProbeQueue>>,
    ) -> Arc<Self> {
        Self::make(address, workers, probes, None)
    }

    /// Of the node of another server.
    pub(crate) fn of_node(
        server: ServerName,
        address: SocketAddr,
        workers: usize,
        probes: Arc<ProbeQueue>,
    ) -> Arc<Self> {
        Self::make(address, workers, Some(probes), Some(server))
    }

    fn make(
        address: SocketAddr,
        workers: usize,
        probes: Option<Arc<ProbeQueue>>,
        node: Option<ServerName>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new_cyclic(|me| Self {
            key: NEXT.fetch_add(1, Relaxed),
            address,
            slots: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
            ejection: Ejection::default(),
            probes,
            node,
            me: Weak::clone(me),
        })
    }

    /// A number that no other instance of this process ever has: the key of a pool.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Where it answers, on its own server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that are at the instance now, over all workers.
    pub fn in_flight(&self) -> u64 {
        self.used_slots().map(|slot| slot.in_flight.get()).sum()
    }

    /// How busy and slow it is as `worker` sees it: latency in nanoseconds × (requests there + 1).
    pub fn load(&self, worker: usize, now: Moment) -> f64 {
        let Some(slot) = self.slots[worker].get() else {
            return 0.0;
        };
        let (in_flight, latency) = (slot.in_flight.get() as f64, slot.latency(now));
        if latency == 0.0 && in_flight > 0.0 {
            // Never answered yet: one request at a time finds out how fast it is.
            return UNKNOWN_LOAD * in_flight;
        }
        latency * (in_flight + 1.0)
    }

    /// The latency that `worker` expects of it.
    pub fn expected_latency(&self, worker: usize, now: Moment) -> Duration {
        Duration::from_nanos(self.latency(worker, now) as u64)
    }

    /// The same in nanoseconds; 0 when it is not known.
    pub(crate) fn latency(&self, worker: usize, now: Moment) -> f64 {
        let slot = self.slots[worker].get();
        slot.map_or(0.0, |slot| slot.latency(now))
    }

    /// The latency in nanoseconds as it was when `worker` last measured it; 0 when it never did.
    pub(crate) fn last_latency(&self, worker: usize) -> f64 {
        let slot = self.slots[worker].get();
        slot.map_or(0.0, |slot| f64::from_bits(slot.ewma.load(Relaxed)))
    }

    /// Whether `worker` has no request there, and has not measured it of late.
    pub(crate) fn is_forgotten(&self, worker: usize, now: Moment) -> bool {
        self.slots[worker].get().is_none_or(|slot| {
            let age = now.since(Moment::from_nanos(slot.ewma_at.get()));
            slot.in_flight.get() == 0 && age > DECAY
        })
    }

    /// Requests of `worker` that are at the instance now.
    pub fn in_flight_of(&self, worker: usize) -> u64 {
        self.slots[worker]
            .get()
            .map_or(0, |slot| slot.in_flight.get())
    }

    /// Whether `worker` may send it one more request of this priority.
    pub(crate) fn has_room(&self, worker: usize, priority: Priority) -> bool {
        let slot = self.slots[worker].get();
        slot.is_none_or(|slot| slot.limit.has_room(priority))
    }

    /// `worker` had a request for it that found no room.
    pub(crate) fn refused(&self, worker: usize, now: Moment) {
        if let Some(slot) = self.slots[worker].get() {
            slot.limit.refused(now);
        }
    }

    /// How many requests wait there for an answer, over all workers.
    pub fn waiting(&self) -> u64 {
        self.used_slots().map(|slot| slot.limit.waiting()).sum()
    }

    /// How many may wait there, over the workers that see a queue; `None` where none does.
    pub fn limit(&self) -> Option<u64> {
        let limits = self.used_slots().filter_map(|slot| slot.limit.most());
        limits.reduce(|all, limit| all + limit)
    }

    /// What its answers take in the mean of late, over all workers and endpoints, in nanoseconds; 0
    /// before the first.
    pub(crate) fn mean_latency(&self) -> f64 {
        let counters = self.used_slots().flat_map(|slot| slot.endpoints.used());
        let (mut sum, mut requests) = (0.0, 0.0);
        for (_, counters) in counters {
            let weight = counters.requests.get() as f64;
            sum += counters.pace.mean() * weight;
            requests += weight;
        }
        if requests > 0.0 { sum / requests } else { 0.0 }
    }

    /// Whether it is out now, though it may be used when too few others are left.
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.ejection.true_standing(now) != Standing::In
    }

    /// Why it is out, for people; empty when it is not.
    pub(crate) fn ejected_because(&self, now: Moment) -> &'static str {
        let why = self.ejection.true_standing(now).as_str();
        why.strip_prefix("ejected: ").unwrap_or(why)
    }

    /// Takes it out of the choice of every worker, at once, until it takes connections again; for
    /// a time, when it is on another server.
    pub fn eject(&self, now: Moment) {
        let Some(probes) = &self.probes else {
            return self.ejection.refuse_afar(now);
        };
        if self.ejection.refuse(now)
            && let Some(me) = self.me.upgrade()
        {
            probes.push(me);
        }
    }

    /// The server whose node it is, when it is the node of another server.
    pub(crate) fn node(&self) -> Option<&ServerName> {
        self.node.as_ref()
    }

    /// Whether it is on this server, where it can be asked if it takes connections.
    pub(crate) fn is_near(&self) -> bool {
        self.probes.is_some()
    }

    /// `worker` has an answer of it.
    pub(crate) fn heard(&self, worker: usize, now: Moment) {
        self.slot(worker).failures_in_a_row.set(0);
        self.ejection.served(now);
    }

    /// `worker` had no answer of it, which is of weight only when it is so again and again.
    pub(crate) fn silent(&self, worker: usize, now: Moment) {
        let failures = &self.slot(worker).failures_in_a_row;
        failures.add(1);
        if failures.get() >= FAILURES_TO_EJECT {
            failures.set(0);
            self.ejection.fail(now);
        }
    }

    pub(crate) fn ejection(&self) -> &Ejection {
        &self.ejection
    }

    pub(crate) fn used_slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots
            .iter()
            .filter_map(|slot| slot.get().map(|slot| &**slot))
    }

    fn slot(&self, worker: usize) -> &Slot {
        let make = || Box::new(Slot::new(self.slots.len()));
        self.slots[worker].get_or_init(make)
    }
}

impl Slot {
    fn new(workers: usize) -> Self {
        Self {
            in_flight: Count::default(),
            limit: Limit::new(workers),
            ewma: AtomicU64::default(),
            ewma_at: Count::default(),
            failures_in_a_row: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            retries: Count::default(),
            rate: Rate::default(),
            failures: Rate::default(),
            errors: Default::default(),
            endpoints: EndpointTable::default(),
        }
    }

    fn latency(&self, now: Moment) -> f64 {
        let ewma = f64::from_bits(self.ewma.load(Relaxed));
        ewma * decay(now.since(Moment::from_nanos(self.ewma_at.get())))
    }

    /// A peak counts at once, what is faster only by and by.
    fn observe(&self, latency: f64, now: Moment) {
        let past = f64::from_bits(self.ewma.load(Relaxed));
        let weight = decay(now.since(Moment::from_nanos(self.ewma_at.get())));
        let mixed = (past * weight + latency * (1.0 - weight)).max(1.0);
        self.ewma.store(latency.max(mixed).to_bits(), Relaxed);
        self.ewma_at.set(now.nanos());
    }

    fn count_error(&self, kind: ErrorKind, endpoint: EndpointId) {
        self.errors[kind as usize].add(1);
        self.endpoints.get(endpoint).errors.add(1);
    }
}

/// What is left of a latency after `time`.
fn decay(time: Duration) -> f64 {
    (-time.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

/// A request at an instance, from the moment it is sent (or a connection for it is asked for)
/// until its answer has been forwarded. Dropped on the worker that began it.
#[derive(Debug)]
#[must_use = "the request counts as in flight as long as this lives"]
pub struct InFlight<L: Deref<Target = Live>> {
    live: L,
    worker: usize,
    endpoint: EndpointId,
    began: Moment,
    /// An answer or an error was noted.
    told: Cell<bool>,
    /// Somebody listens.
    passing: Option<Rc<Passing>>,
}

impl<L: Deref<Target = Live>> InFlight<L> {
    /// Counts a request of `worker` at the instance. `worker` is the calling worker: it alone
    /// writes these counters.
    pub fn begin(live: L, worker: usize, endpoint: EndpointId, now: Moment) -> Self {
        let slot = live.slot(worker);
        slot.in_flight.add(1);
        slot.limit.begin();
        slot.rate.add(now);
        slot.endpoints.get(endpoint).requests.add(1);
        Self {
            live,
            worker,
            endpoint,
            began: now,
            told: Cell::new(false),
            passing: None,
        }
    }

    /// What becomes of it is told to whoever listens.
    pub(crate) fn watched(mut self, passing: Option<&Rc<Passing>>) -> Self {
        self.passing = passing.cloned();
        self
    }

    /// The instance that has the request.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// It is a repeat of one that failed elsewhere.
    pub fn is_retry(&self) {
        self.slot().retries.add(1);
    }

    /// The head of the final answer is there.
    pub fn answered(&self, status: u16, now: Moment) {
        self.tell();
        if let Some(passing) = &self.passing {
            passing.answered(status);
        }
        let (slot, latency) = (self.slot(), now.since(self.began));
        let counters = slot.endpoints.get(self.endpoint);
        counters.latency.record(latency);
        if status >= 500 {
            slot.count_error(ErrorKind::Status5xx, self.endpoint);
            slot.failures.add(now);
            slot.observe((latency.as_nanos() as f64).max(slot.latency(now)), now);
        } else {
            let nanos = latency.as_nanos() as f64;
            slot.observe(nanos, now);
            slot.limit.answered(&counters.pace, nanos, now);
        }
        if matches!(status, 502..=504) {
            self.live.silent(self.worker, now);
        } else {
            self.live.heard(self.worker, now);
        }
    }

    /// The request failed.
    pub fn failed(&self, kind: ErrorKind, now: Moment) {
        if let Some(passing) = &self.passing {
            passing.failed(kind);
        }
        if self.tell() && kind == ErrorKind::Timeout {
            self.given_up(now);
        }
        self.slot().count_error(kind, self.endpoint);
        if kind == ErrorKind::Connect {
            self.live.eject(now);
        }
        if kind.is_the_instances() {
            let took = now.since(self.began);
            // Whoever gives it next to no time learns nothing about it.
            let was_hurried = kind == ErrorKind::Timeout && took < FAILURE_LATENCY;
            let latency = if was_hurried {
                took
            } else {
                took.max(FAILURE_LATENCY)
            };
            self.slot().observe(latency.as_nanos() as f64, now);
            if !was_hurried {
                self.slot().failures.add(now);
                self.live.silent(self.worker, now);
            }
        }
    }

    /// The node of its server sent it nowhere: there the instance is gone already, or drains. That
    /// is no failure, but nothing more is sent there for a time.
    pub fn turned_away(&self, now: Moment) {
        self.tell();
        self.live.eject(now);
    }

    /// Bytes that were sent to the instance: of the request's body, and over HTTP/1.1 of its head too.
    pub fn sent(&self, bytes: u64) {
        self.slot().bytes_in.add(bytes);
        if let Some(passing) = &self.passing {
            passing.moved(bytes, 0);
        }
    }

    /// Bytes of the answer's body that were received from the instance.
    pub fn received(&self, bytes: u64) {
        self.slot().bytes_out.add(bytes);
        if let Some(passing) = &self.passing {
            passing.moved(0, bytes);
        }
    }

    /// It waits no longer; tells whether it did until now.
    fn tell(&self) -> bool {
        let waited = !self.told.replace(true);
        if waited {
            self.slot().limit.end();
        }
        waited
    }

    fn given_up(&self, now: Moment) {
        let (slot, after) = (self.slot(), now.since(self.began));
        let pace = &slot.endpoints.get(self.endpoint).pace;
        slot.limit.given_up(pace, after.as_nanos() as f64, now);
    }

    fn slot(&self) -> &Slot {
        self.live.slot(self.worker)
    }
}

impl<L: Deref<Target = Live>> Drop for InFlight<L> {
    fn drop(&mut self) {
        let slot = self.slot();
        slot.in_flight.subtract(1);
        if self.tell() {
            slot.count_error(ErrorKind::Canceled, self.endpoint);
            self.given_up(Moment::now());
            if let Some(passing) = &self.passing {
                passing.failed(ErrorKind::Canceled);
            }
        }
    }
}
