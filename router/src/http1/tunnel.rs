//! After an upgrade: bytes go both ways until both sides are done.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use super::connection::Client;
use crate::scratch::Scratch;
use crate::stream::Stream;
use crate::worker::Worker;

/// One direction. Each side may end while the other goes on.
#[derive(Debug, Default)]
struct Flow {
    waiting: Vec<u8>,
    written: usize,
    ended: bool,
    shut: bool,
    moved: bool,
}

impl Flow {
    fn new(waiting: Vec<u8>) -> Self {
        Self {
            waiting,
            ..Self::default()
        }
    }

    /// Ready when the direction has ended, or an error ends both.
    fn poll(
        &mut self,
        scratch: &Scratch,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            while self.written < self.waiting.len() {
                let rest = &self.waiting[self.written..];
                match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                    count => self.written += count,
                }
                self.moved = true;
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            let count = ready!(scratch.poll_read(from, cx))?;
            self.moved = true;
            self.ended = count == 0;
            self.refill(&scratch.bytes(count), to, cx)?;
        }
    }

    /// Writes at once what can be written, and keeps the rest.
    fn refill(
        &mut self,
        bytes: &[u8],
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> std::io::Result<()> {
        self.waiting = Vec::new();
        self.written = 0;
        if bytes.is_empty() {
            return Ok(());
        }
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.waiting.extend_from_slice(&bytes[written..]);
        Ok(())
    }
}

/// Joins a client and an instance, which has sent `part` behind its answer already.
pub(super) async fn run(worker: &Worker, client: &mut Client, mut upstream: Stream, part: Vec<u8>) {
    let Client {
        stream,
        stash,
        alarm,
        ..
    } = client;
    let (mut up, mut down) = (Flow::new(std::mem::take(stash)), Flow::new(part));
    alarm.set(worker.limits.stream_idle);
    poll_fn(|cx| {
        let going_up = up.poll(&worker.scratch, stream, &mut upstream, cx);
        let going_down = down.poll(&worker.scratch, &mut upstream, stream, cx);
        if std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved) {
            alarm.set(worker.limits.stream_idle);
        }
        match (going_up, going_down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(()),
            (Poll::Ready(_), Poll::Ready(_)) => Poll::Ready(()),
            _ if alarm.rings() => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}
