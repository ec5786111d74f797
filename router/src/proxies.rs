//! Proxies in front of the router: whose word on the client counts, and what instances hear of it.

mod chain;
mod network;
pub(crate) mod protocol;

use std::net::IpAddr;

pub use network::{Network, NetworkError};

use crate::http1::head::check_host;
use crate::origin::Origin;
use crate::refusal::Refusal;
use crate::rule::Fields;
use crate::visitors::Seat;

/// Proxies in front of the router, as a balancer or a content network. Nobody is trusted by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The addresses from which they come to the public listeners.
    pub trusted: Vec<Network>,
    /// In which headers they tell of the client. The others are removed, since a proxy lets pass what it does not write.
    pub read: Told,
    /// In which headers instances are told of it.
    pub write: Written,
    /// Each of their connections begins with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
}

/// How a proxy tells of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// `x-forwarded-for`, and `-proto`, `-host` and `-port`.
    #[default]
    XForwarded,
    /// `forwarded` (RFC 7239).
    Forwarded,
}

/// How instances are told of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Written {
    /// `x-forwarded-for`, `-proto` and `-host`.
    #[default]
    XForwarded,
    /// `forwarded` (RFC 7239).
    Forwarded,
    /// In both ways.
    Both,
}

impl Written {
    pub(crate) fn has_x_forwarded(self) -> bool {
        self != Written::Forwarded
    }

    pub(crate) fn has_forwarded(self) -> bool {
        self != Written::XForwarded
    }
}

/// A client, as the last trusted proxy before it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) address: IpAddr,
    /// It speaks TLS with a proxy.
    pub(crate) https: Option<bool>,
    /// The host and the port that it asked for.
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
}

impl Proxies {
    /// Whether what comes from there may tell of the client.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.has(address))
    }

    /// What a trusted proxy tells in the head of a request. Without a chain the proxy itself is the client.
    pub(crate) fn word(&self, proxy: IpAddr, fields: &dyn Fields) -> Word {
        match self.read {
            Told::XForwarded => chain::x_forwarded(self, proxy, fields),
            Told::Forwarded => chain::forwarded(self, proxy, fields),
        }
    }
}

/// Who asks on a connection, by the word of the proxy that holds it.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) word: Word,
    /// The address, as text.
    text: Box<str>,
    /// Where the connection counts as one of the client's.
    _seat: Option<Seat<IpAddr>>,
}

/// The visitor of a connection; a proxy sends requests of one after the other.
#[derive(Debug, Default)]
pub(crate) struct Visit(Option<Box<Visitor>>);

impl Visit {
    /// Notes who asks now. A client that is new on the connection has to find a seat.
    pub(crate) fn note(
        &mut self,
        word: Word,
        seat: impl FnOnce(IpAddr) -> Result<Option<Seat<IpAddr>>, Refusal>,
    ) -> Result<(), Refusal> {
        if let Some(last) = self
            .0
            .as_mut()
            .filter(|last| last.word.address == word.address)
        {
            last.word = word;
            return Ok(());
        }
        // Its seat is given back before the next is taken.
        self.0 = None;
        self.0 = Some(Box::new(Visitor {
            text: word.address.to_string().into(),
            _seat: seat(word.address)?,
            word,
        }));
        Ok(())
    }

    /// What is known of the client that asks.
    pub(crate) fn client<'a>(&'a self, origin: &'a Origin) -> Client<'a> {
        match &self.0 {
            None => Client::of(origin),
            Some(visitor) => Client {
                address: visitor.word.address,
                text: &visitor.text,
                https: visitor.word.https.unwrap_or(origin.https),
                host: visitor.word.host.as_deref(),
                port: visitor.word.port,
                told: true,
                certificate: origin.certificate.as_deref(),
            },
        }
    }
}

/// The client of a request.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The same as text.
    pub text: &'a str,
    /// It asks by TLS.
    pub https: bool,
    /// The host that it asked a proxy for, where that is told.
    pub host: Option<&'a str>,
    /// The port that it asked a proxy for, where that is told.
    pub port: Option<u16>,
    /// A trusted proxy tells of it, so that what the client itself claims is known to be just that.
    pub told: bool,
    /// What is known of the certificate that was shown.
    pub certificate: Option<&'a str>,
}

#[cfg(test)]
impl Client<'static> {
    /// In clear text, and without a proxy.
    pub(crate) const PLAIN: Self = Self {
        address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        text: "10.0.0.1",
        https: false,
        host: None,
        port: None,
        told: false,
        certificate: None,
    };
}

impl<'a> Client<'a> {
    /// Whoever holds the connection.
    pub(crate) fn of(origin: &'a Origin) -> Self {
        Self {
            address: origin.address.ip(),
            text: &origin.text,
            https: origin.https,
            host: None,
            port: None,
            told: false,
            certificate: origin.certificate.as_deref(),
        }
    }

    /// How it asks, as a URL begins.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The value of `forwarded`, for an instance; `host` was checked.
    pub(crate) fn write_forwarded(&self, host: &str, out: &mut Vec<u8>) {
        let is_v6 = self.text.contains(':');
        let (open, close) = if is_v6 { ("\"[", "]\"") } else { ("", "") };
        for part in ["for=", open, self.text, close, ";proto=", self.scheme()] {
            out.extend_from_slice(part.as_bytes());
        }
        if is_quotable(host) {
            for part in [";host=\"", host, "\""] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

/// What stands in quotes without an escape.
fn is_quotable(host: &str) -> bool {
    !host.is_empty() && check_host(host).is_ok()
}
