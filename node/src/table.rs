//! What the node knows of the fleet, and what its router is told of it: the servers and instances
//! that coordination shows, with what is registered with this node itself on top.
//!
//! With coordination away the last known good table stays, and the instances of this server come
//! and go in it all the same: of them this node knows best.

mod merge;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::rules::RuleSet;
use hydrant_contracts::{Instance, InstanceId, InstanceState, Server, ServiceId};
use hydrant_ports::{Change, Coordination, Key};
use hydrant_router::Table as RoutingTable;
use hydrant_runtime::{Backoff, Shutdown};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::instances::Instances;
use crate::rules::RULES;
use crate::servers::SERVERS;
use crate::traffic::Traffic;
use merge::{Merged, Overlay, Servers};

/// Where instances stand in coordination: `instances/{tier}/{service}/{instance id}`.
pub(crate) const INSTANCES: &str = "instances/";

/// Changes that come within this time are published together.
const BURST: Duration = Duration::from_millis(2);

/// The most changes that are published together.
const MOST: usize = 4096;

/// How long a registration waits until its own change has reached the router.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// How long a node that starts waits for the first table: ten thousand instances take a while.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);

/// The fleet as it was last published to the router.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) instances: Instances,
    pub(crate) servers: Servers,
    pub(crate) rules: Ruling,
    /// Coordination has told what there is.
    begun: bool,
    /// The last change of this node's own instances that is shown.
    own_change: u64,
}

/// The rules that hold.
#[derive(Clone, Default)]
pub(crate) struct Ruling {
    pub(crate) set: Arc<RuleSet>,
    /// Why they are not those that coordination shows.
    pub(crate) trouble: Option<Arc<str>>,
}

pub(crate) struct Table {
    /// The server of this node.
    own: Arc<Server>,
    overlay: Mutex<Overlay>,
    overlay_changed: Notify,
    view: watch::Sender<View>,
}

impl Table {
    pub(crate) fn new(own: Arc<Server>, rules: RuleSet) -> Self {
        let view = View {
            instances: Instances::default(),
            servers: Servers::from_iter([own.clone()]),
            rules: Ruling {
                set: Arc::new(rules),
                trouble: None,
            },
            begun: false,
            own_change: 0,
        };
        Self {
            own,
            overlay: Mutex::default(),
            overlay_changed: Notify::new(),
            view: watch::Sender::new(view),
        }
    }

