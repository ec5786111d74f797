//! A client's connection: one request after the other.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::body::Body;
use super::exchange::{End, Exchange};
use super::forward::{Forward, Way};
use super::head::{HeadError, RequestHead, fields, parse_request};
use super::refuse::{Form, answer, style_of};
use super::request::Request;
use super::tunnel;
use crate::alarms::Alarm;
use crate::balance::{Chooser, Tried, choose};
use crate::clock::Moment;
use crate::decide::{self, Listener, Route, decide};
use crate::http2;
use crate::identity::Identities;
use crate::instance::{ErrorKind, InFlight, Live};
use crate::peer::Peer;
use crate::refusal::{Reason, Refusal, Unsent, Verdict};
use crate::service::Instance;
use crate::snapshot::Snapshot;
use crate::stream::Stream;
use crate::tls::Protocol;
use crate::upstream::{SILENCE, connect, connect_peer};
use crate::worker::Worker;

/// What a client of HTTP/2 with prior knowledge sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Tells another node, before the answer, that there is a connection to the instance.
const REACHED: &[u8] = b"HTTP/1.1 102 Processing\r\nhydrant-to: reached\r\n\r\n";
/// How long, and how much, is read from a client that was refused, so that it can read why.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_IDLE: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// A client and what is known of it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    /// What was read and not yet used: the beginning of a head, or requests sent ahead.
    pub(super) stash: Vec<u8>,
    pub(super) alarm: Alarm,
    address: SocketAddr,
    address_text: Box<str>,
    listener: Listener,
    identities: Identities,
    /// Nothing but HTTP/1 was spoken so far.
    spoke: bool,
}

/// What happens to the connection after a request.
enum Then {
    /// The next request.
    Next,
    /// It is closed, after the client had time to read what it was told.
    Linger,
    /// It is closed.
    Close,
    /// It is reset, so that the client sees that the answer is not complete.
    Reset,
    /// The client speaks HTTP/2.
    Http2,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: Stream,
    address: SocketAddr,
    listener: Listener,
) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut client = Client {
        stream,
        stash: Vec::new(),
        alarm: worker.alarms.alarm(waker),
        address,
        address_text: address.ip().to_canonical().to_string().into(),
        listener,
        identities: Identities::new(),
        spoke: false,
    };
    let then = loop {
        match serve_one(&worker, &mut client).await {
            Then::Next => client.spoke = true,
            then => break then,
        }
    };
    match then {
        Then::Next | Then::Close => {}
        Then::Linger => linger(&worker, client.stream).await,
        Then::Reset => client.stream.reset_at_close(),
        Then::Http2 => {
            let Client {
                stream,
                stash,
                address,
                listener,
                ..
            } = client;
            Box::pin(http2::serve(worker, stream, stash, address, listener)).await;
        }
    }
}

/// What came of the bytes that have arrived.
enum Taken<'s> {
    /// The head is not complete yet.
    Partial,
    /// They are the beginning of HTTP/2.
    Http2,
    /// The router answers itself.
    Refused(Refusal, Form),
    /// A request that goes to an instance.
    Accepted(Box<Accepted<'s>>),
}

struct Accepted<'s> {
    route: Route<'s>,
    instance: &'s Arc<Instance>,
    request: Request,
    form: Form,
}

async fn serve_one(worker: &Worker, client: &mut Client) -> Then {
    let mut arrived = 0;
    let mut begun = false;
    client.alarm.set(worker.limits.client_idle);
    loop {
        let snapshot = worker.snapshot();
        if arrived > 0 || !client.stash.is_empty() {
            match take(worker, client, &snapshot, arrived) {
                Taken::Partial if begun => {}
                Taken::Partial => {
                    begun = true;
                    client.alarm.set(worker.limits.head);
                }
                Taken::Http2 => return Then::Http2,
                Taken::Refused(refusal, form) => {
                    return refuse(worker, client, refusal, form).await;
                }
                Taken::Accepted(accepted) => return deliver(worker, client, *accepted).await,
            }
        }
        drop(snapshot);
        arrived = match poll_fn(|cx| poll_arrival(worker, client, cx)).await {
            Arrival::Bytes(count) => count,
            Arrival::End => return Then::Close,
            Arrival::Late => {
                let message = "the head of the request did not arrive in time";
                let refusal = Refusal::new(Reason::HeadTimeout, message);
                return refuse(worker, client, refusal, Form::UNKNOWN).await;
            }
        };
    }
}

