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
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::decide::Listener;
use crate::identity::Identities;
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
    listener: Listener,
    address: SocketAddr,
    identities: RefCell<Identities>,
    /// Requests that are not finished.
    active: Cell<usize>,
    /// A part of a body went on, since that was last asked.
    moved: Cell<bool>,
}

/// Serves a connection until the client closes it, or the router ends. `read` is what was read
/// from it already, beginning with the preface.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: Stream,
    read: Vec<u8>,
    address: SocketAddr,
    listener: Listener,
) {
    let client = Rc::new(Client {
        listener,
        address,
        identities: RefCell::default(),
        active: Cell::new(0),
        moved: Cell::new(false),
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
        () = idle(&client) => None,
        () = stuck(&client, worker.limits.stream_idle) => return,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = stuck(&client, worker.limits.stream_idle) => return,
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

/// Resolves when the client had no request for some time.
async fn idle(client: &Client) {
    let mut quiet = Duration::ZERO;
    let tick = IDLE_LIMIT / 10;
    while quiet < IDLE_LIMIT {
        tokio::time::sleep(tick).await;
        quiet = if client.active.get() == 0 {
            quiet + tick
        } else {
            Duration::ZERO
        };
    }
}

/// Resolves when no body of any request has moved for `limit`: a client that answers pings but
/// takes nothing, or sends nothing, would hold its requests for ever.
async fn stuck(client: &Client, limit: Duration) {
    let mut still = Duration::ZERO;
    let tick = limit / 10;
    while still < limit {
        tokio::time::sleep(tick).await;
        let rests = client.active.get() > 0 && !client.moved.take();
        still = if rests { still + tick } else { Duration::ZERO };
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
