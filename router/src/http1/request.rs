//! A request on its way to an instance: what is needed to send it, and to send it again.

use std::future::Future as _;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::body::Body;
use super::forward::Way;
use crate::decide::Route;
use crate::priority::Priority;
use crate::rule::Compiled;
use crate::service::Instance;

/// How much of a request is kept, head and body, so that it can be sent again.
const MAX_REPLAY: u64 = 64 * 1024;

/// A request as instances get it. Kept over all attempts.
#[derive(Debug)]
pub(super) struct Request {
    /// The head, and the body as far as it is kept or not yet sent.
    pub(super) bytes: Vec<u8>,
    /// How many of them were sent in this attempt.
    pub(super) sent: usize,
    /// What is still to come from the client.
    pub(super) body: Body,
    /// `bytes` begins with the head and misses nothing.
    pub(super) whole: bool,
    /// Some of it was sent in an earlier attempt.
    pub(super) seen: bool,
    /// It goes through the node of another server, which may yet say that it was sent nowhere.
    pub(super) afar: bool,
    /// The node of the other server has a connection to the instance.
    pub(super) reached: bool,
    /// A repeat is safe.
    pub(super) repeatable: bool,
    /// How much it matters when there are too many.
    pub(super) priority: Priority,
    /// HEAD: the answer has no body.
    pub(super) to_head: bool,
    /// The client speaks HTTP/1.1.
    pub(super) http11: bool,
    /// The client wants to send more requests on the connection.
    pub(super) keep_alive: bool,
    /// The client wants to change to another protocol.
    pub(super) wants_upgrade: bool,
    /// What was cut off the path.
    pub(super) cut: Box<[u8]>,
    /// Where the path begins in `bytes`, and how long it is there.
    pub(super) path: (usize, usize),
    /// Where the lines are that only this way has.
    pub(super) way: Range<usize>,
    /// The caller has a token.
    pub(super) has_token: bool,
    /// The rule that changes the head of the answer.
    pub(super) rule: Option<Arc<Compiled>>,
    /// When the caller waits no longer.
    pub(super) deadline: Option<Pin<Box<tokio::time::Sleep>>>,
    /// How long one attempt may wait, where a rule says so.
    pub(super) patience: Option<Box<Patience>>,
}

/// How long an attempt waits for the head of an answer.
#[derive(Debug)]
pub(super) struct Patience {
    span: Duration,
    until: Pin<Box<tokio::time::Sleep>>,
    /// This attempt has had all of it.
    over: bool,
}

impl Patience {
    pub(super) fn new(span: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(span));
        let over = false;
        Self { span, until, over }
    }

    /// It begins anew.
    pub(super) fn begin(&mut self) {
        self.over = false;
        let until = tokio::time::Instant::now() + self.span;
        self.until.as_mut().reset(until);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.over = self.until.as_mut().poll(cx).is_ready();
        match self.over {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Request {
    /// Ready when the caller, or this attempt, waits no longer.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(());
        }
        self.poll_patience(cx, false)
    }

    /// Ready when this attempt waits no longer. It begins anew as long as the client is the slow one.
    pub(super) fn poll_patience(&mut self, cx: &mut Context<'_>, client_is_slow: bool) -> Poll<()> {
        let Some(patience) = &mut self.patience else {
            return Poll::Pending;
        };
        ready!(patience.poll(cx));
        if client_is_slow {
            patience.begin();
            return patience.poll(cx);
        }
        Poll::Ready(())
    }

    /// This attempt has had its time, and the caller still waits.
    pub(super) fn gave_up(&self) -> bool {
        self.patience.as_ref().is_some_and(|patience| patience.over)
    }

    /// Keeps more of the body, if it can still be needed and the limit allows; else everything
    /// that was sent is forgotten, and this must be sent straight on.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.is_kept_with(bytes.len() as u64) {
            self.bytes.extend_from_slice(bytes);
            return true;
        }
        self.forget_sent();
        false
    }

    /// Whether so much more would be kept.
    pub(super) fn is_kept_with(&self, more: u64) -> bool {
        let fits = self.bytes.len() as u64 + more <= MAX_REPLAY;
        self.whole && (self.may_come_back() || (self.repeatable && fits))
    }

    /// The node of the other server may yet say that it was sent nowhere.
    fn may_come_back(&self) -> bool {
        self.afar && !self.reached && self.whole
    }

    /// No more is read of a body that can't be kept, until the node of the other server has a
    /// connection to the instance.
    pub(super) fn is_held(&self) -> bool {
        self.may_come_back() && self.bytes.len() as u64 >= MAX_REPLAY
    }

    /// Whether the node that sends it holds back the rest of its body until it hears that there is
    /// a connection to the instance.
    pub(super) fn waits_for_word(&self) -> bool {
        match self.body {
            Body::Length(left) => self.bytes.len() as u64 + left > MAX_REPLAY,
            Body::Chunked(_) => true,
            Body::Done | Body::UntilClose => false,
        }
    }

    /// From now on it can't be sent again. All of `bytes` was sent.
    pub(super) fn forget_sent(&mut self) {
        self.whole = false;
        self.bytes.clear();
        self.sent = 0;
    }

    /// Not one byte was sent to the instance.
    pub(super) fn is_untouched(&self) -> bool {
        self.whole && self.sent == 0
    }

    /// It may be sent again although an instance may have seen it.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.repeatable && self.whole && self.body.is_done()
    }

    /// Sends it from its beginning again, though an instance may have seen it.
    pub(super) fn rewind(&mut self) {
        self.seen |= self.sent > 0;
        self.sent = 0;
    }

    /// Sends it from its beginning again: no instance has seen any of it. False when that is no
    /// longer possible.
    pub(super) fn take_back(&mut self) -> bool {
        if self.whole {
            self.sent = 0;
        }
        self.whole
    }

    /// Sends it to another instance, to which another way may lead.
    pub(super) fn readdress(
        &mut self,
        route: &Route<'_>,
        instance: &Instance,
        token: Option<&[u8]>,
    ) {
        self.rewind();
        let (start, len) = self.path;
        let target = [&self.cut, &self.bytes[start..start + len]].concat();
        let token = token.filter(|_| self.has_token);
        let (way, path) = Way::to(route, instance, &target, token);
        let mut lines = Vec::new();
        way.write(&mut lines);
        // What stands behind first, so that places before it stay what they are.
        let new = self.way.start..self.way.start + lines.len();
        self.bytes
            .splice(std::mem::replace(&mut self.way, new), lines);
        self.bytes.splice(start..start + len, path.iter().copied());
        self.way.start = self.way.start + path.len() - len;
        self.way.end = self.way.end + path.len() - len;
        self.path.1 = path.len();
        self.cut = way.cut.into();
    }
}

