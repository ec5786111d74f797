//! One worker's connections to instances, as HTTP/2 requests use them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};

use super::LocalTasks;
use super::body::Attempt;
use crate::instance::ErrorKind;
use crate::listen::Limits;
use crate::service::Instance;
use crate::stream::Stream;
use crate::tls::{Protocol, Tls};
use crate::upstream::{connect, connect_peer};

/// Requests of one HTTP/2 connection, above which another is opened, and the most of those.
const STREAMS_EACH: usize = 100;
const MAX_HTTP2: usize = 8;
/// HTTP/1.1 connections that wait for a request.
const MAX_IDLE: usize = 32;
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_LIMIT: Duration = Duration::from_secs(10);
const WINDOW: u32 = 1024 * 1024;

/// Connections by the key of their instance.
#[derive(Debug, Default)]
pub(super) struct Pool(RefCell<HashMap<u64, Rc<Connections>>>);

#[derive(Debug, Default)]
struct Connections {
    http2: RefCell<Vec<Http2Connection>>,
    /// Each with the moment at which it is too old.
    http1: RefCell<Vec<(http1::SendRequest<Attempt>, Instant)>>,
    /// Held while an HTTP/2 connection is made, so that a burst of requests shares it.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Http2Connection {
    sender: http2::SendRequest<Attempt>,
    streams: Rc<Cell<usize>>,
}

/// The head of an answer, and the place that its stream takes until the end of its body.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) stream: Option<Place>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// The instance did nothing with it.
    pub(super) unsent: bool,
    /// Not this request alone: no connection could be made, or all of it broke.
    pub(super) whole_connection: bool,
}

impl Failure {
    /// It was given up before its answer began.
    pub(super) const fn of_try() -> Self {
        Self {
            kind: ErrorKind::Timeout,
            unsent: false,
            whole_connection: false,
        }
    }

    const fn unsent(kind: ErrorKind) -> Self {
        Self {
            kind,
            unsent: true,
            whole_connection: matches!(kind, ErrorKind::Connect | ErrorKind::Protocol),
        }
    }
}

/// Where a request goes: to an instance on this server, or to the node of its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a> {
    pub(super) instance: &'a Instance,
    pub(super) tls: Option<&'a Tls>,
    pub(super) limits: &'a Limits,
}

impl Destination<'_> {
    /// What its connections are kept under.
    fn key(&self) -> u64 {
        let own = || self.instance.live.key();
        self.instance
            .reach
            .peer()
            .map_or_else(own, |peer| peer.key())
    }

    async fn connect(&self) -> Result<TokioIo<Stream>, Failure> {
        let limit = self.limits.connect;
        let connected = match self.instance.reach.peer() {
            Some(peer) => connect_peer(peer, self.tls, Protocol::Http2, limit).await,
            None => connect(self.instance.live.address(), limit).await,
        };
        let failed = |error| Failure::unsent(ErrorKind::of_connect(&error));
        connected.map(TokioIo::new).map_err(failed)
    }
}

/// Nodes speak HTTP/2 with each other for whoever speaks it.
pub(super) fn speaks_http2(instance: &Instance) -> bool {
    instance.info.http2 || instance.reach.peer().is_some()
}

impl Pool {
    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        to: Destination<'_>,
        request: Request<Attempt>,
    ) -> Result<Answered, Failure> {
        let connections = self.of(to.key());
        if speaks_http2(to.instance) {
            connections.send_http2(to, request).await
        } else {
            connections.send_http1(to, request).await
        }
    }

    fn of(&self, key: u64) -> Rc<Connections> {
        Rc::clone(self.0.borrow_mut().entry(key).or_default())
    }

    /// Closes what was idle for too long, and forgets instances without connections.
    pub(super) fn sweep(&self) {
        let mut all = self.0.borrow_mut();
        // A request under way may yet give its connection back.
        all.retain(|_, connections| connections.is_used() || Rc::strong_count(connections) > 1);
    }
}

impl Connections {
    fn is_used(&self) -> bool {
        self.http1
            .borrow_mut()
            .retain(|(sender, until)| is_fresh(sender, *until));
        self.http2
            .borrow_mut()
            .retain(|connection| !connection.sender.is_closed());
        !self.http1.borrow().is_empty() || !self.http2.borrow().is_empty()
    }

