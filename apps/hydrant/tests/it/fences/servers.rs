//! What the holders compete on, and how it is struck: one node with the embedded engines, or a
//! fleet with a registry and a state apart.

use hydrant_sdk::{Config, Hydrant};
use rustix::process::Signal;

use super::holder::SERVICE;
use super::schedule::{Fault, Reach};
use crate::harness::{Node, Setup};

/// What can be struck.
pub trait Servers {
    fn reach(&self) -> Reach;
    /// A node's local listener. It stays when another node follows a killed one.
    fn url(&self, node: usize) -> String;
    fn token(&self) -> &str;
    fn begin(&mut self, fault: Fault);
    fn end(&mut self, fault: Fault);
    /// Starts again what was killed.
    fn mend(&mut self);

    fn hydrant(&self) -> Hydrant {
        let config = Config::new(&self.url(0), Some(self.token())).expect("the node's URL");
        Hydrant::new(config).expect("the node's URL")
    }
}

/// One node with everything in it.
pub struct Single {
    /// `None` only between two nodes.
    node: Option<Node>,
    token: String,
}

impl Single {
    pub fn start() -> Self {
        let node = Setup::node("").start();
        let token = node.json(&["token", SERVICE])["token"].clone();
        Self {
            token: token.as_str().expect("a token").into(),
            node: Some(node),
        }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("a node runs")
    }
}

impl Servers for Single {
    fn reach(&self) -> Reach {
        Reach {
            nodes: 1,
            registry: 0,
        }
    }

    fn url(&self, _: usize) -> String {
        format!("http://{}", self.node().local())
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::StopNode(_) => self.node().signal(Signal::STOP),
            Fault::KillNode(_) => {
                let node = self.node.take().expect("a node runs");
                self.node = Some(node.kill().start());
            }
            other => panic!("nothing here suffers {other:?}"),
        }
    }

    fn end(&mut self, fault: Fault) {
        if let Fault::StopNode(_) = fault {
            self.node().signal(Signal::CONT);
        }
    }

    fn mend(&mut self) {}
}