enum Arrival {
    Bytes(usize),
    /// The client closed, or there is no reason to wait for it any longer.
    End,
    /// A head was begun and not finished in time.
    Late,
}

fn poll_arrival(worker: &Worker, client: &mut Client, cx: &mut Context<'_>) -> Poll<Arrival> {
    match worker.scratch.poll_read(&mut client.stream, cx) {
        Poll::Ready(Ok(count)) if count > 0 => return Poll::Ready(Arrival::Bytes(count)),
        Poll::Ready(_) => return Poll::Ready(Arrival::End),
        Poll::Pending => {}
    }
    let is_idle = client.stash.is_empty();
    if is_idle && (worker.is_draining() || client.alarm.rings()) {
        return Poll::Ready(Arrival::End);
    }
    if client.alarm.rings() {
        return Poll::Ready(Arrival::Late);
    }
    Poll::Pending
}

/// Makes of the bytes that have arrived what they are. Nothing here waits: they lie in the
/// worker's scratch buffer, where the next read of any connection goes.
fn take<'s>(
    worker: &Worker,
    client: &mut Client,
    snapshot: &'s Snapshot,
    arrived: usize,
) -> Taken<'s> {
    let scratch = worker.scratch.bytes(arrived);
    let mut stash = std::mem::take(&mut client.stash);
    let direct = stash.is_empty();
    if !direct {
        stash.extend_from_slice(&scratch);
    }
    let bytes = if direct { &*scratch } else { &*stash };
    let (taken, used) = take_bytes(worker, client, snapshot, bytes);
    if direct {
        stash.extend_from_slice(&scratch[used..]);
    } else {
        stash.drain(..used);
        if stash.is_empty() {
            stash = Vec::new();
        }
    }
    client.stash = stash;
    taken
}

/// Tells also how many of the bytes were used.
fn take_bytes<'s>(
    worker: &Worker,
    client: &mut Client,
    snapshot: &'s Snapshot,
    bytes: &[u8],
) -> (Taken<'s>, usize) {
    if !client.spoke && bytes.starts_with(b"PRI") {
        if bytes.starts_with(HTTP2_PREFACE) {
            return (Taken::Http2, 0);
        }
        if HTTP2_PREFACE.starts_with(bytes) {
            return (Taken::Partial, 0);
        }
    }
    let mut room = fields();
    let head = match parse_request(bytes, &mut room) {
        Ok(Some(head)) => head,
        Ok(None) => return (Taken::Partial, 0),
        Err(error) => return (Taken::Refused(refusal_of(error), Form::UNKNOWN), 0),
    };
    let mut form = Form {
        style: style_of(&head),
        close: !head.keep_alive || worker.is_draining(),
        http11: head.http11,
        to_head: head.method == "HEAD",
    };
    let mut body = Body::new(head.framing, true);
    let used = match body.scan(&bytes[head.len..], None) {
        Ok(taken) => head.len + taken,
        Err(error) => {
            let refusal = Refusal::new(Reason::BadRequest, error.0);
            return (Taken::Refused(refusal, Form::UNKNOWN), 0);
        }
    };
    form.close |= !body.is_done();
    let taken = match accept(worker, client, snapshot, &head, bytes, body, form) {
        Ok(accepted) => {
            let mut accepted = Box::new(accepted);
            accepted
                .request
                .bytes
                .extend_from_slice(&bytes[head.len..used]);
            Taken::Accepted(accepted)
        }
        Err(refusal) => {
            form.close |= refusal.reason == Reason::BadRequest;
            Taken::Refused(refusal, form)
        }
    };
    (taken, used)
}

