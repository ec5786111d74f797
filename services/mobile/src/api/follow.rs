//! Keeps what is served in step with what is published.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hydrant_flags::Mistake;
use hydrant_runtime::Clock;
use hydrant_sdk::{Error, Hydrant, StateChange, StateWatch};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::compose::Feed;
use crate::api::ofrep::Changes;
use crate::api::serving::{RefusedRevision, Served, refuse_revision, swap_compiled, swap_feed};
use crate::api::sight::Sight;
use crate::bundle::{self, Bundle};
use crate::compiled::Compiled;
use crate::operations::Reception;
use crate::sources::Order;
use crate::sources::snapshot::View;

/// How long a revision that is older than the served one stands in the state before it is served. A
/// state that has lost writes shows an older one until the leader has written the newest again;
/// tables that were restored from a backup mean it.
const OLDER: Duration = Duration::from_secs(10);

/// Keeps the feed in step with the snapshot.
pub(crate) struct Follower {
    state: hydrant_sdk::State,
    watch: StateWatch,
    sources: View,
    served: Served,
    /// What was published and is not compiled yet.
    published: Option<Bytes>,
    /// What is published and older than what is served, and when it is served all the same.
    older: Option<(Arc<Compiled>, Instant)>,
    changes: Changes,
    reception: Reception,
    orders: watch::Sender<Vec<Order>>,
}

impl Follower {
    pub(crate) fn new(
        hydrant: &Hydrant,
        served: Served,
        changes: Changes,
        reception: Reception,
    ) -> Result<Self, Error> {
        let state = hydrant.state().of(&"service/mobile".parse()?);
        Ok(Self {
            watch: state.watch(""),
            sources: View::default(),
            state,
            served,
            published: None,
            older: None,
            changes,
            reception,
            orders: watch::Sender::default(),
        })
    }

    /// What there is to ask in the place of `service/mobile`.
    pub(crate) fn orders(&self) -> watch::Receiver<Vec<Order>> {
        self.orders.subscribe()
    }

    /// Waits until there is all that answers are made from: a revision, and the sources.
    pub(crate) async fn until_first(&mut self) -> Result<(), Error> {
        while !self.served.load().is_complete() {
            self.step().await?;
        }
        Ok(())
    }

    pub(crate) async fn follow(mut self, sight: Sight) -> Result<(), Error> {
        let state = self.state.clone();
        tokio::select! {
            error = self.step_on() => Err(error),
            () = sight.keep(&state) => Ok(()),
        }
    }

    async fn step_on(&mut self) -> Error {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    /// Takes in one change. What is gone, or can't be read, leaves the last good one.
    async fn step(&mut self) -> Result<(), Error> {
        self.take_published().await;
        let Some(change) = self.change().await? else {
            self.take_older();
            return Ok(());
        };
        if let Some(snapshot) = self.sources.take(&change) {
            swap_feed(&self.served, Arc::new(Feed::new(snapshot)));
            let orders = self.sources.orders().to_vec();
            self.orders.send_if_modified(|known| {
                let differs = *known != orders;
                *known = orders;
                differs
            });
        }
        let entries = match change {
            StateChange::All(entries) => entries,
            StateChange::Put(entry) => vec![entry],
            StateChange::Removed(_) => Vec::new(),
        };
        let published = entries.into_iter().find(|entry| entry.key == bundle::KEY);
        if let Some(entry) = published {
            self.published = Some(entry.value.into());
        }
        self.take_published().await;
        Ok(())
    }

    /// What happens next in the state; `None` when an older revision has stood there for long enough.
    async fn change(&mut self) -> Result<Option<StateChange>, Error> {
        let Some((_, end)) = &self.older else {
            return self.watch.next().await.map(Some);
        };
        let change = tokio::time::timeout_at(*end, self.watch.next()).await;
        change.ok().transpose()
    }

    /// Compiles what was published, on a thread where it keeps no request waiting, and serves it from
    /// then on. What can't be served leaves what is served as it is. Who gives up waiting loses
    /// nothing: the next step goes on with it.
    async fn take_published(&mut self) {
        let Some(value) = self.published.clone() else {
            return;
        };
        let made = tokio::task::spawn_blocking(move || compile(&value)).await;
        self.published = None;
        let made = made.unwrap_or_else(|_| Err((0, "the program failed while it compiled".into())));
        match made {
            Ok(compiled) => self.serve_unless_older(Arc::new(compiled)),
            Err((revision, reason)) => self.refuse(revision, reason),
        }
    }

    fn serve_unless_older(&mut self, compiled: Arc<Compiled>) {
        let served = self.served.load().compiled.revision;
        if compiled.revision >= served {
            return self.serve(compiled);
        }
        let revision = compiled.revision;
        tracing::warn!(
            revision,
            served,
            "an older revision is published; waiting whether it stays"
        );
        let since = self.older.take().map(|(_, end)| end);
        let end = since.unwrap_or_else(|| Instant::now() + OLDER);
        self.older = Some((compiled, end));
    }

    fn take_older(&mut self) {
        if let Some((compiled, _)) = self.older.take() {
            self.serve(compiled);
        }
    }

    fn serve(&mut self, compiled: Arc<Compiled>) {
        self.older = None;
        swap_compiled(&self.served, Arc::clone(&compiled));
        self.changes.tell(compiled);
        self.reception.took();
    }

    fn refuse(&self, revision: u64, reason: String) {
        self.reception.refused(revision, &reason);
        let refused = RefusedRevision {
            revision,
            since: Clock::system().unix_ms(),
        };
        refuse_revision(&self.served, refused);
    }
}

/// The revision, ready to be served; else its number, as far as it can be read, and why not.
fn compile(value: &[u8]) -> Result<Compiled, (u64, String)> {
    let bundle = Bundle::unpack(value).map_err(|error| (0, error.to_string()))?;
    let broken = |mistakes: Vec<Mistake>| {
        let first = mistakes.first().map(ToString::to_string);
        (bundle.revision, first.unwrap_or_default())
    };
    Compiled::compile(&bundle).map_err(broken)
}
