//! What the shared state has of the documents, the wish that it had more, and who has taken it over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Entry, Error, Hydrant, InstanceState, StateChange};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::bundle::{Bundle, KEY};
use crate::operations::{REPORTS, Report};

/// The key at which processes tell the leader which revision they have made.
pub(crate) const WANTED: &str = "wanted";
/// How long a process tries to tell.
const TELL: Duration = Duration::from_secs(1);
/// How long a change waits until all apps are answered from it.
const WAIT: Duration = Duration::from_secs(5);
/// How often it is looked which processes there are, while one of them is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How long the node may take to say which processes there are.
const LIST: Duration = Duration::from_secs(1);

/// What is published, as this process sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Published {
    bundle: watch::Sender<Option<Arc<Bundle>>>,
    wanted: watch::Sender<u64>,
    taken: watch::Sender<BTreeMap<String, Taken>>,
    hydrant: Option<Hydrant>,
}

/// How far a process of `api/mobile` is, by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// What it answers from.
    revision: u64,
    /// A newer one that it refuses; 0 for none.
    refused: u64,
}

/// How far a revision has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) is_published: bool,
    /// The processes of `api/mobile` that do not answer from it.
    pub(crate) behind: Vec<String>,
}

impl Published {
    /// What the state of the own service has; nothing is seen before [`Published::follow`].
    pub(crate) fn new(hydrant: Option<Hydrant>) -> Self {
        Self {
            bundle: watch::Sender::new(None),
            wanted: watch::Sender::new(0),
            taken: watch::Sender::default(),
            hydrant,
        }
    }

    /// The published revision with its documents; `None` before there is one.
    pub(crate) fn bundle(&self) -> Option<Bundle> {
        self.bundle.borrow().as_deref().cloned()
    }

    /// Its number; 0 before there is one.
    pub(crate) fn revision(&self) -> u64 {
        revision(&self.bundle.borrow())
    }

    /// Tells the leader, in whichever process, that there is a new revision.
    pub(crate) async fn want(&self, revision: u64) {
        self.wanted.send_replace(revision);
        let Some(state) = self.hydrant.as_ref().map(Hydrant::state) else {
            return;
        };
        let told = tokio::time::timeout(TELL, state.put(WANTED, revision.to_string())).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::warn!(revision, "cannot tell the leader; it will see by itself");
        }
    }

    /// Changes whenever somebody tells of a new revision.
    pub(crate) fn wishes(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Waits until every process of `api/mobile` answers from this revision, or a newer one, as long as
    /// that takes usually.
    pub(crate) async fn until_live(&self, revision_wanted: u64) -> Reached {
        let end = Instant::now() + WAIT;
        let mut bundle = self.bundle.subscribe();
        let seen = bundle.wait_for(|bundle| revision(bundle) >= revision_wanted);
        if !matches!(timeout_at(end, seen).await, Ok(Ok(_))) {
            return Reached::default();
        }
        Reached {
            is_published: true,
            behind: self.until_taken(revision_wanted, end).await,
        }
    }

    /// Waits until nobody is behind any more who may still come; tells who is.
    async fn until_taken(&self, revision: u64, end: Instant) -> Vec<String> {
        let mut taken = self.taken.subscribe();
        loop {
            taken.mark_unchanged();
            let mut behind = self.instances().await;
            behind.retain(|id| self.taken_by(id).is_none_or(|one| one.revision < revision));
            let refuses = |id: &String| {
                let taken = self.taken_by(id);
                taken.is_some_and(|one| one.refused >= revision)
            };
            if behind.iter().all(refuses) || Instant::now() >= end {
                return behind;
            }
            // Who has gone meanwhile tells nothing: look again.
            let _ = tokio::time::timeout(LOOK, taken.changed()).await;
        }
    }

    fn taken_by(&self, instance: &str) -> Option<Taken> {
        self.taken.borrow().get(instance).copied()
    }

    /// The processes of `api/mobile` that get requests.
    async fn instances(&self) -> Vec<String> {
        let Some(hydrant) = &self.hydrant else {
            return Vec::new();
        };
        let listed = tokio::time::timeout(LIST, hydrant.discover("api/mobile")).await;
        let instances = listed
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
            .into_iter();
        let ready = instances.filter(|one| one.state == InstanceState::Ready);
        ready.map(|one| one.id.to_string()).collect()
    }

    /// Watches the state for as long as the process lives.
    pub(crate) fn follow(&self, hydrant: &Hydrant) -> BoxFuture<'static, Result<(), Error>> {
        let (published, state) = (self.clone(), hydrant.state());
        Box::pin(async move {
            let (mut bundles, mut wishes) = (state.watch(KEY), state.watch(WANTED));
            let mut reports = state.watch(REPORTS);
            loop {
                tokio::select! {
                    change = bundles.next() => published.take(change?),
                    change = wishes.next() => published.take(change?),
                    change = reports.next() => published.take_reports(change?),
                }
            }
        })
    }

    fn take_reports(&self, change: StateChange) {
        self.taken.send_modify(|taken| match change {
            StateChange::All(entries) => *taken = entries.iter().filter_map(told_by).collect(),
            StateChange::Put(entry) => taken.extend(told_by(&entry)),
            StateChange::Removed(key) => {
                taken.remove(key.strip_prefix(REPORTS).unwrap_or_default());
            }
        });
    }

    fn take(&self, change: StateChange) {
        let entries = match change {
            StateChange::All(entries) => entries,
            StateChange::Put(entry) => vec![entry],
            StateChange::Removed(_) => Vec::new(),
        };
        for entry in entries {
            match entry.key.as_str() {
                KEY => self.take_bundle(&entry.value),
                WANTED => self.take_wish(&entry.value),
                _ => {}
            }
        }
    }

    fn take_bundle(&self, value: &[u8]) {
        match Bundle::unpack(value) {
            Ok(bundle) => drop(self.bundle.send_replace(Some(Arc::new(bundle)))),
            Err(error) => tracing::error!(%error, "the published revision can't be read"),
        }
    }

    fn take_wish(&self, value: &[u8]) {
        let text = std::str::from_utf8(value).ok();
        if let Some(revision) = text.and_then(|text| text.parse().ok()) {
            self.wanted.send_replace(revision);
        }
    }
}

/// Processes of `service/mobile` report, too; they answer no app and have no revision.
fn told_by(entry: &Entry) -> Option<(String, Taken)> {
    let report: Report = serde_json::from_slice(&entry.value).ok()?;
    let taken = Taken {
        revision: report.revision?,
        refused: report.refused_revision.unwrap_or(0),
    };
    Some((report.instance, taken))
}

fn revision(bundle: &Option<Arc<Bundle>>) -> u64 {
    bundle.as_ref().map_or(0, |bundle| bundle.revision)
}