fn accept<'s>(
    worker: &Worker,
    client: &mut Client,
    snapshot: &'s Snapshot,
    head: &RequestHead<'_>,
    bytes: &[u8],
    body: Body,
    form: Form,
) -> Result<Accepted<'s>, Refusal> {
    let who = client.identities.resolve(&worker.key, head.token)?;
    let route = decide(
        snapshot,
        &decide::Request {
            listener: client.listener,
            caller: &who.caller,
            method: head.method.as_bytes(),
            target: head.path.as_bytes(),
            server: head.server,
            to: head.to,
        },
    )?;
    let instance = choose_instance(worker, &route, &Tried::default())?;
    let (way, path) = Way::to(&route, instance, head.path.as_bytes(), head.token);
    let forward = Forward {
        way,
        client: &client.address_text,
        default_host: worker.host(client.listener),
        caller: &who.text,
        from_peer: client.listener == Listener::Peer,
    };
    let mut out = worker.scratch.take_buffer();
    let way_lines = head.write(bytes, &forward, &mut out);
    let request = Request {
        bytes: out,
        sent: 0,
        body,
        whole: true,
        seen: false,
        afar: false,
        reached: false,
        repeatable: route.repeatable && head.upgrade.is_none(),
        to_head: head.method == "HEAD",
        http11: head.http11,
        keep_alive: head.keep_alive,
        wants_upgrade: head.upgrade.is_some(),
        cut: way.cut.into(),
        path: (head.method.len() + 1, path.len()),
        way: way_lines,
        has_token: head.token.is_some(),
        deadline: head
            .timeout
            .map(|timeout| Box::pin(tokio::time::sleep(timeout.duration()))),
    };
    Ok(Accepted {
        route,
        instance,
        request,
        form,
    })
}

fn choose_instance<'s>(
    worker: &Worker,
    route: &Route<'s>,
    tried: &Tried,
) -> Result<&'s Arc<Instance>, Refusal> {
    let chooser = Chooser {
        worker: worker.index,
        now: Moment::now(),
    };
    choose(route, tried, chooser, &mut worker.rng())
}

fn refusal_of(error: HeadError) -> Refusal {
    match error {
        HeadError::Malformed(what) => Refusal::new(Reason::BadRequest, what),
        HeadError::TooLarge => {
            let message = "the head is larger than 64 KB or has more than 100 fields";
            Refusal::new(Reason::HeadTooLarge, message)
        }
    }
}

/// Answers instead of an instance.
async fn refuse(worker: &Worker, client: &mut Client, refusal: Refusal, form: Form) -> Then {
    let snapshot = worker.snapshot();
    snapshot.totals().refused(worker.index, refusal.reason);
    drop(snapshot);
    let bytes = answer(&refusal, form);
    let written = tokio::time::timeout(worker.limits.send, client.stream.write_all(&bytes)).await;
    match written {
        Ok(Ok(())) if form.close => Then::Linger,
        Ok(Ok(())) => Then::Next,
        _ => Then::Close,
    }
}

/// How an attempt at one instance ended.
enum Attempt {
    /// The client has its answer, or is gone.
    Over(Then),
    /// The instance failed, or the way to it, and the client knows nothing of it; what it is told
    /// when nothing else helps.
    Failed(ErrorKind, Refusal),
    /// The client's body is malformed, or came too late.
    Refused(Refusal),
}

/// Sends the request to an instance, and to others when that fails and may be repeated.
async fn deliver(worker: &Worker, client: &mut Client, accepted: Accepted<'_>) -> Then {
    let Accepted {
        route,
        instance,
        mut request,
        mut form,
    } = accepted;
    let budget = route.service.live.budget(worker.index);
    budget.request(Moment::now());
    let mut tried = Tried::default();
    tried.add(instance);
    let mut attempted = attempt(worker, client, &route, instance, &mut request, false).await;
    let refusal = loop {
        let (kind, refusal) = match attempted {
            Attempt::Over(then) => {
                worker
                    .scratch
                    .give_buffer(std::mem::take(&mut request.bytes));
                return then;
            }
            Attempt::Refused(refusal) => break refusal,
            Attempt::Failed(kind, refusal) if client.listener == Listener::Peer => {
                break tell_first_node(kind, refusal, &request);
            }
            Attempt::Failed(kind, refusal) => (kind, refusal),
        };
        let untouched = request.is_untouched();
        let allowed = kind != ErrorKind::Timeout
            && !tried.is_full()
            && (untouched || (request.may_be_repeated() && budget.take_retry(Moment::now())));
        if !allowed {
            break refusal;
        }
        // While that failed, others may have come.
        let snapshot = worker.snapshot();
        let route = route.renewed(&snapshot).unwrap_or(route);
        let next = match choose_instance(worker, &route, &tried) {
            Ok(next) => next,
            Err(none_left) if untouched => break none_left,
            Err(_) => break refusal,
        };
        tried.add(next);
        request.readdress(&route, next, client.identities.token());
        attempted = attempt(worker, client, &route, next, &mut request, true).await;
    };
    form.close |= !request.body.is_done() || refusal.reason == Reason::BadRequest;
    refuse(worker, client, refusal, form).await
}

