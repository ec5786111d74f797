//! Three nodes with a registry of three servers and a state apart, and a proxy on every way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hydrant_harness::Proxy;
use hydrant_harness::node::{Fleet, Node, Setup};
use rustix::process::Signal;

use super::holder::SERVICE;
use super::schedule::{Fault, Reach};
use super::servers::Servers;
use crate::fleet::engines::{Engines, coordination, program, state};

/// How long a silent node keeps its seats: shorter than the longest fault.
const SESSION: Duration = Duration::from_secs(1);
const NODES: usize = 3;
const REGISTRY: usize = 3;

/// The fleet.
pub struct Apart {
    nodes: Vec<Place>,
    token: String,
    /// The servers of the registry that were killed, and whether the state's server was.
    killed: BTreeSet<usize>,
    state_is_killed: bool,
    engines: Engines,
    _fleet: Fleet,
}

/// A node, or how it is started again.
struct Place {
    node: Option<Node>,
    setup: Option<Setup>,
    url: String,
    registry: Vec<Proxy>,
    state: Proxy,
}

impl Apart {
    /// `None` where a server is missing; that was said aloud.
    pub fn start() -> Option<Self> {
        let engines = Engines::start(REGISTRY)?;
        let fleet = Fleet::new(program(), "");
        let places = (0..NODES).map(|number| place(&engines, &fleet, number));
        let mut nodes: Vec<Place> = places.collect();
        for place in &mut nodes {
            let node = place.node.as_mut().expect("it was started");
            node.wait_ready();
            place.url = format!("http://{}", node.local());
        }
        let first = nodes[0].node.as_ref().expect("it was started");
        let token = first.json(&["token", SERVICE])["token"].clone();
        Some(Self {
            token: token.as_str().expect("a token").into(),
            nodes,
            killed: BTreeSet::new(),
            state_is_killed: false,
            engines,
            _fleet: fleet,
        })
    }

    fn node(&self, number: usize) -> Option<&Node> {
        self.nodes[number].node.as_ref()
    }
}

fn place(engines: &Engines, fleet: &Fleet, number: usize) -> Place {
    let proxy = |address: String| {
        let target: SocketAddr = address.parse().expect("an address");
        Proxy::start(target)
    };
    let registry: Vec<Proxy> = engines
        .zookeeper
        .addresses()
        .into_iter()
        .map(proxy)
        .collect();
    let state_way = proxy(engines.redis.addresses().remove(0));
    let addresses: Vec<String> = registry
        .iter()
        .map(|one| one.address().to_string())
        .collect();
    let tables = coordination(&addresses, SESSION)
        + &state(&[state_way.address().to_string()])
        + "request_timeout = \"1s\"\n";
    let server = ["one", "two", "three"][number];
    let setup = fleet.server_with(server, "a", &tables, "");
    Place {
        node: Some(setup.spawn()),
        setup: None,
        url: String::new(),
        registry,
        state: state_way,
    }
}

impl Servers for Apart {
    fn reach(&self) -> Reach {
        Reach {
            nodes: NODES,
            registry: REGISTRY,
        }
    }

    fn url(&self, node: usize) -> String {
        self.nodes[node].url.clone()
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::StopHolder(_) | Fault::KillHolder(_) => panic!("holders are the arena's"),
            Fault::StopNode(number) => {
                let node = self.node(number).expect("it runs");
                node.signal(Signal::STOP);
            }
            Fault::KillNode(number) => {
                let place = &mut self.nodes[number];
                place.setup = place.node.take().map(Node::kill);
            }
            Fault::CutRegistry(number) => self.nodes[number].registry.iter().for_each(Proxy::cut),
            Fault::HoldRegistry(number) => {
                self.nodes[number].registry.iter().for_each(Proxy::hold);
            }
            Fault::CutState(number) => self.nodes[number].state.cut(),
            Fault::HoldState(number) => self.nodes[number].state.hold(),
            Fault::KillRegistry(number) => {
                self.engines.zookeeper.kill(number);
                self.killed.insert(number);
            }
            Fault::StopRegistry(number) => self.engines.zookeeper.pause(number),
            Fault::KillState => {
                self.engines.redis.kill(0);
                self.state_is_killed = true;
            }
            Fault::StopState => self.engines.redis.pause(0),
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::StopNode(number) => {
                let node = self.node(number).expect("it runs");
                node.signal(Signal::CONT);
            }
            Fault::CutRegistry(number) | Fault::HoldRegistry(number) => {
                self.nodes[number].registry.iter().for_each(Proxy::restore);
            }
            Fault::CutState(number) | Fault::HoldState(number) => {
                self.nodes[number].state.restore();
            }
            Fault::StopRegistry(number) => self.engines.zookeeper.resume(number),
            Fault::StopState => self.engines.redis.resume(0),
            _ => {}
        }
    }

    fn mend(&mut self) {
        if std::mem::take(&mut self.state_is_killed) {
            self.engines.redis.restart(0);
        }
        for server in std::mem::take(&mut self.killed) {
            self.engines.zookeeper.restart(server);
        }
        for place in &mut self.nodes {
            if let Some(setup) = place.setup.take() {
                place.node = Some(setup.start());
            }
        }
    }
}
