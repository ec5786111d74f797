//! A connection, in clear text or under TLS. What goes over one in clear text costs what it costs
//! on the bare socket.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_rustls::TlsStream;

/// One side of a connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    /// What was written may wait in here until [`AsyncWrite::poll_flush`] has sent it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket, if the kernel may move bytes from it and to it.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(_) => None,
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }

    /// An idle connection that is readable was closed, or holds what nobody asked for. Costs no
    /// call of the kernel: the event loop has seen it. The answer must not depend on how much the
    /// asking task has done in its turn, so it does not count as work.
    pub(crate) fn is_stale(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let readable = poll_fn(|cx| self.tcp().poll_read_ready(cx));
        pin!(unconstrained(readable)).poll(&mut cx).is_ready()
    }

    /// Lets the event loop forget that a connection was readable, after reads that it did not see
    /// to their end. False when something is left: then it can't be used again.
    pub(crate) fn is_drained(&mut self) -> bool {
        match self {
            Stream::Plain(tcp) => {
                let read = tcp.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(tls) => {
                let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
                let read =
                    poll_fn(|cx| Pin::new(&mut **tls).poll_read(cx, &mut ReadBuf::new(&mut byte)));
                pin!(unconstrained(read)).poll(&mut cx).is_pending()
            }
        }
    }

    /// Whether reads may leave something that the event loop does not know of: records that were
    /// read together with the last one.
    pub(crate) fn reads_ahead(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Closing it will reset the connection, so that the other side sees that something is
    /// missing.
    pub(crate) fn reset_at_close(&self) {
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
