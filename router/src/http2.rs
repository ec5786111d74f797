//! HTTP/2 with prior knowledge, and so gRPC: the same decision, choice and counters as HTTP/1.1,
//! framed by hyper.

mod body;
mod exchange;
mod head;
mod pool;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, watch};

use crate::decide::Listener;
use crate::identity::Identities;
use crate::listen::Limits;
use crate::origin::Origin;
use crate::proxies::Visit;
use crate::stream::Stream;
use crate::worker::Worker;

/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 250;
/// The largest head of a request, in bytes.
const MAX_HEAD: u32 = 64 * 1024;
/// What a client may send ahead on one stream, and on all of a connection, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept for a client that reads slowly, for each stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How often a silent client is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);
/// A connection without requests is closed after this time.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// A client may break off so many requests before their answer begins, and any number as long as
/// they are fewer than half: each has cost an instance work, and the client next to nothing.
const MAX_BROKEN_OFF: usize = 500;

/// What all HTTP/2 connections of one worker share.
#[derive(Debug)]
pub(crate) struct Http2 {
    pool: pool::Pool,
    closing: watch::Sender<bool>,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            pool: pool::Pool::default(),
            closing: watch::Sender::new(false),
        }
    }
}

impl Http2 {
    /// Tells every client to send no further request; the requests that there are, are finished.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Closes connections to instances that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as the worker.
        let _ = closing.wait_for(|closing| *closing).await;
    }
}

/// One client's connection.
#[derive(Debug)]
struct Client {
    origin: Origin,
    /// Who asked last through the proxy that the connection is of.
    visit: RefCell<Visit>,
    identities: RefCell<Identities>,
    /// Requests that are not finished.
    active: Cell<usize>,
    /// A part of a body went on, since that was last asked.
    moved: Cell<bool>,
    /// Requests whose answer waits for the client to take what there is of it.
    unread: Cell<usize>,
    /// Requests that ended, and those of them that the client broke off before their answer began.
    ended: Cell<usize>,
    broken_off: Cell<usize>,
    /// Told when too many were broken off.
    floods: Notify,
}

impl Client {
    fn ended(&self, broken_off: bool) {
        self.ended.set(self.ended.get() + 1);
        self.broken_off
            .set(self.broken_off.get() + usize::from(broken_off));
        let is_of_fleet = self.origin.listener == Listener::Peer;
        let (broken, ended) = (self.broken_off.get(), self.ended.get());
        if broken_off && !is_of_fleet && broken >= MAX_BROKEN_OFF && broken * 2 > ended {
            self.floods.notify_one();
        }
    }
}

/// Serves a connection until the client closes it, or the router ends. `read` is what was read
/// from it already, beginning with the preface.
pub(crate) async fn serve(worker: Rc<Worker>, stream: Stream, read: Vec<u8>, origin: Origin) {
    let address = origin.address;
    let client = Rc::new(Client {
        origin,
        visit: RefCell::default(),
        identities: RefCell::default(),
        active: Cell::new(0),
        moved: Cell::new(false),
        unread: Cell::new(0),
        ended: Cell::new(0),
        broken_off: Cell::new(0),
        floods: Notify::new(),
    });
    let service = service_fn(|request| {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        async move { Ok::<_, Infallible>(exchange::answer(&worker, client, request).await) }
    });
    let read = Bytes::from(read);
    let io = TokioIo::new(Rewound { read, stream });
    let mut connection = std::pin::pin!(builder().serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = worker.http2.closing() => None,
        () = idle(&client, IDLE_LIMIT) => None,
        () = abused(&client, &worker.limits) => return,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                // What is left of its answers, it does not take.
                () = idle(&client, worker.limits.send) => return,
                () = abused(&client, &worker.limits) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "HTTP/2 connection ended");
    }
}

fn builder() -> Builder<LocalTasks> {
    let mut builder = Builder::new(LocalTasks);
    // The limits against floods of resets keep hyper's defaults.
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT);
    builder
}

/// Resolves when the client had no request for `limit`.
async fn idle(client: &Client, limit: Duration) {
    let mut quiet = Duration::ZERO;
    let tick = limit / 10;
    while quiet < limit {
        tokio::time::sleep(tick).await;
        quiet = if client.active.get() == 0 {
            quiet + tick
        } else {
            Duration::ZERO
        };
    }
}

/// Resolves when the client holds its requests for ever, or breaks off most of them.
async fn abused(client: &Client, limits: &Limits) {
    tokio::select! {
        () = stuck(client, limits) => {
            tracing::debug!(address = %client.origin.address, "an HTTP/2 connection does not go on");
        }
        () = client.floods.notified() => {
            tracing::debug!(address = %client.origin.address, "a client breaks off most of its requests");
        }
    }
}

/// Resolves when no body of any request has moved for too long: a client that answers pings but
/// takes nothing, or sends nothing, would hold its requests for ever. What waits for the client
/// alone, waits less.
async fn stuck(client: &Client, limits: &Limits) {
    let mut still = Duration::ZERO;
    let tick = limits.send.min(limits.stream_idle) / 10;
    loop {
        tokio::time::sleep(tick).await;
        let rests = client.active.get() > 0 && !client.moved.take();
        still = if rests { still + tick } else { Duration::ZERO };
        let limit = match client.unread.get() {
            0 => limits.stream_idle,
            _ => limits.send.min(limits.stream_idle),
        };
        if still >= limit {
            return;
        }
    }
}

/// Runs hyper's tasks on the worker that they belong to.
#[derive(Clone, Copy, Debug)]
struct LocalTasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
struct Rewound {
    read: Bytes,
    stream: Stream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let len = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..len]);
        self.read.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
