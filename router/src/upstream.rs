use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::net::TcpStream;

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
/// of the kernel: the event loop has seen it.
fn is_stale(stream: &TcpStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    stream.poll_read_ready(&mut cx).is_ready()
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
