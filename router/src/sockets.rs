//! Listening sockets: bound, dealt out to the workers, and handed from a process to its successor.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::listen::StartError;

/// Connections that wait to be accepted, per socket.
const BACKLOG: i32 = 4096;
/// After how long the system asks a silent client whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Who comes in at a socket, and what is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The outside.
    Public,
    /// The outside, by TLS.
    Tls,
    /// The services of this server.
    Local,
    /// The nodes of other servers.
    Peer,
}

impl Gate {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Public, Self::Tls, Self::Local, Self::Peer];

    /// `public`, `tls`, `local` or `peer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Tls => "tls",
            Self::Local => "local",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no gate of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no gate of this name: write public, tls, local or peer")]
pub struct UnknownGate;

impl FromStr for Gate {
    type Err = UnknownGate;

    fn from_str(text: &str) -> Result<Self, UnknownGate> {
        let gate = Self::ALL.into_iter().find(|gate| gate.as_str() == text);
        gate.ok_or(UnknownGate)
    }
}

/// The listening sockets of a router, one or more for each of its gates.
#[derive(Debug, Default)]
pub struct Sockets(Vec<(Gate, TcpListener)>);

impl Sockets {
    /// Sockets that another process has bound, and listens on.
    ///
    /// # Errors
    ///
    /// If one can't be used without blocking.
    pub fn from_fds(fds: impl IntoIterator<Item = (Gate, OwnedFd)>) -> io::Result<Self> {
        let socket = |(gate, fd): (Gate, OwnedFd)| {
            let socket = TcpListener::from(fd);
            socket.set_nonblocking(true)?;
            // What is no socket that listens has no address.
            socket.local_addr()?;
            Ok((gate, socket))
        };
        let all: io::Result<Vec<_>> = fds.into_iter().map(socket).collect();
        all.map(Self)
    }

    /// Each socket, to be handed to another process.
    pub fn fds(&self) -> impl Iterator<Item = (Gate, BorrowedFd<'_>)> {
        self.0.iter().map(|(gate, socket)| (*gate, socket.as_fd()))
    }

    /// The same sockets once more.
    ///
    /// # Errors
    ///
    /// If the system gives no more files.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone = |(gate, socket): &(Gate, TcpListener)| Ok((*gate, socket.try_clone()?));
        let all: io::Result<Vec<_>> = self.0.iter().map(clone).collect();
        all.map(Self)
    }

    /// Where a gate is; `None` where it is not.
    pub(crate) fn address(&self, gate: Gate) -> Option<SocketAddr> {
        let mut found = self.0.iter().filter(|(which, _)| *which == gate);
        found.next()?.1.local_addr().ok()
    }

    /// Adds what a gate needs: as many sockets as there are workers, at least. Those that were `handed` and are
    /// where the gate is to be are used, so that nobody who waits at them for being accepted is lost.
    pub(crate) fn bind(
        &mut self,
        gate: Gate,
        address: SocketAddr,
        workers: usize,
        handed: &mut Self,
    ) -> Result<(), StartError> {
        let which = gate.as_str();
        let sockets = handed.take(gate, address);
        let sockets = fill(sockets, address, workers).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::InUse { which, address },
            _ => StartError::Listen {
                which,
                address,
                source,
            },
        })?;
        self.0
            .extend(sockets.into_iter().map(|socket| (gate, socket)));
        Ok(())
    }

    /// The sockets of a gate that are at this address.
    fn take(&mut self, gate: Gate, wanted: SocketAddr) -> Vec<TcpListener> {
        let is_there = |socket: &TcpListener| {
            socket.local_addr().is_ok_and(|address| {
                address.ip() == wanted.ip() && [0, address.port()].contains(&wanted.port())
            })
        };
        let all = std::mem::take(&mut self.0);
        let (taken, left) = all
            .into_iter()
            .partition(|(which, socket)| *which == gate && is_there(socket));
        self.0 = left;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Each worker's share, so that every socket has somebody who accepts.
    pub(crate) fn deal(self, workers: usize) -> Vec<Vec<(Gate, TcpListener)>> {
        let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut dealt = [0; Gate::ALL.len()];
        for (gate, socket) in self.0 {
            let next = &mut dealt[gate as usize];
            shares[*next % workers].push((gate, socket));
            *next += 1;
        }
        shares
    }
}

