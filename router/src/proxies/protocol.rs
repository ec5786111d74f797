//! The PROXY protocol, version 2: what a balancer that passes bytes on says first of the client.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const START: usize = 16;
/// The most that may follow it, in bytes: addresses take at most 216, the rest is what a balancer adds.
const MAX_REST: usize = 4096;

/// Why a connection that must begin with a header does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("it is of version 1; let the proxy send version 2, as HAProxy's send-proxy-v2")]
    VersionOne,
    #[error("there is none")]
    Missing,
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The proxy speaks for itself, to see whether we live.
    local: bool,
    family: Family,
    /// How many bytes follow.
    rest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    /// Unspecified, or a Unix socket: whose connection it is, is not said.
    Other,
}

impl Family {
    /// The bytes of its addresses.
    fn len(self) -> usize {
        match self {
            Family::V4 => 12,
            Family::V6 => 36,
            Family::Other => 0,
        }
    }
}

impl Start {
    pub(crate) fn parse(bytes: &[u8; START]) -> Result<Self, HeaderError> {
        if bytes.starts_with(b"PROXY ") {
            return Err(HeaderError::VersionOne);
        }
        let Some([version, family, high, low]) = bytes.strip_prefix(&SIGNATURE) else {
            return Err(HeaderError::Missing);
        };
        let local = match version {
            0x20 => true,
            0x21 => false,
            _ => return Err(HeaderError::Malformed("its version or command is unknown")),
        };
        let family = match family {
            0x11 => Family::V4,
            0x21 => Family::V6,
            0x00 | 0x31 => Family::Other,
            // Who speaks for itself may say anything here.
            _ if local => Family::Other,
            _ => {
                return Err(HeaderError::Malformed(
                    "its family or transport is not one of streams",
                ));
            }
        };
        let rest = usize::from(u16::from_be_bytes([*high, *low]));
        if rest > MAX_REST {
            return Err(HeaderError::Malformed("it is longer than 4 KB"));
        }
        if !local && rest < family.len() {
            return Err(HeaderError::Malformed("it ends within its addresses"));
        }
        Ok(Self {
            local,
            family,
            rest,
        })
    }

    /// The client, where it is said; `rest` are the bytes that follow.
    pub(crate) fn client(self, rest: &[u8]) -> Option<SocketAddr> {
        if self.local {
            return None;
        }
        let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        match self.family {
            Family::V4 => {
                let address = IpAddr::from(*rest.first_chunk::<4>()?);
                Some(SocketAddr::new(address, port(8)?))
            }
            Family::V6 => {
                let address = IpAddr::from(*rest.first_chunk::<16>()?);
                Some(SocketAddr::new(address, port(32)?))
            }
            Family::Other => None,
        }
    }

    /// How many bytes follow.
    pub(crate) fn rest(self) -> usize {
        self.rest
    }
}

/// Reads a header and not a byte more. `None` where the connection is the proxy's own, or nobody's.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let refused = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut start = [0; START];
    stream.read_exact(&mut start).await?;
    let start = Start::parse(&start).map_err(refused)?;
    let mut rest = [0; MAX_REST];
    let rest = &mut rest[..start.rest()];
    stream.read_exact(rest).await?;
    Ok(start.client(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(command: u8, family: u8, rest: u16) -> Result<Start, HeaderError> {
        let [high, low] = rest.to_be_bytes();
        let mut bytes = [0; START];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12..].copy_from_slice(&[command, family, high, low]);
        Start::parse(&bytes)
    }

    #[test]
    fn addresses_are_read_and_what_follows_them_is_not() {
        let mut rest = vec![1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0x34, 0, 80];
        rest.extend([4, 0, 1, 0xff]);
        let client = start(0x21, 0x11, 16).unwrap().client(&rest);
        assert_eq!(client, Some("1.2.3.4:4660".parse().unwrap()));
        let mut rest = vec![0; 36];
        (rest[0], rest[1], rest[15], rest[33]) = (0x20, 1, 9, 7);
        let client = start(0x21, 0x21, 36).unwrap().client(&rest);
        assert_eq!(client, Some("[2001::9]:7".parse().unwrap()));
    }

    #[test]
    fn who_speaks_for_itself_or_of_nobody_is_the_proxy() {
        for (command, family, rest) in [
            (0x20, 0x00, 0),
            (0x20, 0x11, 12),
            (0x20, 0xff, 3),
            (0x21, 0x00, 0),
            (0x21, 0x31, 216),
        ] {
            let client = start(command, family, rest)
                .unwrap()
                .client(&vec![1; usize::from(rest)]);
            assert_eq!(client, None, "{command:x} {family:x}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for (command, family, rest) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x12, 12),
            (0x21, 0x41, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x11, 4097),
        ] {
            let refused = start(command, family, rest);
            assert!(
                matches!(refused, Err(HeaderError::Malformed(_))),
                "{command:x} {family:x} {rest}"
            );
        }
        assert_eq!(
            Start::parse(b"GET / HTTP/1.1\r\n"),
            Err(HeaderError::Missing)
        );
        assert_eq!(
            Start::parse(b"PROXY TCP4 1.2.3"),
            Err(HeaderError::VersionOne)
        );
    }
}