    /// The fleet as it is published now.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Changes whenever a table is published.
    pub(crate) fn changes(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Waits for the first table, but not for long: the node can do without.
    pub(crate) async fn begun(&self) {
        let mut view = self.view.subscribe();
        let first = view.wait_for(|view| view.begun);
        if tokio::time::timeout(BEGUN_WITHIN, first).await.is_err() {
            tracing::warn!("coordination has not told the instances of the fleet yet");
        }
    }

    /// Says what an instance of this server is now, or that it is gone, whatever coordination
    /// shows. Returns the number of the change, for [`shows`](Self::shows).
    pub(crate) fn set_own(&self, key: &Key, instance: Option<Arc<Instance>>) -> u64 {
        let change = self.overlay().set(key, instance);
        self.overlay_changed.notify_one();
        change
    }

    /// The removal of an own instance has reached coordination.
    pub(crate) fn removed_own(&self, key: &Key) {
        self.overlay().removed(key, Instant::now());
    }

    /// Waits until the router knows of a change of an own instance.
    pub(crate) async fn shows(&self, change: u64) {
        let mut view = self.view.subscribe();
        let shown = view.wait_for(|view| view.own_change >= change);
        if tokio::time::timeout(SHOWN_WITHIN, shown).await.is_err() {
            tracing::warn!("the routing table does not follow the registrations of this node");
        }
    }

    /// Resolves when the instance is in the router's table as ready.
    pub(crate) async fn has_ready(&self, id: &InstanceId) {
        let mut view = self.view.subscribe();
        let ready = view.wait_for(|view| {
            let mut of_id = view.instances.services().filter_map(|(_, all)| all.get(id));
            of_id.any(|instance| instance.state == InstanceState::Ready)
        });
        let _ = ready.await;
    }

    /// The routing table of a view, together with `node`, the instance that is the node itself.
    pub(crate) fn routed(&self, view: &View, node: &Arc<Instance>) -> RoutingTable {
        RoutingTable {
            own: self.own.name.clone(),
            servers: view.servers.iter().cloned().collect(),
            instances: view.instances.iter().chain([node]).cloned().collect(),
            rules: view.rules.set.clone(),
        }
    }

    /// Follows coordination and this node's own registrations, and publishes to the router. Ends
    /// with the node.
    pub(crate) async fn follow(
        &self,
        coordination: &Arc<dyn Coordination>,
        traffic: &dyn Traffic,
        node: &Arc<Instance>,
        shutdown: &Shutdown,
    ) {
        let mut instances = feed(INSTANCES, coordination, shutdown);
        let mut servers = feed(SERVERS, coordination, shutdown);
        let mut rules = feed(RULES, coordination, shutdown);
        let mut merged = Merged::new(self.own.clone(), self.view().rules);
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                Some(change) = instances.recv() => merged.instances(change),
                Some(change) = servers.recv() => merged.servers(change),
                Some(change) = rules.recv() => merged.rules(change),
                () = self.overlay_changed.notified() => {}
            }
            tokio::time::sleep(BURST).await;
            for _ in 0..MOST {
                match instances.try_recv() {
                    Ok(change) => merged.instances(change),
                    Err(_) => break,
                }
            }
            while let Ok(change) = servers.try_recv() {
                merged.servers(change);
            }
            while let Ok(change) = rules.try_recv() {
                merged.rules(change);
            }
            let own_change = merged.settle(&mut self.overlay(), Instant::now());
            self.publish(&mut merged, own_change, traffic, node);
        }
    }

    fn publish(
        &self,
        merged: &mut Merged,
        own_change: u64,
        traffic: &dyn Traffic,
        node: &Arc<Instance>,
    ) {
        let view = View {
            instances: merged.instances.clone(),
            servers: merged.servers.clone(),
            rules: merged.ruling.clone(),
            begun: merged.has_begun(),
            own_change,
        };
        if merged.take_changed() {
            traffic.publish(&self.routed(&view, node));
        }
        self.view.send_replace(view);
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What coordination tells of a prefix, for as long as the node runs.
fn feed(
    prefix: &'static str,
    coordination: &Arc<dyn Coordination>,
    shutdown: &Shutdown,
) -> mpsc::Receiver<Change> {
    let (told, changes) = mpsc::channel(64);
    let (coordination, ends) = (coordination.clone(), shutdown.clone());
    shutdown.spawn(async move {
        tokio::select! {
            () = ends.begun() => {}
            () = tell(prefix, &*coordination, &told) => {}
        }
    });
    changes
}

/// Watches a prefix, again as often as the watch ends, until nobody listens.
async fn tell(prefix: &'static str, coordination: &dyn Coordination, told: &mpsc::Sender<Change>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let below = prefix.parse().expect("the prefix is valid");
    loop {
        match coordination.watch(&below).await {
            Ok(mut watch) => {
                backoff.reset();
                while let Some(change) = watch.next().await {
                    if told.send(change).await.is_err() {
                        return;
                    }
                }
                tracing::warn!(prefix, "a watch ended; what was last known stays");
            }
            Err(error) => tracing::warn!(prefix, %error, "cannot watch"),
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Where an instance stands in coordination.
pub(crate) fn instance_key(
    service: &ServiceId,
    id: &str,
) -> Result<Key, hydrant_ports::InvalidKey> {
    format!("{INSTANCES}{service}/{id}").parse()
}

/// Whose key it is; `None` for one that is not of an instance.
fn key_names(key: &Key) -> Option<(ServiceId, InstanceId)> {
    let (service, id) = key.as_str().strip_prefix(INSTANCES)?.rsplit_once('/')?;
    Some((service.parse().ok()?, id.parse().ok()?))
}
