use std::sync::Arc;

use hydrant_contracts::rules::RuleSet;
use hydrant_contracts::{Instance, Server, ServerName};

/// What a router is told: who is there, and where it stands itself.
#[derive(Clone, Debug)]
pub struct Table {
    /// The router's own server. Instances on it are reached at their address, those of others
    /// through the node of their server.
    pub own: ServerName,
    /// Every server whose node is there, the own one among them.
    pub servers: Vec<Arc<Server>>,
    /// Every registered instance of the fleet.
    pub instances: Vec<Arc<Instance>>,
    /// The rules of traffic. The same place in memory says that nothing changed.
    pub rules: Arc<RuleSet>,
}

impl Table {
    /// The table of a fleet that is one server, on which all these instances are.
    pub fn of_one_server(instances: &[Instance]) -> Self {
        let own: ServerName = "local".parse().expect("the name is good");
        let here = |instance: &Instance| {
            let server = own.to_string();
            Arc::new(Instance {
                server,
                ..instance.clone()
            })
        };
        Self {
            instances: instances.iter().map(here).collect(),
            servers: Vec::new(),
            rules: Arc::default(),
            own,
        }
    }
}
