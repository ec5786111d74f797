//! Watches: one task listens to all changes, compares with what is there, and tells every watcher.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use hydrant_ports::{EngineError, Key, Prefix, WatchSender};
use hydrant_runtime::Backoff;
use redis::Msg;
use redis::aio::PubSubStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::core::Core;
use crate::error::Failure;
use crate::keeper::jittered;
use crate::message::{self, Message, What};
use crate::requests::{self, Found};
use crate::view::{Need, View};

/// What the port asks of the task.
pub(crate) enum Wanted {
    Watch(
        Prefix,
        WatchSender,
        oneshot::Sender<Result<(), EngineError>>,
    ),
    End(oneshot::Sender<()>),
}

/// What was waited for.
enum Done {
    Subscribed(Result<PubSubStream, Failure>),
    Swept {
        partition: usize,
        /// The highest revision that was known before.
        known: u64,
        revision: Result<u64, EngineError>,
    },
    Listed {
        view: u64,
        partition: usize,
        number: u64,
        list: Result<(u64, Vec<Found>), EngineError>,
    },
    Fetched {
        partition: usize,
        found: Result<Option<Found>, EngineError>,
    },
}

/// Where the listening to one partition stands.
#[derive(Default)]
struct Ear {
    /// The last revision that was heard of; `None` right after subscribing.
    heard: Option<u64>,
    /// A revision that is there and was not heard of yet: its message is on its way, or lost.
    expected: Option<u64>,
    /// The highest revision that is known by any way. A server that is behind it has forgotten.
    known: u64,
    is_sweeping: bool,
}

struct Watcher {
    core: Arc<Core>,
    views: HashMap<u64, View>,
    ears: Vec<Ear>,
    channels: HashMap<String, usize>,
    subscription: Option<PubSubStream>,
    is_subscribing: bool,
    backoff: Backoff,
    waiting: FuturesUnordered<BoxFuture<'static, Done>>,
    /// For views and for lists.
    next_number: u64,
}

pub(crate) async fn run(core: Arc<Core>, mut wanted: mpsc::Receiver<Wanted>) {
    let mut failovers = core.failovers.subscribe();
    let mut watcher = Watcher::new(core);
    let period = watcher.core.config.compare.get();
    let mut round = Box::pin(sleep(jittered(period)));
    watcher.subscribe();
    loop {
        tokio::select! {
            message = next(&mut watcher.subscription) => match message {
                Some(message) => watcher.hear(&message),
                None => watcher.subscribe(),
            },
            Some(done) = watcher.waiting.next() => watcher.done(done),
            Ok(()) = failovers.changed() => watcher.subscribe(),
            () = &mut round => {
                watcher.sweep();
                round.set(sleep(jittered(period)));
            }
            wanted = wanted.recv() => match wanted {
                Some(Wanted::Watch(prefix, sender, reply)) => {
                    let _ = reply.send(watcher.watch(prefix, sender));
                }
                Some(Wanted::End(reply)) => {
                    drop(watcher);
                    let _ = reply.send(());
                    return;
                }
                None => return,
            },
        }
    }
}

async fn next(subscription: &mut Option<PubSubStream>) -> Option<Msg> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => pending().await,
    }
}

