use std::net::SocketAddr;
use std::sync::Arc;

use hydrant_contracts::{Server, ServerName, ZoneName};

use crate::clock::Moment;
use crate::ejection::Standing;
use crate::instance::Live;
use crate::probe::ProbeQueue;

/// How near an instance is to this router. The nearest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// On this server.
    Server,
    /// On another server of the same zone.
    Zone,
    /// In another zone.
    Fleet,
}

impl Nearness {
    /// All, the nearest first.
    pub const ALL: [Nearness; 3] = [Nearness::Server, Nearness::Zone, Nearness::Fleet];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Nearness::Server => "this server",
            Nearness::Zone => "this zone",
            Nearness::Fleet => "another zone",
        }
    }
}

/// The node of another server, through which the instances there are reached. What is known of
/// it is shared by all of them, and outlives a snapshot: when it refuses connections, everything
/// on its server is passed over at once.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The server's name.
    pub name: ServerName,
    /// Where the server stands.
    pub zone: ZoneName,
    /// In this router's zone or not.
    pub nearness: Nearness,
    /// Which run of the node this is: a node that was started anew is not judged by its past.
    run: (i64, u32),
    live: Arc<Live>,
}

impl Peer {
    /// The node of `server`, unless it takes no requests of others. What `before` knows of the
    /// same run of the node is kept.
    pub(crate) fn of(
        server: &Server,
        own_zone: Option<&ZoneName>,
        before: Option<&Arc<Peer>>,
        workers: usize,
        probes: &Arc<ProbeQueue>,
    ) -> Option<Arc<Self>> {
        let address = server.peer?;
        let run = (server.since_unix_ms, server.pid);
        let same_zone = own_zone == Some(&server.zone);
        let nearness = match same_zone {
            true => Nearness::Zone,
            false => Nearness::Fleet,
        };
        let same = before.filter(|peer| peer.address() == address && peer.run == run);
        if let Some(peer) = same
            && (&peer.zone, peer.nearness) == (&server.zone, nearness)
        {
            return Some(Arc::clone(peer));
        }
        let live = match same {
            Some(peer) => Arc::clone(&peer.live),
            None => Live::of_node(server.name.clone(), address, workers, Arc::clone(probes)),
        };
        Some(Arc::new(Self {
            name: server.name.clone(),
            zone: server.zone.clone(),
            nearness,
            run,
            live,
        }))
    }

    /// Where it takes requests of other nodes.
    pub fn address(&self) -> SocketAddr {
        self.live.address()
    }

    /// A number that no instance and no other peer of this process ever has: the key of a pool.
    pub fn key(&self) -> u64 {
        self.live.key()
    }

    /// Passes over everything on its server, on every worker and at once, until it takes
    /// connections again: it refused a connection, or broke one before it answered.
    pub fn eject(&self, now: Moment) {
        self.live.eject(now);
    }

    /// It answered a request of `worker`, whatever the answer: its past is forgiven.
    pub fn answered(&self, worker: usize, now: Moment) {
        self.live.heard(worker, now);
    }

    /// It kept silent about a request of `worker` that waited for a second or more. Once that is
    /// so for some requests one after the other, of whatever instances, it comes last for a time.
    pub fn silent(&self, worker: usize, now: Moment) {
        self.live.silent(worker, now);
    }

    /// Whether everything on its server is passed over now.
    pub fn is_ejected(&self, now: Moment) -> bool {
        self.live.is_ejected(now)
    }

    pub(crate) fn standing(&self, now: Moment) -> Standing {
        self.live.ejection().standing(now)
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }
}

/// How a router gets at an instance.
#[derive(Clone, Debug)]
pub enum Reach {
    /// It is on this server: at its own address.
    Own,
    /// Through the node of its server.
    Peer(Arc<Peer>),
    /// The node of its server is not known, or takes no requests of others.
    Unreachable,
}

impl Reach {
    /// How near the instance is, if it can be reached.
    pub fn nearness(&self) -> Option<Nearness> {
        match self {
            Reach::Own => Some(Nearness::Server),
            Reach::Peer(peer) => Some(peer.nearness),
            Reach::Unreachable => None,
        }
    }

    /// The node of its server, where that is another one.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Reach::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    pub(crate) fn is(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Own, Reach::Own) | (Reach::Unreachable, Reach::Unreachable) => true,
            (Reach::Peer(one), Reach::Peer(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}
