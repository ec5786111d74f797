//! Coordination's keys and this node's own registrations, made into one table a change at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Instance, Server, ServerName};
use hydrant_ports::{Change, Entry, Key};
use tokio::time::Instant;

use super::{Ruling, key_names};
use crate::instances::Instances;
use crate::{rules, servers};

/// How long an own instance that has ended stays hidden after coordination has removed it: what the
/// watch still has to tell of it is old news. Ids are never used again by another instance.
const HIDDEN: Duration = Duration::from_secs(60);

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
    /// Those that have ended and are removed, with the time of that, in order.
    removed: VecDeque<(Instant, Key)>,
}

enum Own {
    Lives(Arc<Instance>),
    /// It has ended. What coordination still shows of it is old news.
    Ended,
}

impl Overlay {
    pub(super) fn set(&mut self, key: &Key, instance: Option<Arc<Instance>>) -> u64 {
        let own = instance.map_or(Own::Ended, Own::Lives);
        self.instances.insert(key.clone(), own);
        self.touched.insert(key.clone());
        self.changes += 1;
        self.changes
    }

    /// Coordination has removed an own instance.
    pub(super) fn removed(&mut self, key: &Key, now: Instant) {
        self.removed.push_back((now, key.clone()));
    }

    /// What an instance is, given what coordination shows of it.
    fn decide(
        &self,
        key: &Key,
        shown: Option<&Arc<Instance>>,
        own: &ServerName,
    ) -> Option<Arc<Instance>> {
        match self.instances.get(key) {
            Some(Own::Lives(instance)) => Some(instance.clone()),
            // An id that another server has was never ours.
            Some(Own::Ended) => shown.filter(|shown| shown.server != own.as_str()).cloned(),
            None => shown.cloned(),
        }
    }