    async fn send_http2(
        &self,
        to: Destination<'_>,
        mut request: Request<Attempt>,
    ) -> Result<Answered, Failure> {
        if let Some(connection) = self.free_http2() {
            // One that was closed while it was idle says nothing: a fresh one tells.
            match connection.send(request).await {
                Err(mut error) if error.message().is_some() => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure(&error)),
                },
                answered => return answered.map_err(|error| failure(&error)),
            }
        }
        let connection = self.http2_connection(to).await?;
        let answered = connection.send(request).await;
        answered.map_err(|error| failure(&error))
    }

    async fn http2_connection(&self, to: Destination<'_>) -> Result<Http2Connection, Failure> {
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = self.free_http2() {
            return Ok(connection);
        }
        let connection = connect_http2(to).await?;
        self.http2.borrow_mut().push(connection.clone());
        Ok(connection)
    }

    /// The connection with the fewest requests, if it has room or no other may be opened.
    fn free_http2(&self) -> Option<Http2Connection> {
        let mut connections = self.http2.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed());
        let is_full = connections.len() >= MAX_HTTP2;
        let least = connections
            .iter()
            .min_by_key(|connection| connection.streams.get())?;
        (is_full || least.streams.get() < STREAMS_EACH).then(|| least.clone())
    }

    async fn send_http1(
        self: Rc<Self>,
        to: Destination<'_>,
        request: Request<Attempt>,
    ) -> Result<Answered, Failure> {
        let mut sender = match self.idle_http1() {
            Some(sender) => sender,
            None => connect_http1(to).await?,
        };
        let response = sender
            .try_send_request(request)
            .await
            .map_err(|error| failure(&error))?;
        let idle_limit = to.limits.upstream_idle;
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                self.keep(sender, idle_limit);
            }
        });
        Ok(Answered {
            response,
            stream: None,
        })
    }

    fn idle_http1(&self) -> Option<http1::SendRequest<Attempt>> {
        let mut idle = self.http1.borrow_mut();
        while let Some((sender, until)) = idle.pop() {
            if is_fresh(&sender, until) {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: http1::SendRequest<Attempt>, idle_limit: Duration) {
        let mut idle = self.http1.borrow_mut();
        idle.retain(|(sender, until)| is_fresh(sender, *until));
        if idle.len() < MAX_IDLE {
            idle.push((sender, Instant::now() + idle_limit));
        }
    }
}

fn is_fresh(sender: &http1::SendRequest<Attempt>, until: Instant) -> bool {
    sender.is_ready() && Instant::now() < until
}

impl Http2Connection {
    async fn send(
        mut self,
        request: Request<Attempt>,
    ) -> Result<Answered, TrySendError<Request<Attempt>>> {
        let stream = Some(Place::begin(&self.streams));
        let response = self.sender.try_send_request(request).await?;
        Ok(Answered { response, stream })
    }
}

/// A request on an HTTP/2 connection, until its answer has ended.
#[derive(Debug)]
pub(super) struct Place(Rc<Cell<usize>>);

impl Place {
    fn begin(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn connect_http2(to: Destination<'_>) -> Result<Http2Connection, Failure> {
    let io = to.connect().await?;
    let handshake = http2::Builder::new(LocalTasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW / 4)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .handshake(io);
    let made = timeout(to.limits.connect, handshake)
        .await
        .ok()
        .and_then(Result::ok);
    let (sender, connection) = made.ok_or(Failure::unsent(ErrorKind::Protocol))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an instance ended");
        }
    });
    Ok(Http2Connection {
        sender,
        streams: Rc::default(),
    })
}

async fn connect_http1(to: Destination<'_>) -> Result<http1::SendRequest<Attempt>, Failure> {
    let io = to.connect().await?;
    let made = http1::handshake(io).await;
    let (sender, connection) = made.map_err(|_| Failure::unsent(ErrorKind::Protocol))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an instance ended");
        }
    });
    Ok(sender)
}

fn failure(error: &TrySendError<Request<Attempt>>) -> Failure {
    let not_begun = error.message().is_some();
    let error = error.error();
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<h2::Error>());
    let refused = source.is_some_and(was_refused);
    let of_one_stream = source.is_some_and(h2::Error::is_reset);
    // The upload ended with an error: its client has broken off.
    let of_client = error.is_user();
    let kind = if of_client {
        ErrorKind::Canceled
    } else if error.is_parse() || error.is_parse_status() {
        ErrorKind::Protocol
    } else {
        ErrorKind::Closed
    };
    Failure {
        kind,
        unsent: not_begun || refused,
        whole_connection: !refused && !of_one_stream && !of_client,
    }
}

/// The instance said that it did not look at the request: it refused the stream, or it closes the
/// connection and the request came too late (RFC 9113, 8.7).
fn was_refused(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)))
}
