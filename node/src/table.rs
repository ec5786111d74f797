//! Turns coordination's keys into the router's table. With coordination away the last known good
//! table stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use hydrant_contracts::{Instance, InstanceId, InstanceState, ServerName, ServiceId};
use hydrant_ports::coordination::Coordination;
use hydrant_ports::{Change, Entry, Key, Watch};
use hydrant_router::Table as RoutingTable;
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::watch;

use crate::traffic::Traffic;

/// Where instances stand in coordination: `instances/{tier}/{service}/{instance id}`.
pub(crate) const INSTANCES: &str = "instances/";

/// Changes that come within this time are published together.
const BURST: Duration = Duration::from_millis(2);

/// How long a registration waits until its own change has reached the router.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// The instances of the fleet by their key.
pub(crate) type Instances = BTreeMap<Key, Known>;

/// An instance with the revision at which it was read.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) instance: Arc<Instance>,
    revision: u64,
}

/// The table as it was last published to the router.
pub(crate) struct Table {
    /// The server of this node.
    server: ServerName,
    /// `None` until coordination has told what there is.
    published: watch::Sender<Option<Arc<Instances>>>,
}

impl Table {
    pub(crate) fn new(server: ServerName) -> Self {
        Self {
            server,
            published: watch::Sender::new(None),
        }
    }

    /// The instances that are published now.
    pub(crate) fn instances(&self) -> Arc<Instances> {
        self.published.borrow().clone().unwrap_or_default()
    }

    /// Changes whenever a table is published.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<Arc<Instances>>> {
        self.published.subscribe()
    }

    /// Waits for the first table, but not for long: the node can do without.
    pub(crate) async fn begun(&self) {
        let mut published = self.published.subscribe();
        let first = published.wait_for(Option::is_some);
        if tokio::time::timeout(SHOWN_WITHIN, first).await.is_err() {
            tracing::warn!("coordination has not told the instances of the fleet yet");
        }
    }

    /// Waits until the router's table is as new as `revision` of `key`, but not for long: the
    /// watch may be away.
    pub(crate) async fn shows(&self, key: &Key, revision: u64) {
        let mut published = self.published.subscribe();
        let shown = published.wait_for(|instances| {
            let known = instances.as_ref().and_then(|instances| instances.get(key));
            known.is_some_and(|known| known.revision >= revision)
        });
        if tokio::time::timeout(SHOWN_WITHIN, shown).await.is_err() {
            tracing::warn!(%key, "the routing table does not follow coordination");
        }
    }

    /// Resolves when the instance is in the router's table as ready.
    pub(crate) async fn has_ready(&self, id: &InstanceId) {
        let mut published = self.published.subscribe();
        let ready = published.wait_for(|instances| {
            instances.iter().flat_map(|all| all.values()).any(|known| {
                known.instance.id == *id && known.instance.state == InstanceState::Ready
            })
        });
        let _ = ready.await;
    }

    /// Follows coordination and publishes to the router, together with `own`, the instance that
    /// is the node itself. Ends with the node.
    pub(crate) async fn follow(
        &self,
        coordination: &dyn Coordination,
        traffic: &dyn Traffic,
        own: &Arc<Instance>,
        shutdown: &Shutdown,
    ) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let prefix = INSTANCES.parse().expect("the prefix is valid");
        while !shutdown.has_begun() {
            match coordination.watch(&prefix).await {
                Ok(watch) => {
                    backoff.reset();
                    tokio::select! {
                        () = shutdown.begun() => return,
                        () = self.follow_watch(watch, traffic, own) => {}
                    }
                    tracing::warn!("the watch of instances ended; the last known table stays");
                }
                Err(error) => tracing::warn!(%error, "cannot watch instances"),
            }
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }

    pub(crate) fn routed(&self, instances: &Instances, own: &Arc<Instance>) -> RoutingTable {
        let known = instances.values().map(|known| &known.instance);
        RoutingTable {
            own: self.server.clone(),
            servers: Vec::new(),
            instances: known.chain([own]).cloned().collect(),
        }
    }

    async fn follow_watch(&self, mut watch: Watch, traffic: &dyn Traffic, own: &Arc<Instance>) {
        let mut instances = Instances::clone(&self.instances());
        while let Some(change) = watch.next().await {
            apply(&mut instances, change);
            tokio::time::sleep(BURST).await;
            while let Some(Some(change)) = watch.next().now_or_never() {
                apply(&mut instances, change);
            }
            traffic.publish(&self.routed(&instances, own));
            self.published
                .send_replace(Some(Arc::new(instances.clone())));
        }
    }
}

