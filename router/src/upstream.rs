use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hydrant_contracts::ServerName;
use tokio::net::TcpStream;

use crate::clock::Moment;
use crate::peer::Peer;
use crate::stream::Stream;
use crate::tls::{Protocol, Tls};

/// The most idle connections of one worker to one instance.
const MAX_IDLE: usize = 1024;
/// A node that is silent for less has not been given much time to answer.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// The idle connections of one worker to instances, by the key of the instance.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<KeyHasher>>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    until: Moment,
}

impl Pools {
    /// The connection to the instance that was used last, unless the instance has closed it.
    pub(crate) fn take(&self, key: u64, now: Moment) -> Option<Stream> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(&key)?;
        while let Some(idle) = pool.pop() {
            if idle.until > now && !idle.stream.is_stale() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection on which nothing is under way, for `limit` at most.
    pub(crate) fn give(&self, key: u64, stream: Stream, now: Moment, limit: Duration) {
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
            pool.retain(|idle| idle.until > now && !idle.stream.is_stale());
            !pool.is_empty()
        });
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// Connects to an instance on this server.
pub(crate) async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Stream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(Stream::Plain(stream))
}

/// Connects to the node of another server.
pub(crate) async fn connect_peer(
    peer: &Peer,
    tls: Option<&Tls>,
    protocol: Protocol,
    limit: Duration,
) -> io::Result<Stream> {
    let connected = connect_node(&peer.name, peer.address(), tls, protocol, limit).await;
    if let Err(error) = &connected
        && error.kind() == io::ErrorKind::InvalidData
    {
        // It is passed over from now on, so this is not said for every request.
        tracing::warn!(server = %peer.name, address = %peer.address(), %error,
            "the node of another server does not prove itself");
    }
    connected
}

/// Connects to the node of `server`. What is sent to it and not acknowledged for `limit` breaks the
/// connection: a server that lost its power or its cable does not say so.
pub(crate) async fn connect_node(
    server: &ServerName,
    address: SocketAddr,
    tls: Option<&Tls>,
    protocol: Protocol,
    limit: Duration,
) -> io::Result<Stream> {
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(limit))?;
        match tls {
            None => Ok(Stream::Plain(tcp)),
            Some(tls) => tls.connect(tcp, server, protocol).await,
        }
    };
    tokio::time::timeout(limit, connect).await?
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
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (Stream, TcpStream) {
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
        ours.plain().unwrap().readable().await.unwrap();
        let stale = poll_fn(|cx| {
            while pin!(tokio::task::coop::consume_budget())
                .poll(cx)
                .is_ready()
            {}
            Poll::Ready(ours.is_stale())
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