/// As many sockets as workers. The kernel spreads connections over sockets that share a port. So that another
/// program on the same port is noticed and not joined, the port is first taken without sharing.
#[cfg(target_os = "linux")]
fn fill(
    mut sockets: Vec<TcpListener>,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    let bound = match sockets.first() {
        Some(handed) => handed.local_addr()?,
        None => {
            let probe = socket(address)?;
            probe.bind(&address.into())?;
            probe.listen(1)?;
            probe.local_addr()?.as_socket().unwrap_or(address)
        }
    };
    while sockets.len() < workers {
        let socket = socket(bound)?;
        socket.set_reuse_port(true)?;
        sockets.push(listen(socket, bound)?);
    }
    Ok(sockets)
}

/// All workers accept from one socket.
#[cfg(not(target_os = "linux"))]
fn fill(
    mut sockets: Vec<TcpListener>,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    if sockets.is_empty() {
        sockets.push(listen(socket(address)?, address)?);
    }
    while sockets.len() < workers {
        let again = sockets[0].try_clone()?;
        sockets.push(again);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// What is set here holds for every connection that is accepted.
fn listen(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn free() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    fn bound(workers: usize) -> Sockets {
        let mut sockets = Sockets::default();
        let none = &mut Sockets::default();
        sockets.bind(Gate::Public, free(), workers, none).unwrap();
        sockets.bind(Gate::Local, free(), workers, none).unwrap();
        sockets
    }

    fn counts(shares: &[Vec<(Gate, TcpListener)>]) -> Vec<(usize, usize)> {
        let count = |share: &Vec<(Gate, TcpListener)>, gate| {
            let of_gate = share.iter().filter(|(which, _)| *which == gate);
            of_gate.count()
        };
        let both = |share| (count(share, Gate::Public), count(share, Gate::Local));
        shares.iter().map(both).collect()
    }

    /// Linux hands it on from the listener, which saves a call for each connection.
    #[test]
    fn what_is_accepted_sends_without_delay() {
        let sockets = bound(1);
        let (_, listener) = &sockets.0[0];
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        assert_eq!(counts(&bound(2).deal(2)), [(1, 1), (1, 1)]);
        // Of a process with more workers.
        let mut fewer = Sockets::default();
        let mut handed = bound(3);
        for gate in [Gate::Public, Gate::Local] {
            fewer.bind(gate, free(), 2, &mut handed).unwrap();
        }
        assert_eq!(counts(&fewer.deal(2)), [(2, 2), (1, 1)]);
        // Of one with fewer.
        let mut more = Sockets::default();
        let mut handed = bound(1);
        let before = handed.address(Gate::Public);
        for gate in [Gate::Public, Gate::Local] {
            more.bind(gate, free(), 2, &mut handed).unwrap();
        }
        assert_eq!(more.address(Gate::Public), before);
        assert_eq!(counts(&more.deal(2)), [(1, 1), (1, 1)]);
    }

    #[test]
    fn a_gate_that_moves_is_bound_anew() {
        let mut handed = bound(1);
        let before = handed.address(Gate::Public).unwrap();
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], 0));
        let mut sockets = Sockets::default();
        sockets
            .bind(Gate::Public, elsewhere, 1, &mut handed)
            .unwrap();
        assert_eq!(sockets.address(Gate::Public).unwrap().ip(), elsewhere.ip());
        let error = Sockets::default().bind(Gate::Public, before, 1, &mut Sockets::default());
        assert!(matches!(error, Err(StartError::InUse { .. })), "{error:?}");
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        Sockets::from_fds([(Gate::Public, file.into())]).unwrap_err();
        assert_eq!("tls".parse::<Gate>().unwrap(), Gate::Tls);
        "back".parse::<Gate>().unwrap_err();
    }
}
