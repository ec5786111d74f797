//! Who leads, at which node, under which epoch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hydrant_sdk::Hydrant;
use tokio::task::JoinHandle;

use super::town::{Town, client};

/// One candidate at each node, which stands again whenever it has lost.
pub struct Reigns {
    told: Arc<Mutex<Vec<Reign>>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct Reign {
    node: usize,
    epoch: u64,
    since: Instant,
}

impl Reigns {
    pub fn start(town: &Town) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let stand =
            |(node, at): (usize, Hydrant)| town.runtime.spawn(stand(node, at, told.clone()));
        let candidates = town.nodes.iter().map(|node| client(node, "api/candidate"));
        let tasks = candidates.enumerate().map(stand).collect();
        Self { told, tasks }
    }

    /// How many times somebody was elected so far.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> Vec<Reign> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }

    /// No epoch had two leaders, and who was elected later has a higher one.
    pub fn check(&self) {
        let mut all = self.all();
        all.sort_by_key(|reign| reign.since);
        println!(
            "leaders: {:?}",
            all.iter().map(|r| (r.node, r.epoch)).collect::<Vec<_>>()
        );
        assert!(!all.is_empty(), "somebody led");
        let mut of_epoch: BTreeMap<u64, &Reign> = BTreeMap::new();
        for reign in &all {
            let other = of_epoch.insert(reign.epoch, reign);
            assert!(other.is_none(), "two leaders: {reign:?} and {other:?}");
        }
        assert!(all.is_sorted_by_key(|reign| reign.epoch), "{all:#?}");
    }
}

async fn stand(node: usize, at: Hydrant, told: Arc<Mutex<Vec<Reign>>>) {
    while let Ok(leadership) = at.campaign("boss").await {
        let reign = Reign {
            node,
            epoch: leadership.epoch(),
            since: Instant::now(),
        };
        told.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reign);
        leadership.lost().await;
    }
}

impl Drop for Reigns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
