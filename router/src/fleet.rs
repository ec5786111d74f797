use std::collections::HashMap;
use std::sync::Arc;

use hydrant_contracts::{Server, ServerName, ZoneName};

use crate::peer::{Peer, Reach};
use crate::probe::ProbeQueue;
use crate::table::Table;

/// The servers of the fleet, as a router on one of them sees them.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    own: Option<ServerName>,
    own_zone: Option<ZoneName>,
    /// The nodes of the other servers.
    peers: HashMap<ServerName, Arc<Peer>>,
}

impl Fleet {
    /// The fleet of a newer table. What this one knows of a node that is still there is kept.
    pub(crate) fn next(&self, table: &Table, workers: usize, probes: &Arc<ProbeQueue>) -> Self {
        let is_own = |server: &&Arc<Server>| server.name == table.own;
        let own_zone = table.servers.iter().find(is_own).map(|own| &own.zone);
        let others = table.servers.iter().filter(|server| !is_own(server));
        let peers = others.filter_map(|server| {
            let before = self.peers.get(&server.name);
            let peer = Peer::of(server, own_zone, before, workers, probes)?;
            Some((server.name.clone(), peer))
        });
        Self {
            peers: peers.collect(),
            own: Some(table.own.clone()),
            own_zone: own_zone.cloned(),
        }
    }

    /// Whether every instance is reached in the same way in both.
    pub(crate) fn is(&self, other: &Fleet) -> bool {
        let is_in_other = |(name, peer): (&ServerName, &Arc<Peer>)| {
            let other = other.peers.get(name);
            other.is_some_and(|other| Arc::ptr_eq(peer, other))
        };
        self.own == other.own
            && self.own_zone == other.own_zone
            && self.peers.len() == other.peers.len()
            && self.peers.iter().all(is_in_other)
    }

    /// How an instance on `server` is reached.
    pub(crate) fn reach(&self, server: &str) -> Reach {
        if self.is_own(server) {
            return Reach::Own;
        }
        let peer = self.peer(server);
        peer.map_or(Reach::Unreachable, |peer| Reach::Peer(Arc::clone(peer)))
    }

    pub(crate) fn is_own(&self, server: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.as_str() == server)
    }

    /// Where this server stands.
    pub(crate) fn own_zone(&self) -> Option<&ZoneName> {
        self.own_zone.as_ref()
    }

    /// Where an instance stands that is reached so.
    pub(crate) fn zone<'a>(&'a self, reach: &'a Reach) -> Option<&'a ZoneName> {
        match reach {
            Reach::Own => self.own_zone(),
            Reach::Peer(peer) => Some(&peer.zone),
            Reach::Unreachable => None,
        }
    }

    /// The node of another server.
    pub(crate) fn peer(&self, server: &str) -> Option<&Arc<Peer>> {
        self.peers.get(server)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }
}
