//! Who holds a seat, for those who only look on: one follower per seat, shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_ports::ErrorKind;
use hydrant_ports::coordination::Holder;
use tokio::sync::watch;
use zookeeper_client::{Error as ZkError, OneshotWatcher};

use crate::coordination::Shared;
use crate::error::{Result, of_request};
use crate::link::Link;
use crate::seats::Record;

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// The followed seats, by their znode.
#[derive(Default)]
pub(crate) struct Holders(Mutex<HashMap<String, Arc<watch::Sender<Option<Holder>>>>>);

impl Holders {
    /// Follows the seat whose znode is `seat`.
    pub(crate) async fn follow(
        &self,
        shared: &Arc<Shared>,
        seat: String,
    ) -> Result<watch::Receiver<Option<Holder>>> {
        if let Some(told) = self.map().get(&seat) {
            return Ok(told.subscribe());
        }
        // The first word is as fresh as can be.
        let link = shared.link_in_time().await?;
        link.sync(link.deadline()).await?;
        let first = now(&link, &seat).await?;
        let mut map = self.map();
        if let Some(told) = map.get(&seat) {
            return Ok(told.subscribe());
        }
        if map.len() >= shared.limits.watches {
            return Err(too_many(shared.limits.watches));
        }
        let (told, receiver) = watch::channel(first.holder.clone());
        let told = Arc::new(told);
        map.insert(seat.clone(), told.clone());
        tokio::spawn(run(shared.clone(), seat, told, first));
        Ok(receiver)
    }

    fn map(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, Arc<watch::Sender<Option<Holder>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat that nobody follows any more off the list.
    fn end(&self, seat: &str) -> bool {
        let mut map = self.map();
        let is_followed = map.get(seat).is_some_and(|told| told.receiver_count() > 0);
        if !is_followed {
            map.remove(seat);
        }
        !is_followed
    }
}

pub(crate) fn too_many(limit: usize) -> hydrant_ports::EngineError {
    hydrant_ports::EngineError::new(
        ErrorKind::TooLarge,
        format!("{limit} watch already: raise `limits.watches`"),
    )
}

/// A seat as it is now, and what tells that it changes.
struct Now {
    holder: Option<Holder>,
    changes: Vec<OneshotWatcher>,
}

async fn now(link: &Link, seat: &str) -> Result<Now> {
    let mut changes = Vec::new();
    let record = loop {
        let read = link.ask("watch a seat", link.deadline(), |client| async move {
            client.get_and_watch_data(seat).await
        });
        match read.await? {
            Ok((data, _, watcher)) => {
                changes.push(watcher);
                break Record::parse(seat, &data)?;
            }
            Err(ZkError::NoNode) => {
                let (there, watcher) = exists(link, seat).await?;
                if !there {
                    changes.push(watcher);
                    break Record::default();
                }
            }
            Err(error) => return Err(of_request("watch a seat", error)),
        }
    };
    let mut holder = None;
    if !record.candidate.is_empty() {
        let candidate = format!("{seat}/{}", record.candidate);
        let (there, watcher) = exists(link, &candidate).await?;
        if there {
            changes.push(watcher);
            holder = Some(record.seen());
        }
    }
    Ok(Now { holder, changes })
}

async fn exists(link: &Link, path: &str) -> Result<(bool, OneshotWatcher)> {
    let read = link.ask("watch a seat", link.deadline(), |client| async move {
        client.check_and_watch_stat(path).await
    });
    let (stat, watcher) = read
        .await?
        .map_err(|error| of_request("watch a seat", error))?;
    Ok((stat.is_some(), watcher))
}

/// Follows a seat until nobody asks for it any more.
async fn run(
    shared: Arc<Shared>,
    seat: String,
    told: Arc<watch::Sender<Option<Holder>>>,
    first: Now,
) {
    let follow = async {
        let mut link = shared.link().await;
        let mut changes = first.changes;
        loop {
            let any = futures::future::select_all(
                changes
                    .into_iter()
                    .map(|watcher| Box::pin(watcher.changed())),
            );
            tokio::select! {
                _ = any => {}
                () = link.lost() => {}
            }
            let read = loop {
                link = shared.link().await;
                match now(&link, &seat).await {
                    Ok(read) => break read,
                    Err(error) => {
                        tracing::debug!(seat, %error, "a seat is looked at again");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            changes = read.changes;
            told.send_if_modified(|holder| {
                let differs = *holder != read.holder;
                *holder = read.holder;
                differs
            });
        }
    };
    let unwatched = async {
        loop {
            told.closed().await;
            if shared.holders.end(&seat) {
                return;
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = unwatched => {}
        () = shared.closed() => {}
    }
}
