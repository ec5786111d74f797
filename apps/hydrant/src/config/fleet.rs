//! `[fleet]` of the configuration file.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration as Time;

use hydrant_runtime::Duration;
use serde::Deserialize;
use toml::Spanned;

use super::{Listen, Mistake};

/// `[fleet]`: how the node of this server and those of others reach each other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    peer: Spanned<Listen>,
    advertise: Option<Spanned<Listen>>,
    /// The folder that `hydrant ca issue` has made for this server.
    pub(crate) credentials: PathBuf,
    tls: Option<Spanned<bool>>,
    session: Option<Spanned<Duration>>,
}

/// The least and the most that others may wait for a silent node.
const SESSION: RangeInclusive<Time> = Time::from_secs(1)..=Time::from_secs(300);

impl Fleet {
    /// Where the nodes of other servers come in.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.get_ref().0
    }

    /// What others are told, when it is not where the node listens.
    pub(crate) fn advertise(&self) -> Option<SocketAddr> {
        self.advertise.as_ref().map(|address| address.get_ref().0)
    }

    /// Whether nodes prove to each other who they are, and what they say is encrypted.
    pub(crate) fn tls(&self) -> bool {
        let usual = !self.peer().ip().is_loopback();
        self.tls.as_ref().map_or(usual, |tls| *tls.get_ref())
    }

    /// How long the others wait for this node when it is silent, when the file says it.
    pub(crate) fn session(&self) -> Option<Time> {
        self.session.as_ref().map(|time| time.get_ref().get())
    }

    pub(super) fn check(&self) -> Result<(), Mistake> {
        match &self.session {
            Some(time) if !SESSION.contains(&time.get_ref().get()) => {
                return Err((time.span().start, "`session` is 1s to 5m".into()));
            }
            _ => {}
        }
        let is_off = self.tls.as_ref().filter(|_| !self.tls());
        if let Some(tls) = is_off.filter(|_| !self.peer().ip().is_loopback()) {
            let message = "without TLS, nodes talk to each other on the loopback only: take this line \
                           out, or let `peer` be an address of 127.0.0.1";
            return Err((tls.span().start, message.into()));
        }
        if let Some(told) = &self.advertise {
            let address = told.get_ref().0;
            if address.ip().is_unspecified() || address.port() == 0 {
                let message = "`advertise` is what other servers connect to: write the address of \
                               this one, as 10.0.0.1:9081";
                return Err((told.span().start, message.into()));
            }
        } else if self.peer().ip().is_unspecified() {
            let message = "`peer` listens on every address: say which one the other servers connect \
                           to, as advertise = \"10.0.0.1:9081\"";
            return Err((self.peer.span().start, message.into()));
        }
        Ok(())
    }
}

/// Several servers need engines that they share, and an engine that is shared means several servers.
/// `shared` and `places` are of coordination and state: whether the engine is, and where it is named.
pub(super) fn check_engines(
    fleet: Option<&Spanned<Fleet>>,
    shared: [bool; 2],
    places: [Option<usize>; 2],
) -> Result<(), Mistake> {
    const PORTS: [(&str, &str); 2] = [("coordination", "zookeeper"), ("state", "redis")];
    for (((port, example), shared), place) in PORTS.into_iter().zip(shared).zip(places) {
        match fleet {
            Some(fleet) if !shared => {
                let message = format!(
                    "the embedded engines are of one server, and [fleet] is for several: add [{port}] \
                     with engine = \"{example}\", or take [fleet] out"
                );
                return Err((place.unwrap_or(fleet.span().start), message));
            }
            None if shared => {
                let message = "this engine is shared by several servers, and the file does not say how \
                               they reach each other: add [fleet] with `peer` and `credentials`";
                return Err((place.unwrap_or(0), message.into()));
            }
            _ => {}
        }
    }
    Ok(())
}