/// Another node has chosen the instance, so it chooses the next one too. It must know whether the
/// instance may have seen anything.
fn tell_first_node(kind: ErrorKind, refusal: Refusal, request: &Request) -> Refusal {
    let untouched = request.is_untouched() && !request.seen;
    match kind {
        ErrorKind::Connect if untouched => refusal.unsent(Unsent::Refused),
        ErrorKind::Local if untouched => refusal.unsent(Unsent::Overloaded),
        ErrorKind::Connect | ErrorKind::Local => refusal.broken(ErrorKind::Closed),
        ErrorKind::Closed | ErrorKind::Protocol => refusal.broken(kind),
        _ => refusal,
    }
}

fn failure(kind: ErrorKind, instance: &Instance) -> Refusal {
    let id = &instance.info.id;
    match kind {
        ErrorKind::Timeout => {
            let message = format!("{id} did not answer in time");
            Refusal::new(Reason::DeadlineExceeded, message)
        }
        ErrorKind::Connect => {
            let message = format!("{id} refuses connections");
            Refusal::new(Reason::NoHealthyInstance, message)
        }
        ErrorKind::Local => {
            let message = "the router has no connections left";
            Refusal::new(Reason::Overloaded, message)
        }
        ErrorKind::Protocol => {
            let message = format!("{id} answered something that is not HTTP/1.1");
            Refusal::new(Reason::UpstreamFailed, message)
        }
        ErrorKind::Peer => {
            let message = format!(
                "the node of server {} does not answer",
                instance.info.server
            );
            Refusal::new(Reason::NoHealthyInstance, message)
        }
        _ => {
            let message = format!("{id} closed the connection without an answer");
            Refusal::new(Reason::UpstreamFailed, message)
        }
    }
}

async fn attempt(
    worker: &Worker,
    client: &mut Client,
    route: &Route<'_>,
    instance: &Arc<Instance>,
    request: &mut Request,
    is_retry: bool,
) -> Attempt {
    let (live, now) = (&*instance.live, Moment::now());
    let mut in_flight = InFlight::begin(live, worker.index, route.endpoint.id, now);
    if is_retry {
        in_flight.is_retry();
    }
    let peer = instance.reach.peer().map(|peer| &**peer);
    request.afar = peer.is_some();
    request.reached = false;
    let key = peer.map_or(live.key(), Peer::key);
    let mut pooled = worker.pools.take(key, now);
    loop {
        let reused = pooled.is_some();
        let upstream = match pooled.take() {
            Some(upstream) => upstream,
            None => match connect_in_time(worker, request, instance).await {
                Ok(upstream) => upstream,
                Err(kind) => return failed(worker, &in_flight, instance, kind, now),
            },
        };
        if client.listener == Listener::Peer && !tell_reached(worker, client, request).await {
            return Attempt::Over(Then::Close);
        }
        let mut exchange = Exchange::new(worker, client, request, &mut in_flight, upstream);
        let end = poll_fn(|cx| exchange.poll(cx)).await;
        // A connection that the instance closed while it was idle says nothing about the
        // instance: a fresh one to it tells.
        let stale = reused && end == End::Failed(ErrorKind::Closed);
        match end {
            End::Complete => {
                heard(peer, worker);
                return Attempt::Over(finish(worker, exchange, key));
            }
            End::There(verdict) => {
                heard(peer, worker);
                finish(worker, exchange, key);
                return failed_there(&in_flight, instance, request, verdict);
            }
            End::Upgraded => {
                heard(peer, worker);
                let part = std::mem::take(&mut exchange.part);
                let upstream = exchange.into_upstream();
                // It counts as in flight as long as it lives.
                Box::pin(tunnel::run(worker, client, upstream, part)).await;
                return Attempt::Over(Then::Close);
            }
            End::Failed(kind) => {
                drop(exchange);
                if stale && (request.is_untouched() || request.may_be_repeated()) {
                    request.rewind();
                    continue;
                }
                return failed(worker, &in_flight, instance, kind, now);
            }
            End::Broken(kind) => {
                let then = break_off(&exchange);
                drop(exchange);
                in_flight.failed(kind, Moment::now());
                return Attempt::Over(then);
            }
            End::BadBody(what) => {
                return Attempt::Refused(Refusal::new(Reason::BadRequest, what));
            }
            End::ClientLate => {
                let message = "the body of the request did not arrive in time";
                return Attempt::Refused(Refusal::new(Reason::HeadTimeout, message));
            }
            End::ClientGone => return Attempt::Over(break_off(&exchange)),
        }
    }
}