    /// Forgets what ended long ago, unless coordination still shows it: then its watch is away.
    fn forget(&mut self, shown: &HashMap<Key, Shown>, own: &ServerName, now: Instant) {
        let is_old = |removed: &Instant| now.saturating_duration_since(*removed) >= HIDDEN;
        for _ in 0..self.removed.len() {
            match self.removed.front() {
                Some((removed, _)) if is_old(removed) => {}
                _ => return,
            }
            let Some((_, key)) = self.removed.pop_front() else {
                return;
            };
            if !matches!(self.instances.get(&key), Some(Own::Ended)) {
                continue;
            }
            let shown = shown.get(&key).map(|shown| &shown.instance);
            match shown.is_some_and(|shown| shown.server == own.as_str()) {
                true => self.removed.push_back((now, key)),
                false => {
                    self.instances.remove(&key);
                }
            }
        }
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
    pub(super) ruling: Ruling,
    /// Coordination has told which instances there are, and which servers.
    begun: [bool; 2],
}

impl Merged {
    pub(super) fn new(own: Arc<Server>, ruling: Ruling) -> Self {
        Self {
            ruling,
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

    /// Takes in what coordination tells of rules. What is gone or can't be read leaves those that hold: the value is
    /// never deleted, so it was lost.
    pub(super) fn rules(&mut self, change: Change) {
        let entries = match change {
            Change::All(entries) => entries,
            Change::Put(entry) => vec![entry],
            Change::Removed(_) => Vec::new(),
        };
        let told = entries.into_iter().find(|entry| entry.key == rules::key());
        let read = told.map(|entry| rules::read(&entry.value));
        match read {
            Some(Ok(set)) if set == *self.ruling.set => self.ruling.trouble = None,
            Some(Ok(set)) => {
                self.changed = true;
                self.ruling = Ruling {
                    set: Arc::new(set),
                    trouble: None,
                };
            }
            Some(Err(error)) => {
                self.keeps_rules(format!("those that are kept can't be read: {error}"))
            }
            None if self.ruling.set.epoch == 0 => {}
            None => self.keeps_rules("coordination has lost them".into()),
        }
    }

    fn keeps_rules(&mut self, why: String) {
        let epoch = self.ruling.set.epoch;
        tracing::error!(epoch, why, "the rules that were known last stay");
        self.ruling.trouble = Some(why.into());
    }

    /// Decides what has been touched; returns the last own change that is in it.
    pub(super) fn settle(&mut self, overlay: &mut Overlay, now: Instant) -> u64 {
        overlay.forget(&self.shown, &self.own.name, now);
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
    use proptest::prelude::*;

    use super::*;
    use crate::instances::tests::instance;
    use crate::servers::tests::server;

    fn merged() -> (Merged, Overlay) {
        let merged = Merged::new(Arc::new(server("one")), Ruling::default());
        (merged, Overlay::default())
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
        merged.settle(overlay, Instant::now());
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

    fn rules_of(epoch: u64) -> Entry {
        Entry {
            key: rules::key(),
            value: format!("{{\"epoch\": {epoch}, \"rules\": []}}").into(),
            revision: epoch,
        }
    }

    #[test]
    fn rules_that_are_lost_or_cannot_be_read_leave_those_that_hold() {
        let (mut merged, _) = merged();
        let holds = |merged: &Merged| (merged.ruling.set.epoch, merged.ruling.trouble.is_some());
        merged.rules(Change::All(Vec::new()));
        assert_eq!(holds(&merged), (0, false), "there never were any");
        merged.rules(Change::All(vec![rules_of(3)]));
        assert!(merged.take_changed());
        merged.rules(Change::Put(rules_of(4)));
        assert_eq!(holds(&merged), (4, false));
        assert!(merged.take_changed());
        for lost in [
            Change::All(Vec::new()),
            Change::Removed(rules::key()),
            Change::Put(Entry {
                value: "{\"epoch\": 5, \"rules\": [], \"new\": 1}".into(),
                ..rules_of(5)
            }),
        ] {
            merged.rules(lost);
            assert_eq!(holds(&merged), (4, true));
            assert!(!merged.take_changed());
        }
        // Nothing is as true as what coordination shows.
        merged.rules(Change::Put(rules_of(2)));
        assert_eq!(holds(&merged), (2, false));
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
        overlay.removed(&key, Instant::now());
        assert!(ids(&mut merged, &mut overlay).is_empty());
        merged.instances(Change::Removed(key));
        assert!(ids(&mut merged, &mut overlay).is_empty());
        merged.settle(&mut overlay, Instant::now() + HIDDEN);
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
        overlay.removed(&key, Instant::now());
        assert_eq!(ids(&mut merged, &mut overlay), ["a-1"]);
        merged.settle(&mut overlay, Instant::now() + HIDDEN);
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

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// An own instance begins, or ends.
        Own(usize, bool),
        /// The oldest own change that waits reaches coordination.
        Write,
        /// The oldest change that waits is told by coordination.
        Tell,
        /// Coordination tells all, as after a gap.
        Gap,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3_usize, any::<bool>()).prop_map(|(id, lives)| Step::Own(id, lives)),
            3 => Just(Step::Write),
            3 => Just(Step::Tell),
            1 => Just(Step::Gap),
        ]
    }

    /// Coordination, which hears late and tells late.
    #[derive(Default)]
    struct Late {
        unheard: VecDeque<(Key, bool)>,
        entries: BTreeMap<Key, Entry>,
        untold: VecDeque<Change>,
        revision: u64,
    }

    impl Late {
        /// Whether an own change was left to hear; tells of a removal that was done.
        fn hear(&mut self, overlay: &mut Overlay) -> bool {
            let Some((key, lives)) = self.unheard.pop_front() else {
                return false;
            };
            if lives {
                self.revision += 1;
                let id = key.as_str().rsplit('/').next().unwrap();
                let entry = of_a(id, self.revision);
                self.entries.insert(key, entry.clone());
                self.untold.push_back(Change::Put(entry));
            } else {
                if self.entries.remove(&key).is_some() {
                    self.untold.push_back(Change::Removed(key.clone()));
                }
                // A later wish for the key keeps its writer going.
                if !self.unheard.iter().any(|(later, _)| *later == key) {
                    overlay.removed(&key, Instant::now());
                }
            }
            true
        }
    }

    proptest! {
        #[test]
        fn own_instances_are_right_at_once_and_forgotten_in_the_end(
            steps in proptest::collection::vec(step(), 0..60)
        ) {
            let (mut merged, mut overlay) = merged();
            let (mut late, mut lives) = (Late::default(), BTreeSet::new());
            let ends: Vec<_> = (0..3).map(|id| Step::Own(id, false)).collect();
            for step in steps.into_iter().chain(ends) {
                match step {
                    Step::Own(id, is_there) => {
                        let id = format!("a-{id}");
                        let key: Key = format!("instances/api/a/{id}").parse().unwrap();
                        let now = is_there.then(|| Arc::new(instance("api/a", &id)));
                        overlay.set(&key, now);
                        late.unheard.push_back((key, is_there));
                        if is_there { lives.insert(id); } else { lives.remove(&id); }
                    }
                    Step::Write => {
                        late.hear(&mut overlay);
                    }
                    Step::Tell => {
                        if let Some(change) = late.untold.pop_front() {
                            merged.instances(change);
                        }
                    }
                    Step::Gap => {
                        late.untold.clear();
                        merged.instances(Change::All(late.entries.values().cloned().collect()));
                    }
                }
                let shown: BTreeSet<_> = ids(&mut merged, &mut overlay).into_iter().collect();
                prop_assert_eq!(&shown, &lives);
            }
            while late.hear(&mut overlay) {}
            while let Some(change) = late.untold.pop_front() {
                merged.instances(change);
            }
            prop_assert!(ids(&mut merged, &mut overlay).is_empty());
            merged.settle(&mut overlay, Instant::now() + HIDDEN);
            prop_assert!(overlay.instances.is_empty(), "forgotten");
            prop_assert!(overlay.removed.is_empty());
        }
    }
}
