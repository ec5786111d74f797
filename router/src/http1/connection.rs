//! A client's connection: one request after the other.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hydrant_contracts::Timeout;
use tokio::io::AsyncWriteExt as _;

use super::body::Body;
use super::deliver::deliver;
use super::forward::{Forward, Way};
use super::head::{HeadError, MAX_HEAD, RequestHead, fields, parse_request};
use super::refuse::{Form, answer, style_of};
use super::request::{Patience, Request};
use crate::alarms::Alarm;
use crate::balance::Tried;
use crate::decide::{self, Listener, Route, decide};
use crate::http2;
use crate::identity::{Identities, Who};
use crate::origin::Origin;
use crate::passing::{self, Passing};
use crate::priority::Priority;
use crate::proxies::Visit;
use crate::refusal::{Reason, Refusal};
use crate::retry::Plan;
use crate::rule::{self, Asked};
use crate::service::Instance;
use crate::snapshot::Snapshot;
use crate::stream::Stream;
use crate::worker::Worker;

/// What a client of HTTP/2 with prior knowledge sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The kind of the frame that follows it.
const SETTINGS: u8 = 4;
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
    origin: Origin,
    /// Who asks through the proxy that the connection is of.
    visit: Visit,
    pub(super) listener: Listener,
    pub(super) identities: Identities,
    /// The present request, when somebody listens.
    pub(super) passing: Option<Rc<Passing>>,
    /// Nothing but HTTP/1 was spoken so far.
    spoke: bool,
}

