//! Keeps what is served in step with what is published.

use std::sync::Arc;

use hydrant_sdk::{Error, Hydrant, StateChange, StateWatch};
use tokio::sync::watch;

use crate::api::compose::Feed;
use crate::api::ofrep::Changes;
use crate::api::serving::{Served, swap_compiled, swap_feed};
use crate::api::sight::Sight;
use crate::bundle::{self, Bundle};
use crate::compiled::Compiled;
use crate::operations::Reception;
use crate::sources::Order;
use crate::sources::snapshot::View;

/// Keeps the feed in step with the snapshot.
pub(crate) struct Follower {
    state: hydrant_sdk::State,
    watch: StateWatch,
    sources: View,
    served: Served,
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
            changes,
            reception,
            orders: watch::Sender::default(),
        })
    }

    /// What there is to ask in the place of `service/mobile`.
    pub(crate) fn orders(&self) -> watch::Receiver<Vec<Order>> {
        self.orders.subscribe()
    }

    pub(crate) async fn until_first(&mut self) -> Result<(), Error> {
        while self.served.load().feed.is_none() {
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
        let change = self.watch.next().await?;
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
        let published = entries.iter().find(|entry| entry.key == bundle::KEY);
        if let Some(entry) = published {
            self.take_bundle(&entry.value);
        }
        Ok(())
    }

    fn take_bundle(&self, value: &[u8]) {
        let bundle = match Bundle::unpack(value) {
            Ok(bundle) => bundle,
            Err(error) => return self.reception.refused(0, &error),
        };
        match Compiled::compile(&bundle) {
            Ok(compiled) => {
                let compiled = Arc::new(compiled);
                swap_compiled(&self.served, Arc::clone(&compiled));
                self.reception.took();
                self.changes.tell(compiled);
            }
            Err(mistakes) => self.reception.refused(bundle.revision, &mistakes[0]),
        }
    }
}
