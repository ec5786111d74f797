//! Where a connection comes from.

use std::net::SocketAddr;

use crate::decide::Listener;

/// What is known of a client before it has said anything of HTTP.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) listener: Listener,
    /// It speaks TLS with us.
    pub(crate) https: bool,
    /// What an instance learns of its certificate, where it has shown one.
    pub(crate) certificate: Option<Box<str>>,
}

impl Origin {
    /// In clear text, or from another node.
    pub(crate) fn plain(address: SocketAddr, listener: Listener) -> Self {
        Self {
            address,
            listener,
            https: false,
            certificate: None,
        }
    }

    /// How it came, as a URL begins.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}