/// What happens to the connection after a request.
pub(super) enum Then {
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
pub(crate) async fn serve(worker: Rc<Worker>, stream: Stream, origin: Origin) {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let mut client = Client {
        stream,
        stash: Vec::new(),
        alarm: worker.alarms.alarm(waker),
        visit: Visit::default(),
        listener: origin.listener,
        origin,
        identities: Identities::new(),
        passing: None,
        spoke: false,
    };
    let then = loop {
        let then = serve_one(&worker, &mut client).await;
        client.passing = None;
        match then {
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
                origin,
                ..
            } = client;
            Box::pin(http2::serve(worker, stream, stash, origin)).await;
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

/// A request that goes to an instance.
pub(super) struct Accepted<'s> {
    pub(super) route: Route<'s>,
    pub(super) instance: &'s Arc<Instance>,
    pub(super) request: Request,
    pub(super) form: Form,
}

async fn serve_one(worker: &Worker, client: &mut Client) -> Then {
    let mut arrived = 0;
    let mut begun = false;
    client.alarm.set(worker.limits.client_idle);
    loop {
        let snapshot = worker.snapshot();
        if arrived > 0 || !client.stash.is_empty() {
            match take(worker, client, &snapshot, arrived, begun) {
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
    if is_idle && (!worker.keeps_idle() || client.alarm.rings()) {
        return Poll::Ready(Arrival::End);
    }
    if client.alarm.rings() {
        return Poll::Ready(Arrival::Late);
    }
    Poll::Pending
}

/// Makes of the bytes that have arrived what they are. Nothing here waits: they lie in the
/// worker's scratch buffer, where the next read of any connection goes. `begun` says that a head is
/// there already and was not complete.
fn take<'s>(
    worker: &Worker,
    client: &mut Client,
    snapshot: &'s Snapshot,
    arrived: usize,
    begun: bool,
) -> Taken<'s> {
    let scratch = worker.scratch.bytes(arrived);
    let mut stash = std::mem::take(&mut client.stash);
    let direct = stash.is_empty();
    if !direct {
        stash.extend_from_slice(&scratch);
    }
    if begun && !may_be_complete(&scratch, &stash) {
        client.stash = stash;
        return Taken::Partial;
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

/// What was not complete is so only with the end of a line. Were it read again for every byte, a
/// client that sends it byte by byte would cost as much as thousands.
fn may_be_complete(arrived: &[u8], all: &[u8]) -> bool {
    memchr::memchr(b'\n', arrived).is_some()
        || all.len() > MAX_HEAD
        || all.starts_with(HTTP2_PREFACE)
}

/// HTTP/2 begins with its preface and a frame of settings; the library that reads on would take
/// any frame for the first (RFC 9113, 3.4).
fn take_preface<'s>(bytes: &[u8]) -> Option<Taken<'s>> {
    let Some(frame) = bytes.strip_prefix(HTTP2_PREFACE) else {
        return HTTP2_PREFACE.starts_with(bytes).then_some(Taken::Partial);
    };
    Some(match frame.get(3) {
        None => Taken::Partial,
        Some(&SETTINGS) => Taken::Http2,
        Some(_) => {
            let refusal = Refusal::new(Reason::BadRequest, "HTTP/2 begins with SETTINGS");
            Taken::Refused(refusal, Form::UNKNOWN)
        }
    })
}

/// Tells also how many of the bytes were used.
fn take_bytes<'s>(
    worker: &Worker,
    client: &mut Client,
    snapshot: &'s Snapshot,
    bytes: &[u8],
) -> (Taken<'s>, usize) {
    if !client.spoke
        && bytes.starts_with(b"PRI")
        && let Some(taken) = take_preface(bytes)
    {
        return (taken, 0);
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
    let heard = worker.hear(&client.origin, head, &mut client.visit);
    let visitor = client.visit.client(&client.origin);
    client.passing = worker.passing(|| passing::Asked {
        listener: client.listener,
        client: visitor.address,
        protocol: if head.http11 { "HTTP/1.1" } else { "HTTP/1.0" },
        method: head.method,
        target: head.path.as_bytes(),
        host: head.host,
    });
    heard?;
    worker.check_scheme(&visitor, client.listener, head.host, head.path)?;
    let (key, from) = (&worker.key, client.listener);
    let seat = |who: &Who| worker.seat(from, who);
    let who = client.identities.admit(key, head.token, seat)?;
    if let Some(passing) = &client.passing {
        passing.caller(&who.text);
    }
    let mut route = decide(
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
    if let Some(passing) = &client.passing {
        passing.route(&route);
    }
    let mut rewritten = None;
    if route.service.rules.is_some() {
        let asked = Asked {
            host: head.host,
            method: head.method.as_bytes(),
            target: head.path.as_bytes(),
            caller: &who.caller,
            address: Some(visitor.address),
            fields: head,
            bare: route.bare,
        };
        rewritten = rule::apply(&mut route, &asked, worker)?;
    }
    if let (Some(passing), Some(_)) = (&client.passing, &rewritten) {
        passing.route(&route);
    }
    let priority = Priority::of(head.priority, client.listener, &who.caller);
    let instance = worker.choose(&route, &Tried::default(), priority)?;
    let rule = route.ruled.map(|ruled| ruled.compiled);
    if let Some(ruled) = &route.ruled {
        ruled.count(worker.index, instance);
    }
    let target = rewritten.as_deref();
    let sees = target.unwrap_or(head.path.as_bytes());
    let (way, path) = Way::to(&route, instance, sees, head.token);
    let forward = Forward {
        way,
        client: visitor,
        write: worker.proxies.write,
        default_host: worker.host(client.listener),
        caller: &who.text,
        priority,
        from_peer: client.listener == Listener::Peer,
        target,
        changes: rule.and_then(|rule| rule.request_changes()),
    };
    let mut out = worker.scratch.take_buffer();
    let way_lines = head.write(bytes, &forward, &mut out);
    if let Some(passing) = &client.passing {
        passing.context(&out);
    }
    let request = Request {
        bytes: out,
        sent: 0,
        body,
        whole: true,
        seen: false,
        afar: false,
        reached: false,
        priority,
        repeatable: route.repeatable && head.upgrade.is_none(),
        to_head: head.method == "HEAD",
        http11: head.http11,
        keep_alive: head.keep_alive,
        wants_upgrade: head.upgrade.is_some(),
        cut: way.cut.into(),
        path: (head.method.len() + 1, path.len()),
        way: way_lines,
        has_token: head.token.is_some(),
        rule: rule.filter(|rule| rule.answer_changes().is_some()).cloned(),
        deadline: shorter(head.timeout, rule.and_then(|rule| rule.timeout()))
            .map(|timeout| Box::pin(tokio::time::sleep(timeout))),
        patience: (Plan::of(&route).per_try).map(|span| Box::new(Patience::new(span))),
    };
    Ok(Accepted {
        route,
        instance,
        request,
        form,
    })
}

/// The shorter of what the client waits and what a rule allows.
fn shorter(client: Option<Timeout>, rule: Option<Duration>) -> Option<Duration> {
    let client = client.map(Timeout::duration);
    client.into_iter().chain(rule).min()
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
pub(super) async fn refuse(
    worker: &Worker,
    client: &mut Client,
    refusal: Refusal,
    form: Form,
) -> Then {
    let snapshot = worker.snapshot();
    snapshot.totals().refused(worker.index, refusal.reason);
    drop(snapshot);
    if let Some(passing) = &client.passing {
        passing.refused(&refusal);
    }
    let bytes = answer(&refusal, form);
    let told = tell(&mut client.stream, &bytes);
    match tokio::time::timeout(worker.limits.send, told).await {
        Ok(Ok(())) if form.close => Then::Linger,
        Ok(Ok(())) => Then::Next,
        _ => Then::Close,
    }
}

/// Answers a connection that may not come in, whatever it is about to ask.
pub(crate) async fn turn_away(worker: &Worker, mut stream: Stream, refusal: &Refusal) {
    let bytes = answer(refusal, Form::UNKNOWN);
    let told = tokio::time::timeout(LINGER_IDLE, tell(&mut stream, &bytes)).await;
    if matches!(told, Ok(Ok(()))) {
        linger(worker, stream).await;
    }
}

/// Until all of it is sent: under TLS what was written may still wait.
async fn tell(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
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