#[cfg(test)]
mod tests {
    use hydrant_contracts as contracts;
    use hydrant_contracts::{Caller, InstanceState, PathPrefix};

    use super::*;
    use crate::clock::Moment;
    use crate::decide::{self, Listener};
    use crate::http1::body::Framing;
    use crate::http1::head::{fields, parse_request};
    use crate::http1::{Forward, Way};
    use crate::snapshot::Snapshot;
    use crate::table::Table;

    fn instance(id: &str, server: &str, strip: bool) -> Arc<contracts::Instance> {
        let service = "api/t".parse().unwrap();
        Arc::new(contracts::Instance {
            id: id.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            server: server.into(),
            address: "127.0.0.1:1".parse().unwrap(),
            http2: false,
            methods: Vec::new(),
            prefixes: vec![PathPrefix::new(&service, "/api/t/", strip).unwrap()],
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
            repeatable_paths: Vec::new(),
            service,
        })
    }

    fn snapshot() -> Snapshot {
        let server = contracts::Server {
            name: "two".parse().unwrap(),
            zone: Default::default(),
            peer: Some("127.0.0.1:2".parse().unwrap()),
            version: "1.0.0".parse().unwrap(),
            since_unix_ms: 0,
            pid: 0,
        };
        let table = Table {
            own: "one".parse().unwrap(),
            servers: vec![Arc::new(server)],
            rules: Arc::default(),
            instances: vec![
                instance("cuts", "one", true),
                instance("keeps", "one", false),
                instance("there", "two", true),
                instance("there-too", "two", true),
            ],
        };
        Snapshot::empty(1).next(&table, Moment::now())
    }

    /// However often a request is sent on, it reads as if it had gone that way at once.
    #[test]
    fn another_way_leaves_no_trace_of_the_one_before() {
        let snapshot = snapshot();
        let text = "POST /api/t/a?b HTTP/1.1\r\nhost: x\r\nhydrant-token: t\r\ncontent-length: 4\r\n\
                    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
                    correlation-id: c\r\n\r\nbody";
        let asked = decide::Request {
            listener: Listener::Public,
            caller: &Caller::Outside,
            method: b"POST",
            target: b"/api/t/a?b",
            server: None,
            to: None,
        };
        let route = decide::decide(&snapshot, &asked).unwrap();
        let all = &route.service.instances;
        let written = |instance: &Instance| {
            let mut room = fields();
            let head = parse_request(text.as_bytes(), &mut room).unwrap().unwrap();
            let (way, path) = Way::to(&route, instance, head.path.as_bytes(), head.token);
            let forward = Forward {
                way,
                client: crate::proxies::Client::PLAIN,
                write: crate::proxies::Written::default(),
                default_host: "h",
                caller: "outside",
                priority: Priority::Normal,
                from_peer: false,
                target: None,
                changes: None,
            };
            let mut bytes = Vec::new();
            let lines = head.write(text.as_bytes(), &forward, &mut bytes);
            bytes.extend_from_slice(&text.as_bytes()[head.len..]);
            (bytes, lines, ("POST ".len(), path.len()), way.cut.to_vec())
        };
        for first in all {
            let (bytes, way, path, cut) = written(first);
            let mut request = Request {
                bytes,
                sent: 10,
                body: Body::new(Framing::Empty, true),
                whole: true,
                seen: false,
                afar: false,
                reached: false,
                repeatable: false,
                priority: Priority::Normal,
                to_head: false,
                http11: true,
                keep_alive: true,
                wants_upgrade: false,
                cut: cut.into(),
                path,
                way,
                has_token: true,
                rule: None,
                deadline: None,
                patience: None,
            };
            for next in all.iter().chain(all.iter().rev()) {
                request.readdress(&route, next, Some(b"t"));
                let expected = written(next).0;
                assert_eq!(
                    String::from_utf8_lossy(&request.bytes),
                    String::from_utf8_lossy(&expected),
                    "from {} to {}",
                    first.info.id,
                    next.info.id
                );
            }
            assert!(request.seen && request.sent == 0);
        }
    }
}
