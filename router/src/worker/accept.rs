//! The connections of a worker: accepted, counted, seated, and led to what is spoken on them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Phase, Worker};
use crate::decide::Listener;
use crate::http1;
use crate::http2;
use crate::origin::Origin;
use crate::proxies::protocol;
use crate::refusal::{Reason, Refusal};
use crate::stream::Stream;
use crate::tls::{Front, Protocol, Tls};

/// How long no connection is accepted after the system could not give one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The most refused connections of a worker that are told why; more are closed at once.
const MAX_TURNING_AWAY: usize = 64;

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

/// A listener, and what is spoken there.
#[derive(Clone)]
pub(super) enum Door {
    Public,
    Secure(Arc<Front>),
    Local,
    Peer,
    SecurePeer(Arc<Tls>),
}

impl Door {
    fn listener(&self) -> Listener {
        match self {
            Door::Public | Door::Secure(_) => Listener::Public,
            Door::Local => Listener::Local,
            Door::Peer | Door::SecurePeer(_) => Listener::Peer,
        }
    }
}

pub(super) async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    door: Door,
    mut phase: watch::Receiver<Phase>,
) {
    let _ = phase.wait_for(|phase| *phase >= Phase::Running).await;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => begin(&worker, stream, address, &door),
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
fn begin(worker: &Rc<Worker>, stream: TcpStream, address: SocketAddr, door: &Door) {
    if worker.connections.get() >= worker.limits.connections {
        return;
    }
    let counted = Counted::new(worker);
    let proxies = &worker.proxies;
    if proxies.proxy_protocol && door.listener() == Listener::Public && proxies.trusts(address.ip())
    {
        return read_header(counted, stream, address, door.clone());
    }
    admit(counted, stream, address, door);
}

/// Lets a proxy say first for whom it opened a connection.
fn read_header(counted: Counted, mut stream: TcpStream, address: SocketAddr, door: Door) {
    tokio::task::spawn_local(async move {
        let worker = Rc::clone(&counted.0);
        let header = Box::pin(protocol::read(&mut stream));
        match tokio::time::timeout(worker.limits.head, header).await {
            Ok(Ok(client)) => admit(counted, stream, client.unwrap_or(address), &door),
            // It only looked whether somebody listens.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Ok(Err(error)) => worker.headless(address, &error),
            Err(_) => worker.headless(address, &"it did not come in time"),
        }
    });
}

/// Serves a connection whose client is known, if it finds a seat.
fn admit(counted: Counted, stream: TcpStream, address: SocketAddr, door: &Door) {
    let worker = Rc::clone(&counted.0);
    let mut origin = Origin::plain(address, door.listener());
    let mut seat = None;
    if origin.listener == Listener::Public {
        origin.trusted = worker.proxies.trusts(address.ip());
        seat = match worker.seat_of_address(address.ip().to_canonical()) {
            Ok(seat) => seat,
            Err(refusal) => return turn_away(counted, stream, refusal, door),
        };
    }
    let door = door.clone();
    tokio::task::spawn_local(async move {
        match door {
            Door::Secure(front) => Box::pin(serve_secure(worker, &front, stream, origin)).await,
            Door::SecurePeer(tls) => Box::pin(serve_peer(worker, &tls, stream, origin)).await,
            Door::Public | Door::Local | Door::Peer => {
                http1::serve(worker, Stream::Plain(stream), origin).await;
            }
        }
        drop((counted, seat));
    });
}

/// Says why to some, and to no more than the others can bear. A handshake, to say it under TLS, would
/// cost more than what is refused.
fn turn_away(counted: Counted, stream: TcpStream, refusal: Refusal, door: &Door) {
    let worker = Rc::clone(&counted.0);
    worker
        .snapshot()
        .totals()
        .refused(worker.index, refusal.reason);
    if worker.turning_away.get() >= MAX_TURNING_AWAY || matches!(door, Door::Secure(_)) {
        return;
    }
    worker.turning_away.set(worker.turning_away.get() + 1);
    tokio::task::spawn_local(async move {
        http1::turn_away(&worker, Stream::Plain(stream), &refusal).await;
        worker.turning_away.set(worker.turning_away.get() - 1);
        drop(counted);
    });
}

pub(super) fn too_many_connections(whose: &str, most: usize) -> Refusal {
    let message =
        format!("{whose} has {most} connections to a thread of the router, which is the most");
    Refusal::new(Reason::TooManyConnections, message)
        .mend("use connections again, or raise the limit in [node]")
}

/// TLS with the outside. What was agreed on for HTTP does not matter: HTTP/2 begins with words that
/// no request of HTTP/1.1 begins with.
async fn serve_secure(worker: Rc<Worker>, front: &Front, stream: TcpStream, origin: Origin) {
    let handshake = async {
        if speaks_clear_text(&stream).await? {
            return Ok(Err(stream));
        }
        front.accept(stream).await.map(Ok)
    };
    let (address, snapshot) = (origin.address, worker.snapshot());
    let failed = |error: &dyn std::fmt::Display| {
        snapshot.totals().handshake_failed(worker.index);
        tracing::debug!(%address, %error, "a TLS handshake failed");
    };
    match tokio::time::timeout(worker.limits.head, handshake).await {
        Ok(Ok(Ok((stream, certificate)))) => {
            drop(snapshot);
            let origin = Origin {
                https: true,
                certificate,
                ..origin
            };
            http1::serve(worker, stream, origin).await;
        }
        Ok(Ok(Err(stream))) => {
            failed(&"it is clear text");
            drop(snapshot);
            let refusal = Refusal::new(
                Reason::BadRequest,
                "this port speaks TLS, and no clear text",
            )
            .mend("ask by https://");
            http1::turn_away(&worker, Stream::Plain(stream), &refusal).await;
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => failed(&"it was not finished in time"),
    }
}

/// Whether what comes begins as a request of HTTP: no record of TLS begins with a letter.
async fn speaks_clear_text(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    Ok(first[0].is_ascii_alphabetic())
}

/// Whoever does not prove to be a node of the fleet is not listened to.
async fn serve_peer(worker: Rc<Worker>, tls: &Tls, stream: TcpStream, origin: Origin) {
    let address = origin.address;
    let handshake = tokio::time::timeout(worker.limits.head, tls.accept(stream)).await;
    match handshake {
        Ok(Ok((stream, Protocol::Http1))) => http1::serve(worker, stream, origin).await,
        Ok(Ok((stream, Protocol::Http2))) => {
            http2::serve(worker, stream, Vec::new(), origin).await;
        }
        // A probe, which connects and no more.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Ok(Err(error)) => worker.turned_away(address, &error.to_string()),
        Err(_) => worker.turned_away(address, "the handshake was not finished in time"),
    }
}