impl Watcher {
    fn new(core: Arc<Core>) -> Self {
        let partitions = core.partitions.iter().enumerate();
        let channels =
            partitions.map(|(index, partition)| (partition.names.channel.clone(), index));
        Self {
            views: HashMap::new(),
            ears: core.partitions.iter().map(|_| Ear::default()).collect(),
            channels: channels.collect(),
            subscription: None,
            is_subscribing: false,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(2)),
            waiting: FuturesUnordered::new(),
            next_number: 0,
            core,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn watch(&mut self, prefix: Prefix, sender: WatchSender) -> Result<(), EngineError> {
        self.forget_closed();
        let most = self.core.config.watchers;
        if self.views.len() >= most {
            return Err(EngineError::new(
                hydrant_ports::ErrorKind::TooLarge,
                format!("there are {most} watches of state already: raise `watchers`"),
            ));
        }
        let id = self.number();
        self.views
            .insert(id, View::new(prefix, sender, self.ears.len()));
        if self.subscription.is_some() {
            self.serve(id, Need::ListAll);
        }
        Ok(())
    }

    fn forget_closed(&mut self) {
        self.views.retain(|_, view| !view.is_closed());
    }

    /// Listens anew: to the server that is master now, or in a cluster to any.
    fn subscribe(&mut self) {
        self.subscription = None;
        if std::mem::replace(&mut self.is_subscribing, true) {
            return;
        }
        let core = self.core.clone();
        let channels: Vec<_> = self.channels.keys().cloned().collect();
        let wait = self.backoff.next_wait();
        self.waiting.push(Box::pin(async move {
            sleep(wait).await;
            Done::Subscribed(subscribe(&core, &channels).await)
        }));
    }

    fn subscribed(&mut self, result: Result<PubSubStream, Failure>) {
        self.is_subscribing = false;
        let subscription = match result {
            Ok(subscription) => subscription,
            Err(failure) => {
                tracing::debug!(%failure, "can't listen to changes on Redis");
                return self.subscribe();
            }
        };
        self.subscription = Some(subscription);
        self.core
            .counts
            .subscriptions
            .fetch_add(1, Ordering::Relaxed);
        for ear in &mut self.ears {
            ear.heard = None;
            ear.expected = None;
        }
        self.forget_closed();
        let views: Vec<u64> = self.views.keys().copied().collect();
        for view in views {
            self.serve(view, Need::ListAll);
        }
    }

    fn hear(&mut self, message: &Msg) {
        let Some(&partition) = self.channels.get(message.get_channel_name()) else {
            return;
        };
        match message::parse(message.get_payload_bytes()) {
            Ok(message) => self.heard(partition, &message),
            Err(error) => {
                tracing::warn!(%error, "a message on Redis can't be read");
                self.list_again(partition);
            }
        }
    }

    fn heard(&mut self, partition: usize, message: &Message) {
        self.backoff.reset();
        let ear = &mut self.ears[partition];
        let is_gap = ear
            .heard
            .is_some_and(|heard| message.revision > heard && message.before != heard);
        ear.heard = ear.heard.max(Some(message.revision));
        ear.known = ear.known.max(message.revision);
        if is_gap {
            self.lost(partition);
        }
        let Message { key, under, .. } = message;
        if !self.core.seen.may_show(key, under.as_ref()) {
            return;
        }
        if let Some(under) = under {
            self.core.seen.note_mark(&under.mark, under.epoch);
        }
        if self.tell(partition, message) && message.what == What::Large {
            self.fetch(partition, key.clone());
        }
    }

    /// Tells all whom a message concerns; whether there are any.
    fn tell(&mut self, partition: usize, message: &Message) -> bool {
        let concerned = self.views.iter_mut();
        let concerned = concerned.filter(|(_, view)| view.prefix.contains(&message.key));
        let needs: Vec<_> = concerned
            .map(|(id, view)| (*id, view.message(partition, message)))
            .collect();
        let is_any = !needs.is_empty();
        for (view, need) in needs {
            self.serve(view, need);
        }
        is_any
    }

    fn fetch(&mut self, partition: usize, key: Key) {
        let core = self.core.clone();
        self.waiting.push(Box::pin(async move {
            let request = requests::get(core.names(partition), &key);
            let answer = core.read(partition, &request).await;
            let found = answer.and_then(|answer| requests::found(&key, answer));
            Done::Fetched { partition, found }
        }));
    }

    fn fetched(&mut self, partition: usize, found: Found) {
        let Found {
            key,
            revision,
            value,
            under,
            ..
        } = found;
        if !self.core.seen.may_show(&key, under.as_ref()) {
            return;
        }
        let message = Message {
            before: 0,
            revision,
            key,
            under,
            what: What::Fetched(value),
        };
        self.tell(partition, &message);
    }

    /// Messages of a partition did not come.
    fn lost(&mut self, partition: usize) {
        self.core
            .counts
            .lost_messages
            .fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            partition,
            "messages of changes on Redis were lost: all is compared"
        );
        self.list_again(partition);
    }

    fn list_again(&mut self, partition: usize) {
        let views: Vec<u64> = self.views.keys().copied().collect();
        for view in views {
            self.serve(view, Need::List(partition));
        }
    }

