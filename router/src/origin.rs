//! Where a connection comes from.

use std::net::SocketAddr;

use crate::decide::Listener;

/// What is known of a client before it has said anything of HTTP.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// The same without a port, as it is told.
    pub(crate) text: Box<str>,
    pub(crate) listener: Listener,
    /// It is a proxy that may tell of others.
    pub(crate) trusted: bool,
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
            text: address.ip().to_canonical().to_string().into(),
            listener,
            trusted: false,
            https: false,
            certificate: None,
        }
    }
}
