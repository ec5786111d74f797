//! Servers with a node and instances of one service, and requests that flow through all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hydrant_contracts::{Instance, InstanceState};
use hydrant_harness::node::{Node, Setup};
use hydrant_sdk::{Config, Hydrant};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::changes::Changes;
use crate::harness::{kill, pause};
use crate::load::Load;

pub const SERVICE: &str = "api/echo";

/// How many instances a server has that has any.
pub const EACH: usize = 2;

/// How long a session lives. On a busy machine nobody may be taken for dead who is only slow.
pub const SESSION: Duration = Duration::from_secs(6);

/// How long the table may take to be right, five times over.
const RIGHT_WITHIN: Duration = Duration::from_secs(5 * 5);

pub struct Town {
    pub nodes: Vec<Node>,
    pub clients: Vec<Hydrant>,
    pub runtime: Runtime,
    /// How many instances there are.
    instances: usize,
}

impl Town {
    /// Starts the nodes, and waits until each knows all instances.
    pub fn start(setups: impl IntoIterator<Item = Setup>, instances: usize) -> Self {
        let mut nodes: Vec<Node> = setups.into_iter().map(Setup::spawn).collect();
        nodes.iter_mut().for_each(Node::wait_ready);
        let runtime = hydrant_harness::runtime();
        let clients = nodes.iter().map(|node| client(node, "api/looker"));
        let town = Self {
            clients: clients.collect(),
            nodes,
            runtime,
            instances,
        };
        town.until_right(Instant::now());
        town
    }

    /// What a node knows of the service.
    pub fn known(&self, node: usize) -> Vec<Instance> {
        let found = self.runtime.block_on(self.clients[node].discover(SERVICE));
        found.expect("the node answers")
    }

    /// The processes that live, as the system tells.
    pub fn living(&self) -> BTreeSet<u32> {
        self.nodes.iter().flat_map(Node::started).collect()
    }

    /// What is wrong in what a node knows: that it is not all the living, once each and ready.
    fn wrong(&self, node: usize) -> Option<String> {
        let living = self.living();
        let known = self.known(node);
        let ready = known.iter().filter(|one| one.state == InstanceState::Ready);
        let ready: Vec<u32> = ready.map(|one| one.pid).collect();
        let right = ready.len() == known.len()
            && ready.len() == living.len()
            && ready.len() == self.instances
            && ready.iter().all(|pid| living.contains(pid));
        (!right).then(|| format!("node {node} knows {known:#?}, and {living:?} live"))
    }

    /// Waits until every node's table is the truth; tells how long that took since `begun`.
    pub fn until_right(&self, begun: Instant) -> Duration {
        let mut took = Duration::ZERO;
        for node in 0..self.nodes.len() {
            while let Some(wrong) = self.wrong(node) {
                let time = begun.elapsed();
                assert!(time < RIGHT_WITHIN + Duration::from_secs(20), "{wrong}");
                pause(Duration::from_millis(20));
            }
            took = begun.elapsed();
        }
        took
    }

    /// As [`Town::until_right`], where a bound is promised.
    pub fn right_in_time(&self, begun: Instant) -> Duration {
        let took = self.until_right(begun);
        assert!(took < RIGHT_WITHIN, "{took:?}");
        took
    }

    /// Kills an instance on the server of a node; gives its id.
    pub fn kill_one(&self, node: usize) -> String {
        let own = self.nodes[node].started();
        let known = self.known(node);
        let one = known.iter().find(|one| own.contains(&one.pid));
        let one = one.expect("an instance of this server");
        kill(one.pid, Signal::KILL);
        one.id.to_string()
    }

    /// Kills an instance on one server, and waits until all nodes know that, and who came after it.
    pub fn change(&self, node: usize) -> (String, Duration) {
        let begun = Instant::now();
        let killed = self.kill_one(node);
        // Until the system tells of its end, all looks right.
        pause(Duration::from_millis(5));
        (killed, self.right_in_time(begun))
    }

    /// Requests that flow through a node.
    pub fn load(&self, node: usize) -> Load {
        let _inside = self.runtime.enter();
        let path = format!("/{SERVICE}/who");
        let load = Load::start(
            self.nodes[node].public(),
            &path,
            4,
            Duration::from_millis(10),
        );
        self.nodes[node].wait("requests flow", |_| (load.good() > 50).then_some(()));
        load
    }

    /// What each node tells of the service, from now on.
    pub fn changes(&self) -> Vec<Changes> {
        let _inside = self.runtime.enter();
        self.clients.iter().map(Changes::start).collect()
    }

    /// Ends the load; no request may have failed.
    pub fn finish(&self, load: Load) {
        let outcome = self.runtime.block_on(load.finish());
        println!(
            "{} requests, {} failed",
            outcome.good,
            outcome.failures.len()
        );
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(outcome.good > 200, "there was load: {}", outcome.good);
    }
}

/// A client of a node, as a service.
pub fn client(node: &Node, service: &str) -> Hydrant {
    let token = node.json(&["token", service])["token"].clone();
    let config = Config::new(&format!("http://{}", node.local()), token.as_str());
    Hydrant::new(config.expect("the node's URL")).expect("the node's URL")
}
