//! Requests as they pass, told to whoever listens: a share of them to the access log, and all of them
//! while somebody taps. As long as nobody listens, a request costs one look at a flag.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hydrant_contracts::{InstanceId, ServiceId, Version, header};
use tokio::sync::broadcast::{self, error::TryRecvError};

use crate::clock::Moment;
use crate::decide::{Listener, Route};
use crate::instance::ErrorKind;
use crate::refusal::Refusal;
use crate::service::Instance;

/// Requests that wait to be heard; who is slower misses some.
const WAITING: usize = 4096;
/// How often who listens looks whether there is something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much of a path is told, in bytes.
const LONGEST_PATH: usize = 1024;
/// Every request.
const ALL: u32 = u32::MAX;

/// A request that has passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// The HTTP method.
    pub method: String,
    /// Path and query as they came, the first KB of them.
    pub target: String,
    /// The host that was addressed; empty when none was.
    pub host: String,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// Where it came from.
    pub client: Option<IpAddr>,
    /// Who called, as proved; empty when its token is wrong.
    pub caller: String,
    /// It came in at the local listener; else at the public one.
    pub local: bool,
    /// The service that was addressed, if it is one of the fleet's.
    pub service: Option<ServiceId>,
    /// The endpoint of it.
    pub endpoint: String,
    /// The instance that it was sent to last.
    pub instance: Option<InstanceId>,
    /// The version of that instance.
    pub version: Option<Version>,
    /// The server on which that instance runs; empty without one.
    pub server: String,
    /// To how many instances it was sent.
    pub attempts: u32,
    /// The status of the answer; 0 when the client got none.
    pub status: u16,
    /// Why the router answered itself, or what went wrong with the instance; empty when all was well.
    pub failure: &'static str,
    /// What was said of the failure.
    pub message: String,
    /// Bytes that were sent to instances: of the body, and over HTTP/1.1 of the head too.
    pub bytes_in: u64,
    /// Bytes of the body that came back.
    pub bytes_out: u64,
    /// Until the head of the answer; `None` when there was none.
    pub answered_after: Option<Duration>,
    /// Until all was over.
    pub duration: Duration,
    /// The `traceparent` that went on with it; empty when it went nowhere.
    pub trace_parent: String,
    /// The `correlation-id` that went on with it; empty when it went nowhere.
    pub correlation_id: String,
    /// It is one of the share that is told though nobody taps.
    pub is_sampled: bool,
}

/// Who listens to the requests of a router.
#[derive(Debug)]
pub struct Taps {
    /// 0 when nobody listens, [`ALL`] when somebody taps, else as `share`.
    wanted: AtomicU32,
    /// The share that is always told, of 2^32.
    share: AtomicU32,
    taps: AtomicUsize,
    told: broadcast::Sender<Arc<Passed>>,
}

impl Default for Taps {
    fn default() -> Self {
        Self {
            wanted: AtomicU32::new(0),
            share: AtomicU32::new(0),
            taps: AtomicUsize::new(0),
            told: broadcast::Sender::new(WAITING),
        }
    }
}

impl Taps {
    /// From now on this share of all requests, between 0 and 1, is told to [`Taps::sampled`].
    pub fn sample(&self, share: f64) {
        let share = (share.clamp(0.0, 1.0) * f64::from(ALL)) as u32;
        self.share.store(share, Relaxed);
        self.settle();
    }

    /// Listens to the share that is always told. What others tap comes too, and says so.
    pub fn sampled(&self) -> Tap {
        self.listen(None)
    }

    /// Listens to every request, as long as it lives.
    pub fn all(self: &Arc<Self>) -> Tap {
        self.taps.fetch_add(1, Relaxed);
        self.settle();
        self.listen(Some(Arc::downgrade(self)))
    }

    fn listen(&self, counts: Option<Weak<Self>>) -> Tap {
        let told = self.told.subscribe();
        Tap { told, counts }
    }

    fn settle(&self) {
        let wanted = match self.taps.load(Relaxed) {
            0 => self.share.load(Relaxed),
            _ => ALL,
        };
        self.wanted.store(wanted, Relaxed);
    }

