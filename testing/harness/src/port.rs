//! Free ports that stay free while a server is down.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the ports that the system gives to outgoing connections, so that none of these takes the
/// port of a server that is away.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port that nobody else who asks here gets until it is dropped.
///
/// The claim is a socket with an abstract name: the system takes it back when the process ends,
/// however it ends, and there is no file to leave behind.
pub(crate) struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    pub(crate) fn take() -> Self {
        for _ in 0..1_000 {
            let number = fastrand::u16(RANGE);
            let Some(claim) = claim(number) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self {
                    number,
                    _claim: claim,
                };
            }
        }
        panic!("no free port between {} and {}", RANGE.start, RANGE.end);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

fn claim(number: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("hydrant-test-port-{number}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}
