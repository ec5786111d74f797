//! What the shared state has of the documents, and the wish that it had more.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Error, Hydrant, State, StateChange};
use tokio::sync::watch;

use crate::bundle::{Bundle, KEY};

/// The key at which processes tell the leader which revision they have made.
pub(crate) const WANTED: &str = "wanted";
/// How long a process tries to tell.
const TELL: Duration = Duration::from_secs(1);
/// How long a change waits until it is published.
const WAIT: Duration = Duration::from_secs(2);

/// What is published, as this process sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Published {
    bundle: watch::Sender<Option<Arc<Bundle>>>,
    wanted: watch::Sender<u64>,
    state: Option<State>,
}

impl Published {
    /// What the state of the own service has; nothing is seen before [`Published::follow`].
    pub(crate) fn new(state: Option<State>) -> Self {
        Self {
            bundle: watch::Sender::new(None),
            wanted: watch::Sender::new(0),
            state,
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
        let Some(state) = &self.state else { return };
        let told = tokio::time::timeout(TELL, state.put(WANTED, revision.to_string())).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::warn!(revision, "cannot tell the leader; it will see by itself");
        }
    }

    /// Changes whenever somebody tells of a new revision.
    pub(crate) fn wishes(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Whether this revision, or a newer one, is published, or will be within moments.
    pub(crate) async fn until(&self, revision_wanted: u64) -> bool {
        let mut bundle = self.bundle.subscribe();
        let seen = bundle.wait_for(|bundle| revision(bundle) >= revision_wanted);
        tokio::time::timeout(WAIT, seen).await.is_ok()
    }

    /// Watches the state for as long as the process lives.
    pub(crate) fn follow(&self, hydrant: &Hydrant) -> BoxFuture<'static, Result<(), Error>> {
        let (published, hydrant) = (self.clone(), hydrant.clone());
        Box::pin(async move {
            let (mut bundles, mut wishes) =
                (hydrant.state().watch(KEY), hydrant.state().watch(WANTED));
            loop {
                let change = tokio::select! {
                    change = bundles.next() => change?,
                    change = wishes.next() => change?,
                };
                published.take(change);
            }
        })
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

fn revision(bundle: &Option<Arc<Bundle>>) -> u64 {
    bundle.as_ref().map_or(0, |bundle| bundle.revision)
}