    /// Whether the next request is to be told, and why.
    fn draw(&self, rng: impl FnOnce() -> u32) -> Option<Draw> {
        let wanted = self.wanted.load(Relaxed);
        if wanted == 0 {
            return None;
        }
        let is_sampled = rng() <= self.share.load(Relaxed);
        (is_sampled || wanted == ALL).then_some(Draw { is_sampled })
    }
}

struct Draw {
    is_sampled: bool,
}

/// Hears of requests. Slow ears hear less, and hold up nobody.
#[derive(Debug)]
pub struct Tap {
    told: broadcast::Receiver<Arc<Passed>>,
    /// Where it counts as somebody who taps.
    counts: Option<Weak<Taps>>,
}

/// What a tap hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A request that has passed.
    Passed(Arc<Passed>),
    /// So many more have passed than it could hear.
    Missed(u64),
}

impl Tap {
    /// The next one, at most a tenth of a second late; `None` when the router has ended.
    ///
    /// It looks now and then instead of being woken: to wake it for each would cost the router's thread a call of the
    /// system, and on a busy machine its turn.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.told.try_recv() {
                Ok(passed) => return Some(Heard::Passed(passed)),
                Err(TryRecvError::Lagged(count)) => return Some(Heard::Missed(count)),
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(taps) = self.counts.as_ref().and_then(Weak::upgrade) {
            taps.taps.fetch_sub(1, Relaxed);
            taps.settle();
        }
    }
}

/// A request that is to be told, from its head to the end of its answer. It is told when the last
/// who holds it lets go.
#[derive(Debug)]
pub(crate) struct Passing {
    taps: Arc<Taps>,
    began: Moment,
    passed: RefCell<Passed>,
}

/// What is known of a request from its head alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) listener: Listener,
    pub(crate) client: IpAddr,
    pub(crate) protocol: &'static str,
    pub(crate) method: &'a str,
    pub(crate) target: &'a [u8],
    pub(crate) host: Option<&'a str>,
}

impl Passing {
    /// `None` when nobody wants to hear of it. What another node sends is told there.
    pub(crate) fn begin<'a>(
        taps: &Arc<Taps>,
        rng: impl FnOnce() -> u32,
        asked: impl FnOnce() -> Asked<'a>,
    ) -> Option<Rc<Self>> {
        let Draw { is_sampled } = taps.draw(rng)?;
        let asked = asked();
        if asked.listener == Listener::Peer {
            return None;
        }
        let target = &asked.target[..asked.target.len().min(LONGEST_PATH)];
        let passed = Passed {
            method: asked.method.to_owned(),
            target: String::from_utf8_lossy(target).into_owned(),
            host: asked.host.unwrap_or_default().to_owned(),
            protocol: asked.protocol,
            client: Some(asked.client.to_canonical()),
            local: asked.listener == Listener::Local,
            is_sampled,
            ..Passed::default()
        };
        Some(Rc::new(Self {
            taps: Arc::clone(taps),
            began: Moment::now(),
            passed: RefCell::new(passed),
        }))
    }

    pub(crate) fn caller(&self, caller: &str) {
        caller.clone_into(&mut self.passed.borrow_mut().caller);
    }

    pub(crate) fn route(&self, route: &Route<'_>) {
        let mut passed = self.passed.borrow_mut();
        passed.service = Some(route.service.id.clone());
        passed.endpoint = route.endpoint.name.to_string();
    }

    /// The head as it goes on, in the lines of HTTP/1.1.
    pub(crate) fn context(&self, head: &[u8]) {
        let mut passed = self.passed.borrow_mut();
        passed.trace_parent = field(head, header::TRACEPARENT);
        passed.correlation_id = field(head, header::CORRELATION_ID);
    }

    /// The same from fields.
    pub(crate) fn context_of(&self, headers: &http::HeaderMap) {
        let field = |name| {
            let value = headers.get(name).map(|value| value.as_bytes());
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        let mut passed = self.passed.borrow_mut();
        passed.trace_parent = field(header::TRACEPARENT);
        passed.correlation_id = field(header::CORRELATION_ID);
    }

    pub(crate) fn sent_to(&self, instance: &Instance) {
        let mut passed = self.passed.borrow_mut();
        passed.attempts += 1;
        passed.instance = Some(instance.info.id.clone());
        passed.version = Some(instance.info.version.clone());
        passed.server = instance.info.server.to_string();
    }

    pub(crate) fn answered(&self, status: u16) {
        let mut passed = self.passed.borrow_mut();
        passed.status = status;
        passed.failure = "";
        passed.answered_after = Some(Moment::now().since(self.began));
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        self.passed.borrow_mut().failure = kind.as_str();
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        let mut passed = self.passed.borrow_mut();
        passed.status = refusal.reason.status();
        passed.failure = refusal.reason.as_str();
        passed.message = refusal.message.to_string();
        passed.answered_after = Some(Moment::now().since(self.began));
    }

    pub(crate) fn moved(&self, bytes_in: u64, bytes_out: u64) {
        let mut passed = self.passed.borrow_mut();
        passed.bytes_in += bytes_in;
        passed.bytes_out += bytes_out;
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut passed = self.passed.take();
        passed.duration = Moment::now().since(self.began);
        // Nobody listens any longer.
        let _ = self.taps.told.send(Arc::new(passed));
    }
}

