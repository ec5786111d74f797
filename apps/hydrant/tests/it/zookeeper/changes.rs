//! What a node tells of the instances of the service, change by change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hydrant_contracts::Instance;
use hydrant_sdk::{Hydrant, InstanceChange};
use tokio::task::JoinHandle;

use super::town::SERVICE;
use crate::harness::pause;

/// Listens until it is dropped.
pub struct Changes {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    begun: bool,
    known: BTreeMap<String, Instance>,
    changes: Vec<Change>,
}

/// Of one instance.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: Instant,
    pub id: String,
    /// As it is now; none when it is gone.
    pub now: Option<Box<Instance>>,
}

impl Changes {
    /// Listens to a node; is to be called within a runtime.
    pub fn start(node: &Hydrant) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let (mut watch, telling) = (node.watch(SERVICE), told.clone());
        let task = tokio::spawn(async move {
            while let Ok(change) = watch.next().await {
                lock(&telling).take(change);
            }
        });
        let changes = Self { told, task };
        while !lock(&changes.told).begun {
            pause(Duration::from_millis(5));
        }
        changes
    }

    /// All changes so far.
    pub fn all(&self) -> Vec<Change> {
        lock(&self.told).changes.clone()
    }

    /// Nothing was told of those who lived through it all, and each of the `killed` left once.
    pub fn check(&self, killed: &[&str]) {
        let told = lock(&self.told);
        let of = |id: &str| -> Vec<&Change> {
            let of_id = told.changes.iter().filter(|change| change.id == id);
            of_id.collect()
        };
        for id in killed {
            let gone = of(id);
            assert!(matches!(gone[..], [Change { now: None, .. }]), "{gone:#?}");
        }
        // Whoever came after a killed one is new, and comes once: as starting, then as ready.
        let new: BTreeSet<&str> = told.known.keys().map(String::as_str).collect();
        for change in &told.changes {
            let id = change.id.as_str();
            let came = change.now.is_some() && new.contains(id) && of(id).len() <= 2;
            assert!(came || killed.contains(&id), "flapped: {:#?}", told.changes);
        }
        println!(
            "{} changes told for {} killed",
            told.changes.len(),
            killed.len()
        );
    }
}

impl Told {
    fn take(&mut self, change: InstanceChange) {
        match change {
            InstanceChange::Put(instance) => self.put(*instance),
            InstanceChange::Removed(id) => self.remove(&id),
            InstanceChange::All(all) => self.compare(all),
        }
    }

    fn put(&mut self, instance: Instance) {
        let id = instance.id.to_string();
        self.known.insert(id.clone(), instance.clone());
        self.tell(id, Some(Box::new(instance)));
    }

    fn remove(&mut self, id: &str) {
        self.known.remove(id);
        self.tell(id.to_owned(), None);
    }

    /// All are told at the begin, and after a break: then only the difference is a change.
    fn compare(&mut self, all: Vec<Instance>) {
        let all = all.into_iter().map(|one| (one.id.to_string(), one));
        let all: BTreeMap<String, Instance> = all.collect();
        if !std::mem::replace(&mut self.begun, true) {
            self.known = all;
            return;
        }
        let gone = self.known.keys().filter(|id| !all.contains_key(*id));
        for id in gone.cloned().collect::<Vec<_>>() {
            self.remove(&id);
        }
        for (id, instance) in all {
            if self.known.get(&id) != Some(&instance) {
                self.put(instance);
            }
        }
    }

    fn tell(&mut self, id: String, now: Option<Box<Instance>>) {
        let at = Instant::now();
        self.changes.push(Change { at, id, now });
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