    fn serve(&mut self, view: u64, need: Need) {
        match need {
            Need::Nothing => {}
            Need::List(partition) => self.list(view, partition, Duration::ZERO),
            Need::ListAll => {
                for partition in 0..self.ears.len() {
                    self.list(view, partition, Duration::ZERO);
                }
            }
        }
    }

    fn list(&mut self, view: u64, partition: usize, wait: Duration) {
        let number = self.number();
        let Some(listed) = self.views.get_mut(&view) else {
            return;
        };
        listed.begin_list(partition, number);
        let (core, prefix) = (self.core.clone(), listed.prefix.clone());
        self.waiting.push(Box::pin(async move {
            sleep(wait).await;
            let list = core.list_all(partition, &prefix).await;
            Done::Listed {
                view,
                partition,
                number,
                list,
            }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Subscribed(result) => self.subscribed(result),
            Done::Swept {
                partition,
                known,
                revision,
            } => self.swept(partition, known, revision),
            Done::Listed {
                view,
                partition,
                number,
                list,
            } => self.listed(view, partition, number, list),
            Done::Fetched { partition, found } => match found {
                Ok(Some(found)) => self.fetched(partition, found),
                Ok(None) => {}
                Err(_) => self.list_again(partition),
            },
        }
    }

    fn listed(
        &mut self,
        id: u64,
        partition: usize,
        number: u64,
        list: Result<(u64, Vec<Found>), EngineError>,
    ) {
        if let Ok((revision, _)) = list {
            let ear = &mut self.ears[partition];
            ear.known = ear.known.max(revision);
        }
        let Some(view) = self.views.get_mut(&id).filter(|view| !view.is_closed()) else {
            self.views.remove(&id);
            return;
        };
        match list {
            Ok((revision, entries)) => {
                let need = view.listed(partition, number, revision, &entries, &self.core.seen);
                self.serve(id, need);
            }
            Err(error) if view.awaits(partition, number) => {
                tracing::debug!(%error, "a watched prefix can't be listed yet");
                self.list(id, partition, jittered(Duration::from_millis(500)));
            }
            Err(_) => {}
        }
    }

    /// Lets each partition forget the keys whose time is over, and tell its revision: so messages
    /// that did not come are noticed.
    fn sweep(&mut self) {
        self.forget_closed();
        for partition in 0..self.ears.len() {
            let ear = &mut self.ears[partition];
            if std::mem::replace(&mut ear.is_sweeping, true) {
                continue;
            }
            let (core, known) = (self.core.clone(), ear.known);
            self.waiting.push(Box::pin(async move {
                let request = requests::sweep(core.names(partition));
                let answer = core.read(partition, &request).await;
                let revision = answer.and_then(requests::number);
                if revision.as_ref().is_ok_and(|revision| *revision < known) {
                    core.rolled_back(partition).await;
                }
                Done::Swept {
                    partition,
                    known,
                    revision,
                }
            }));
        }
    }

    fn swept(&mut self, partition: usize, known_before: u64, revision: Result<u64, EngineError>) {
        let ear = &mut self.ears[partition];
        ear.is_sweeping = false;
        let Ok(revision) = revision else {
            return;
        };
        if revision < known_before {
            // The server has forgotten what it told; what follows begins anew.
            ear.known = revision;
            return self.subscribe();
        }
        ear.known = ear.known.max(revision);
        let expected = ear.expected.take();
        let Some(heard) = ear.heard else {
            ear.heard = Some(revision);
            return;
        };
        if revision <= heard {
            return;
        }
        match expected {
            // A whole round has not brought it.
            Some(expected) if expected > heard => {
                self.lost(partition);
                self.subscribe();
            }
            _ => ear.expected = Some(revision),
        }
    }
}

async fn subscribe(core: &Core, channels: &[String]) -> Result<PubSubStream, Failure> {
    let servers = core.topology.masters();
    let server = fastrand::choice(&servers)
        .ok_or_else(|| Failure::passing("no Redis server is known to be master"))?;
    let subscription = core.topology.subscription(server, channels).await?;
    Ok(subscription.into_on_message())
}