/// Tells the node that sends it that it need not keep the body any longer. False when that node is
/// gone.
async fn tell_reached(worker: &Worker, client: &mut Client, request: &mut Request) -> bool {
    if request.reached || !request.waits_for_word() {
        return true;
    }
    request.reached = true;
    let told = async {
        client.stream.write_all(REACHED).await?;
        client.stream.flush().await
    };
    matches!(
        tokio::time::timeout(worker.limits.send, told).await,
        Ok(Ok(()))
    )
}

/// The node of another server answered, whatever it said.
fn heard(peer: Option<&Peer>, worker: &Worker) {
    if let Some(peer) = peer {
        peer.answered(worker.index, Moment::now());
    }
}

/// Nothing came back. An instance on another server is not to blame for its node, which is passed
/// over with all that it leads to.
fn failed(
    worker: &Worker,
    in_flight: &InFlight<&Live>,
    instance: &Instance,
    kind: ErrorKind,
    began: Moment,
) -> Attempt {
    let now = Moment::now();
    let kind = match (instance.reach.peer(), kind) {
        (Some(peer), ErrorKind::Connect | ErrorKind::Closed | ErrorKind::Protocol) => {
            peer.eject(now);
            ErrorKind::Peer
        }
        (Some(peer), ErrorKind::Timeout) => {
            if now.since(began) >= SILENCE {
                peer.silent(worker.index, now);
            }
            kind
        }
        _ => kind,
    };
    in_flight.failed(kind, now);
    Attempt::Failed(kind, failure(kind, instance))
}

/// The node of another server says what became of the request.
fn failed_there(
    in_flight: &InFlight<&Live>,
    instance: &Instance,
    request: &mut Request,
    verdict: Verdict,
) -> Attempt {
    let kind = verdict.note(in_flight, Moment::now());
    if let Verdict::Unsent(_) = verdict {
        request.take_back();
    }
    Attempt::Failed(kind, failure(kind, instance))
}

/// Within the limit for connections, and before the caller's deadline.
async fn connect_in_time(
    worker: &Worker,
    request: &mut Request,
    instance: &Instance,
) -> Result<Stream, ErrorKind> {
    let connected = async {
        match instance.reach.peer() {
            Some(peer) => {
                let tls = worker.tls.as_deref();
                connect_peer(peer, tls, Protocol::Http1, worker.limits.connect).await
            }
            None => connect(instance.live.address(), worker.limits.connect).await,
        }
    };
    let connected = match &mut request.deadline {
        None => connected.await,
        Some(deadline) => {
            tokio::select! {
                biased;
                connected = connected => connected,
                () = Pin::new(deadline) => return Err(ErrorKind::Timeout),
            }
        }
    };
    connected.map_err(|error| ErrorKind::of_connect(&error))
}

/// Ends a connection in the midst of an answer, so that what came of it does not look whole.
fn break_off(exchange: &Exchange<'_, '_>) -> Then {
    if exchange.ends_with_connection() {
        Then::Reset
    } else {
        Then::Close
    }
}

/// After a whole answer: what becomes of both connections.
fn finish(worker: &Worker, exchange: Exchange<'_, '_>, key: u64) -> Then {
    let (keep, close) = (exchange.keep, exchange.close);
    let (sent, unsettled) = (exchange.is_sent(), exchange.unsettled);
    let mut upstream = exchange.into_upstream();
    if let Some(limit) = keep.filter(|_| sent && !worker.is_draining())
        && (!unsettled || upstream.is_drained())
    {
        worker.pools.give(key, upstream, Moment::now(), limit);
    }
    if close { Then::Linger } else { Then::Next }
}

/// Closes so that the client can read what it was told: what it still sends is read for a while,
/// since a close with unread bytes would reset the connection and take the answer with it.
async fn linger(worker: &Worker, mut stream: Stream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut left = LINGER_BYTES;
    let discard = async {
        loop {
            let read = poll_fn(|cx| worker.scratch.poll_read(&mut stream, cx));
            match tokio::time::timeout(LINGER_IDLE, read).await {
                Ok(Ok(count)) if count > 0 && count < left => left -= count,
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}
