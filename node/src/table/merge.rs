//! Coordination's keys and this node's own registrations, made into one table a change at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hydrant_contracts::{Instance, Server, ServerName};
use hydrant_ports::{Change, Entry, Key};

use super::key_names;
use crate::instances::Instances;
use crate::servers;

/// The servers of the fleet, by name.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<BTreeMap<ServerName, Arc<Server>>>);

impl Servers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.0.values()
    }
}

impl FromIterator<Arc<Server>> for Servers {
    fn from_iter<T: IntoIterator<Item = Arc<Server>>>(servers: T) -> Self {
        let named = servers
            .into_iter()
            .map(|server| (server.name.clone(), server));
        Self(Arc::new(named.collect()))
    }
}

/// The instances that this node registers itself.
#[derive(Default)]
pub(super) struct Overlay {
    instances: HashMap<Key, Own>,
    /// Keys that changed since the table was published.
    touched: BTreeSet<Key>,
    changes: u64,
}

enum Own {
    Lives(Arc<Instance>),
    /// It has ended. What coordination still shows of it is old news.
    Ended {
        /// Coordination knows.
        removed: bool,
    },
}

impl Overlay {
    pub(super) fn set(&mut self, key: &Key, instance: Option<Arc<Instance>>) -> u64 {
        let own = instance.map_or(Own::Ended { removed: false }, Own::Lives);
        self.instances.insert(key.clone(), own);
        self.touched.insert(key.clone());
        self.changes += 1;
        self.changes
    }

    pub(super) fn removed(&mut self, key: &Key) {
        if let Some(Own::Ended { removed }) = self.instances.get_mut(key) {
            *removed = true;
            self.touched.insert(key.clone());
        }
    }

    /// What an instance is, given what coordination shows of it. An own one that has ended, which
    /// coordination knows and shows no more, is forgotten.
    fn decide(
        &mut self,
        key: &Key,
        shown: Option<&Arc<Instance>>,
        own: &ServerName,
    ) -> Option<Arc<Instance>> {
        // What is shown of an id that another server has was never ours.
        let shown_as_ours = shown.is_some_and(|shown| shown.server == own.as_str());
        match self.instances.get(key) {
            Some(Own::Lives(instance)) => return Some(instance.clone()),
            Some(Own::Ended { .. }) if shown_as_ours => return None,
            Some(Own::Ended { removed: true }) => {
                self.instances.remove(key);
            }
            Some(Own::Ended { removed: false }) | None => {}
        }
        shown.cloned()
    }
}

/// An instance with the revision at which coordination showed it.
struct Shown {
    instance: Arc<Instance>,
    revision: u64,
}

/// The table as it will be published next.
pub(super) struct Merged {
    own: Arc<Server>,
    shown: HashMap<Key, Shown>,
    touched: BTreeSet<Key>,
    changed: bool,
    pub(super) instances: Instances,
    pub(super) servers: Servers,
    /// Coordination has told which instances there are, and which servers.
    begun: [bool; 2],
}

impl Merged {
    pub(super) fn new(own: Arc<Server>) -> Self {
        Self {
            servers: Servers::from_iter([own.clone()]),
            own,
            shown: HashMap::new(),
            touched: BTreeSet::new(),
            changed: false,
            instances: Instances::default(),
            begun: [false; 2],
        }
    }

    /// Takes in what coordination tells of instances.
    pub(super) fn instances(&mut self, change: Change) {
        match change {
            Change::All(entries) => self.all_instances(entries),
            Change::Put(entry) => self.put(entry),
            Change::Removed(key) => {
                self.shown.remove(&key);
                self.touched.insert(key);
            }
        }
    }

    /// After a gap most is as it was: only what has another revision is read.
    fn all_instances(&mut self, entries: Vec<Entry>) {
        let mut before = std::mem::take(&mut self.shown);
        for entry in entries {
            match before.remove(&entry.key) {
                Some(same) if same.revision == entry.revision => {
                    self.shown.insert(entry.key, same);
                }
                _ => self.put(entry),
            }
        }
        self.touched.extend(before.into_keys());
        self.changed |= !self.begun[0];
        self.begun[0] = true;
    }

    fn put(&mut self, entry: Entry) {
        match read(&entry) {
            Ok(instance) => {
                let shown = Shown {
                    instance: Arc::new(instance),
                    revision: entry.revision,
                };
                self.shown.insert(entry.key.clone(), shown);
            }
            Err(error) => {
                tracing::warn!(key = %entry.key, error, "skipped an instance that cannot be read");
                self.shown.remove(&entry.key);
            }
        }
        self.touched.insert(entry.key);
    }

    /// Takes in what coordination tells of servers. The own one is there whatever it tells.
    pub(super) fn servers(&mut self, change: Change) {
        let mut servers = BTreeMap::clone(&self.servers.0);
        match change {
            Change::All(entries) => {
                self.begun[1] = true;
                let read = entries.iter().filter_map(servers::read);
                servers = read
                    .map(|server| (server.name.clone(), Arc::new(server)))
                    .collect();
            }
            Change::Put(entry) => {
                if let Some(server) = servers::read(&entry) {
                    servers.insert(server.name.clone(), Arc::new(server));
                }
            }
            Change::Removed(key) => {
                if let Some(name) = servers::named(&key) {
                    servers.remove(&name);
                }
            }
        }
        servers.insert(self.own.name.clone(), self.own.clone());
        if servers != *self.servers.0 {
            self.servers = Servers(Arc::new(servers));
            self.changed = true;
        }
    }

