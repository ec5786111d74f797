use hydrant_contracts::proto::{
    self, DiscoverRequest, DiscoverResponse, REGISTRY_DISCOVER_SPEC, REGISTRY_WATCH_SPEC,
    WatchInstancesEvent, WatchInstancesRequest, watch_instances_event,
};
use hydrant_contracts::{Error, Instance, InvalidName};

use crate::client::Hydrant;
use crate::watching::Watching;

impl Hydrant {
    /// The instances that a pattern means, as `mobile` or `api/*`; an empty one means all.
    ///
    /// # Errors
    ///
    /// If the node does not answer.
    pub async fn discover(&self, pattern: &str) -> Result<Vec<Instance>, Error> {
        let request = DiscoverRequest {
            pattern: pattern.into(),
            ..Default::default()
        };
        let answer: DiscoverResponse = self
            .node_in_context(REGISTRY_DISCOVER_SPEC, request)
            .await?;
        Ok(read_all(&answer.instances)?)
    }

    /// Watches the instances that a pattern means.
    pub fn watch(&self, pattern: &str) -> InstanceWatch {
        let request = WatchInstancesRequest {
            pattern: pattern.into(),
            ..Default::default()
        };
        InstanceWatch(Watching::new(self.clone(), REGISTRY_WATCH_SPEC, request))
    }
}

/// What happens to the instances that a pattern means.
pub struct InstanceWatch(Watching<WatchInstancesRequest, WatchInstancesEvent>);

/// What happened to instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceChange {
    /// These are all: at the start, and again after a break.
    All(Vec<Instance>),
    /// One is new, or has changed.
    Put(Box<Instance>),
    /// The one of this id is gone.
    Removed(String),
}

impl InstanceWatch {
    /// What happens next. It goes on through every break of the way to the node. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    ///
    /// If the node refuses the watch for good, or tells of what this version can't read.
    pub async fn next(&mut self) -> Result<InstanceChange, Error> {
        loop {
            let change = match self.0.next().await?.event {
                Some(watch_instances_event::Event::All(all)) => {
                    InstanceChange::All(read_all(&all.instances)?)
                }
                Some(watch_instances_event::Event::Put(instance)) => {
                    InstanceChange::Put(Box::new(Instance::try_from(&*instance)?))
                }
                Some(watch_instances_event::Event::Removed(id)) => InstanceChange::Removed(id),
                None => continue,
            };
            return Ok(change);
        }
    }
}

fn read_all(instances: &[proto::Instance]) -> Result<Vec<Instance>, InvalidName> {
    instances.iter().map(Instance::try_from).collect()
}
