//! A request on its way: one instance after the other, until one has answered or no other may be
//! tried.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::connection::{Accepted, Client, Then, refuse};
use super::exchange::{End, Exchange};
use super::request::Request;
use super::tunnel;
use crate::balance::Tried;
use crate::clock::Moment;
use crate::decide::{Listener, Route};
use crate::instance::{ErrorKind, InFlight, Live};
use crate::peer::Peer;
use crate::refusal::{Reason, Refusal, Unsent, Verdict};
use crate::retry::{Plan, Tries};
use crate::service::Instance;
use crate::stream::Stream;
use crate::tls::Protocol;
use crate::upstream::{SILENCE, connect, connect_peer};
use crate::worker::Worker;

/// Tells another node, before the answer, that there is a connection to the instance.
const REACHED: &[u8] = b"HTTP/1.1 102 Processing\r\nhydrant-to: reached\r\n\r\n";

/// How an attempt at one instance ended.
enum Attempt {
    /// The client has its answer, or is gone.
    Over(Then),
    /// The instance failed, or the way to it, and the client knows nothing of it; what it is told
    /// when nothing else helps.
    Failed(ErrorKind, Refusal),
    /// By a rule another instance shall answer, and the budget has it.
    Unwanted(Refusal),
    /// The client's body is malformed, or came too late.
    Refused(Refusal),
}

/// Sends the request to an instance, and to others when that fails and may be repeated.
pub(super) async fn deliver(worker: &Worker, client: &mut Client, accepted: Accepted<'_>) -> Then {
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
    let plan = Plan::of(&route);
    let mut attempted = attempt(worker, client, &route, instance, &mut request, &tried).await;
    let refusal = loop {
        let untouched = request.is_untouched();
        let (allowed, refusal) = match attempted {
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
            Attempt::Failed(kind, refusal) => {
                let allowed = plan.covers(kind, request.gave_up())
                    && plan.has_more(&tried)
                    && (untouched
                        || (request.may_be_repeated() && budget.take_retry(Moment::now())));
                (allowed, refusal)
            }
            Attempt::Unwanted(refusal) => (true, refusal),
        };
        if !allowed {
            break refusal;
        }
        // While that failed, others may have come.
        let snapshot = worker.snapshot();
        let route = route.renewed(&snapshot).unwrap_or(route);
        let next = match worker.choose(&route, &tried, request.priority) {
            Ok(next) => next,
            Err(none_left) if untouched => break none_left,
            Err(_) => break refusal,
        };
        tried.add(next);
        request.readdress(&route, next, client.identities.token());
        attempted = attempt(worker, client, &route, next, &mut request, &tried).await;
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
    tried: &Tried,
) -> Attempt {
    let (live, now) = (&*instance.live, Moment::now());
    let mut in_flight = InFlight::begin(live, worker.index, route.endpoint.id, now)
        .watched(client.passing.as_ref());
    if let Some(passing) = &client.passing {
        passing.sent_to(instance);
    }
    if tried.len() > 1 {
        in_flight.is_retry();
    }
    if let Some(patience) = &mut request.patience {
        patience.begin();
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
        let tries = Tries { route, tried };
        let mut exchange = Exchange::new(worker, client, request, tries, &mut in_flight, upstream);
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
            End::Unwanted => {
                heard(peer, worker);
                finish(worker, exchange, key);
                let id = &instance.info.id;
                let message = format!("{id} answered what a rule does not want, and no other did");
                return Attempt::Unwanted(Refusal::new(Reason::UpstreamFailed, message));
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
    let connected = match request.deadline.is_some() || request.patience.is_some() {
        false => connected.await,
        true => {
            tokio::select! {
                biased;
                connected = connected => connected,
                () = poll_fn(|cx| request.poll_late(cx)) => return Err(ErrorKind::Timeout),
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
    let is_last = exchange.is_last();
    let mut upstream = exchange.into_upstream();
    if let Some(limit) = keep.filter(|_| sent && !worker.is_draining())
        && (!unsettled || upstream.is_drained())
    {
        worker.pools.give(key, upstream, Moment::now(), limit);
    }
    match close {
        // Nothing is left that a close would reset.
        true if sent && is_last => Then::Close,
        true => Then::Linger,
        false => Then::Next,
    }
}