/// The value of a field that the router itself has checked or written.
fn field(head: &[u8], name: &str) -> String {
    let value = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.trim_ascii())
    });
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(listener: Listener) -> Asked<'static> {
        Asked {
            listener,
            client: [10, 0, 0, 1].into(),
            protocol: "HTTP/1.1",
            method: "GET",
            target: b"/api/t/a?b",
            host: Some("x"),
        }
    }

    fn begin(taps: &Arc<Taps>, drawn: u32) -> Option<Rc<Passing>> {
        Passing::begin(taps, || drawn, || asked(Listener::Public))
    }

    #[test]
    fn nobody_listens_and_nothing_is_drawn() {
        let taps = Arc::default();
        let drawn = || panic!("nobody listens");
        assert!(Passing::begin(&taps, drawn, || asked(Listener::Public)).is_none());
        drop(taps.all());
        assert!(begin(&taps, 0).is_none());
    }

    #[test]
    fn a_share_is_told_and_a_tap_hears_all() {
        let taps: Arc<Taps> = Arc::default();
        taps.sample(0.25);
        assert!(begin(&taps, ALL / 4 - 1).is_some());
        assert!(begin(&taps, ALL / 4 + 2).is_none());
        let mut tap = taps.all();
        begin(&taps, ALL / 2).unwrap().answered(200);
        begin(&taps, 1).unwrap().failed(ErrorKind::Canceled);
        assert!(Passing::begin(&taps, || 1, || asked(Listener::Peer)).is_none());
        let mut heard = || match tap.told.try_recv() {
            Ok(passed) => (passed.status, passed.failure, passed.is_sampled),
            other => panic!("{other:?}"),
        };
        assert_eq!(heard(), (200, "", false));
        assert_eq!(heard(), (0, "canceled", true));
        drop(tap);
        assert!(begin(&taps, ALL / 2).is_none());
    }

    #[test]
    fn slow_ears_miss_what_was_too_much() {
        let taps: Arc<Taps> = Arc::default();
        let mut tap = taps.all();
        for _ in 0..WAITING + 10 {
            drop(begin(&taps, 1));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let heard = runtime.unwrap().block_on(tap.next());
        assert!(matches!(heard, Some(Heard::Missed(10))), "{heard:?}");
    }

    #[test]
    fn context_is_found_in_a_head() {
        let head = b"GET / HTTP/1.1\r\nhost: x\r\ntraceparent-x: 0\r\nTraceparent:  1-2 \r\n\r\n";
        assert_eq!(field(head, "traceparent"), "1-2");
        assert_eq!(field(head, "correlation-id"), "");
        assert_eq!(field(b"", "traceparent"), "");
    }
}
