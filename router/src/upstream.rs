use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::unconstrained;

use crate::clock::Moment;

/// The most idle connections of one worker to one instance.
const MAX_IDLE: usize = 1024;

/// The idle connections of one worker to instances, by the key of the instance.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<KeyHasher>>>,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    until: Moment,
}

impl Pools {
    /// The connection to the instance that was used last, unless the instance has closed it.
    pub(crate) fn take(&self, key: u64, now: Moment) -> Option<TcpStream> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(&key)?;
        while let Some(idle) = pool.pop() {
            if idle.until > now && !is_stale(&idle.stream) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection on which nothing is under way, for `limit` at most.
    pub(crate) fn give(&self, key: u64, stream: TcpStream, now: Moment, limit: Duration) {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.entry(key).or_default();
        if pool.len() < MAX_IDLE && !limit.is_zero() {
            let until = now.after(limit);
            pool.push(Idle { stream, until });
        }
    }

    /// Closes what was idle for too long, and what the other side has closed.
    pub(crate) fn sweep(&self, now: Moment) {
        self.idle.borrow_mut().retain(|_, pool| {
            pool.retain(|idle| idle.until > now && !is_stale(&idle.stream));
            !pool.is_empty()
        });
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// Connects to an instance.
pub(crate) async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An idle connection that is readable was closed, or holds what nobody asked for. Costs no call
/// of the kernel: the event loop has seen it. The answer must not depend on how much the asking
/// task has done in its turn, so it does not count as work.
fn is_stale(stream: &TcpStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let readable = poll_fn(|cx| stream.poll_read_ready(cx));
    pin!(unconstrained(readable)).poll(&mut cx).is_ready()
}

/// Lets the event loop forget that a connection was readable, after reads that it did not see to
/// their end. False when it still is: then it can't be used again.
pub(crate) fn is_drained(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Keys are numbers that are handed out one after the other.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = (self.0 ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ours = connect(address, Duration::from_secs(10)).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    /// A task that has done much is told to wait; its connections are what they are all the same.
    #[tokio::test]
    async fn a_closed_connection_is_stale_however_busy_its_task_is() {
        let (ours, theirs) = connection().await;
        drop(theirs);
        ours.readable().await.unwrap();
        let stale = poll_fn(|cx| {
            while pin!(tokio::task::coop::consume_budget())
                .poll(cx)
                .is_ready()
            {}
            Poll::Ready(is_stale(&ours))
        });
        assert!(stale.await);
    }

    #[tokio::test]
    async fn an_open_connection_is_taken_once_and_for_its_instance_only() {
        let (pools, now) = (Pools::default(), Moment::now());
        let (ours, _theirs) = connection().await;
        pools.give(1, ours, now, Duration::from_secs(10));
        assert!(pools.take(2, now).is_none());
        assert!(pools.take(1, now).is_some());
        assert!(pools.take(1, now).is_none());
        let (ours, _theirs) = connection().await;
        pools.give(1, ours, now, Duration::from_secs(10));
        assert!(
            pools.take(1, now.after(Duration::from_secs(10))).is_none(),
            "too old"
        );
    }
}