/// Where an instance stands in coordination.
pub(crate) fn instance_key(
    service: &ServiceId,
    id: &str,
) -> Result<Key, hydrant_ports::InvalidKey> {
    format!("{INSTANCES}{service}/{id}").parse()
}

fn apply(instances: &mut Instances, change: Change) {
    match change {
        Change::All(entries) => {
            instances.clear();
            for entry in entries {
                put(instances, entry);
            }
        }
        Change::Put(entry) => put(instances, entry),
        Change::Removed(key) => {
            instances.remove(&key);
        }
    }
}

fn put(instances: &mut Instances, entry: Entry) {
    match read(&entry) {
        Ok(instance) => {
            let known = Known {
                instance: Arc::new(instance),
                revision: entry.revision,
            };
            instances.insert(entry.key, known);
        }
        Err(error) => {
            tracing::warn!(key = %entry.key, error, "skipped an instance that cannot be read");
            instances.remove(&entry.key);
        }
    }
}

/// An entry speaks only for the service and the id that its key names.
fn read(entry: &Entry) -> Result<Instance, String> {
    let instance: Instance =
        serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
    match instance_key(&instance.service, instance.id.as_str()) {
        Ok(key) if key == entry.key => Ok(instance),
        _ => Err(format!("it is for {} of {}", instance.id, instance.service)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, instance: &Instance, revision: u64) -> Entry {
        Entry {
            key: key.parse().unwrap(),
            value: serde_json::to_vec(instance).unwrap().into(),
            revision,
        }
    }

    fn instance(service: &str, id: &str) -> Instance {
        Instance {
            id: id.parse().unwrap(),
            service: service.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            server: "one".into(),
            address: "127.0.0.1:4000".parse().unwrap(),
            http2: false,
            methods: vec![],
            prefixes: vec![],
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 0,
            pid: 0,
        }
    }

    #[test]
    fn a_malformed_entry_is_skipped_and_takes_the_old_one_with_it() {
        let mut instances = Instances::new();
        let good = entry("instances/api/a/a-1", &instance("api/a", "a-1"), 1);
        apply(&mut instances, Change::All(vec![good]));
        assert_eq!(instances.len(), 1);
        let broken = Entry {
            key: "instances/api/a/a-1".parse().unwrap(),
            value: "{".into(),
            revision: 2,
        };
        apply(&mut instances, Change::Put(broken));
        assert!(instances.is_empty());
    }

    #[test]
    fn an_entry_does_not_speak_for_another_service() {
        let mut instances = Instances::new();
        let forged = entry("instances/api/a/a-1", &instance("service/b", "a-1"), 1);
        apply(&mut instances, Change::Put(forged));
        assert!(instances.is_empty());
    }

    #[test]
    fn a_gap_replaces_all() {
        let mut instances = Instances::new();
        let key = |id: &str| format!("instances/api/a/{id}");
        let put = |id: &str| entry(&key(id), &instance("api/a", id), 1);
        apply(&mut instances, Change::Put(put("a-1")));
        apply(&mut instances, Change::All(vec![put("a-2"), put("a-3")]));
        apply(&mut instances, Change::Removed(key("a-2").parse().unwrap()));
        let left: Vec<_> = instances.keys().map(Key::as_str).collect();
        assert_eq!(left, ["instances/api/a/a-3"]);
    }
}