    /// Decides what has been touched; returns the last own change that is in it.
    pub(super) fn settle(&mut self, overlay: &mut Overlay) -> u64 {
        let mut touched = std::mem::take(&mut self.touched);
        touched.append(&mut overlay.touched);
        for key in touched {
            let shown = self.shown.get(&key).map(|shown| &shown.instance);
            let now = overlay.decide(&key, shown, &self.own.name);
            if let Some((service, id)) = key_names(&key) {
                self.changed |= self.instances.set(&service, &id, now.as_ref());
            }
        }
        overlay.changes
    }

    /// Whether coordination has told all that there is.
    pub(super) fn has_begun(&self) -> bool {
        self.begun == [true; 2]
    }

    /// Whether anything changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

/// An entry speaks only for the service and the id that its key names.
fn read(entry: &Entry) -> Result<Instance, String> {
    let instance: Instance =
        serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
    match key_names(&entry.key) {
        Some((service, id)) if service == instance.service && id == instance.id => Ok(instance),
        _ => Err(format!("it is for {} of {}", instance.id, instance.service)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::tests::instance;
    use crate::servers::tests::server;

    fn merged() -> (Merged, Overlay) {
        (Merged::new(Arc::new(server("one"))), Overlay::default())
    }

    fn entry(key: &str, instance: &Instance, revision: u64) -> Entry {
        Entry {
            key: key.parse().unwrap(),
            value: serde_json::to_vec(instance).unwrap().into(),
            revision,
        }
    }

    fn of_a(id: &str, revision: u64) -> Entry {
        entry(
            &format!("instances/api/a/{id}"),
            &instance("api/a", id),
            revision,
        )
    }

    fn ids(merged: &mut Merged, overlay: &mut Overlay) -> Vec<String> {
        merged.settle(overlay);
        merged.instances.iter().map(|i| i.id.to_string()).collect()
    }

    #[test]
    fn a_malformed_entry_is_skipped_and_takes_the_old_one_with_it() {
        let (mut merged, mut overlay) = merged();
        merged.instances(Change::All(vec![of_a("a-1", 1)]));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        let broken = Entry {
            key: "instances/api/a/a-1".parse().unwrap(),
            value: "{".into(),
            revision: 2,
        };
        merged.instances(Change::Put(broken));
        assert!(ids(&mut merged, &mut overlay).is_empty());
    }

    #[test]
    fn an_entry_does_not_speak_for_another_service() {
        let (mut merged, mut overlay) = merged();
        let forged = entry("instances/api/a/a-1", &instance("service/b", "a-1"), 1);
        merged.instances(Change::Put(forged));
        assert!(ids(&mut merged, &mut overlay).is_empty());
    }

    #[test]
    fn a_gap_replaces_all_and_is_no_change_where_nothing_changed() {
        let (mut merged, mut overlay) = merged();
        merged.instances(Change::All(vec![of_a("a-1", 1)]));
        merged.instances(Change::All(vec![of_a("a-2", 2), of_a("a-3", 3)]));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-2", "a-3"]);
        assert!(merged.take_changed());
        // The second one was written again, as it was.
        merged.instances(Change::All(vec![of_a("a-2", 9), of_a("a-3", 3)]));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-2", "a-3"]);
        assert!(!merged.take_changed());
    }

    #[test]
    fn an_own_instance_is_there_before_coordination_shows_it_and_not_when_it_has_ended() {
        let (mut merged, mut overlay) = merged();
        let key = "instances/api/a/a-1".parse().unwrap();
        overlay.set(&key, Some(Arc::new(instance("api/a", "a-1"))));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        overlay.set(&key, None);
        assert!(ids(&mut merged, &mut overlay).is_empty());
        // Its write is only shown now, and its removal later still.
        merged.instances(Change::Put(of_a("a-1", 1)));
        assert!(ids(&mut merged, &mut overlay).is_empty());
        overlay.removed(&key);
        assert!(ids(&mut merged, &mut overlay).is_empty());
        merged.instances(Change::Removed(key));
        assert!(ids(&mut merged, &mut overlay).is_empty());
        assert!(overlay.instances.is_empty(), "forgotten");
    }

    #[test]
    fn an_id_that_another_server_has_is_not_hidden_by_a_refused_registration() {
        let (mut merged, mut overlay) = merged();
        let mut theirs = instance("api/a", "a-1");
        theirs.server = "two".into();
        let key: Key = "instances/api/a/a-1".parse().unwrap();
        overlay.set(&key, Some(Arc::new(instance("api/a", "a-1"))));
        overlay.set(&key, None);
        merged.instances(Change::Put(entry(key.as_str(), &theirs, 1)));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        overlay.removed(&key);
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        assert!(overlay.instances.is_empty(), "forgotten");
    }

    #[test]
    fn a_registration_of_an_earlier_node_stays_until_coordination_removes_it() {
        let (mut merged, mut overlay) = merged();
        merged.instances(Change::All(vec![of_a("a-1", 1)]));
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        merged.instances(Change::Removed("instances/api/a/a-1".parse().unwrap()));
        assert!(ids(&mut merged, &mut overlay).is_empty());
    }

    #[test]
    fn the_own_server_is_there_whatever_coordination_tells() {
        let (mut merged, _) = merged();
        let names = |merged: &Merged| {
            let names = merged.servers.iter().map(|server| server.name.to_string());
            names.collect::<Vec<_>>()
        };
        let entry = |name: &str| servers::tests::entry(name, 1);
        merged.servers(Change::All(vec![entry("two")]));
        assert_eq!(names(&merged), ["one", "two"]);
        merged.servers(Change::Put(entry("three")));
        merged.servers(Change::Removed("servers/two".parse().unwrap()));
        merged.servers(Change::Removed("servers/one".parse().unwrap()));
        assert_eq!(names(&merged), ["one", "three"]);
    }
}
