use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use hydrant_ports::state::{MAX_VALUE, Put, StateEntry, Under};
use hydrant_ports::{
    EngineError, Entry, ErrorKind, Expect, Key, Prefix, State, Watch, watch_channel,
};
use hydrant_runtime::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::core::{Core, Kind};
use crate::error::{Failure, closed, unavailable};
use crate::requests::{self, Found, Outcome, Request};
use crate::watcher::{self, Wanted};
use crate::{Counts, keeper};

/// How often a write raises marks before it gives up: another writer may raise them further.
const MOST_RAISES: usize = 5;

/// State on Redis.
pub struct RedisState {
    core: Arc<Core>,
    watches: mpsc::Sender<Wanted>,
    tasks: [JoinHandle<()>; 2],
}

impl RedisState {
    /// Connects, and makes sure that the servers are as the configuration says and may be
    /// written. Tries until `connect_timeout`, but not when only somebody's hand helps, as with a
    /// wrong password.
    pub async fn connect(config: Config) -> Result<Arc<Self>, EngineError> {
        let deadline = Instant::now() + config.connect_timeout.get();
        let core = Arc::new(Core::new(config)?);
        first_contact(&core, deadline).await?;
        let (watches, wanted) = mpsc::channel(256);
        let tasks = [
            tokio::spawn(watcher::run(core.clone(), wanted)),
            tokio::spawn(keeper::run(core.clone())),
        ];
        Ok(Arc::new(Self {
            core,
            watches,
            tasks,
        }))
    }

    /// Ends all watches and refuses requests from now on.
    pub async fn close(&self) {
        self.core.close();
        let (done, ended) = tokio::sync::oneshot::channel();
        if self.watches.send(Wanted::End(done)).await.is_ok() {
            let _ = ended.await;
        }
        for task in &self.tasks {
            task.abort();
        }
    }

    /// What has happened since it was connected.
    pub fn counts(&self) -> Counts {
        let counts = &self.core.counts;
        Counts {
            unconfirmed_writes: counts.unconfirmed.load(Ordering::Relaxed),
            hidden_reads: counts.hidden.load(Ordering::Relaxed),
            lost_messages: counts.lost_messages.load(Ordering::Relaxed),
            subscriptions: counts.subscriptions.load(Ordering::Relaxed),
        }
    }

    /// Sends a write, raises marks that are behind its epoch, and waits for replicas.
    async fn write(
        &self,
        key: &Key,
        partition: usize,
        request: &Request,
        under: Option<&Under>,
        bytes: usize,
    ) -> Result<u64, EngineError> {
        if let Some(under) = under {
            self.refuse_superseded(under)?;
        }
        for _ in 0..MOST_RAISES {
            let (answer, by) = self.core.ask(partition, request, Kind::Once, bytes).await?;
            match requests::outcome(key, answer).inspect_err(|error| self.learn(under, error))? {
                Outcome::Done(0) => return Ok(0),
                Outcome::Done(revision) => {
                    if let Some(under) = under {
                        self.core.seen.note_mark(&under.mark, under.epoch);
                        self.core.seen.may_show(key, Some(under));
                    }
                    let missing = self.core.missing_replicas(&by).await;
                    self.accept_missing(key, missing)?;
                    return Ok(revision);
                }
                Outcome::Behind => match under {
                    Some(under) => self.core.raise(under).await?,
                    None => break,
                },
            }
        }
        Err(unavailable(format!(
            "{key} is not written: its mark does not hold still"
        )))
    }

    /// What this process knows of a mark, no server needs to be asked.
    fn refuse_superseded(&self, under: &Under) -> Result<(), EngineError> {
        let known = self.core.seen.mark(&under.mark);
        match known > under.epoch {
            true => Err(requests::superseded(known)),
            false => Ok(()),
        }
    }

    fn learn(&self, under: Option<&Under>, error: &EngineError) {
        if let (Some(under), ErrorKind::Superseded { known }) = (under, error.kind) {
            self.core.seen.note_mark(&under.mark, known);
        }
    }

    fn accept_missing(&self, key: &Key, missing: usize) -> Result<(), EngineError> {
        if missing == 0 {
            return Ok(());
        }
        let before = self.core.counts.unconfirmed.fetch_add(1, Ordering::Relaxed);
        let patience = self.core.config.replica_timeout;
        if self.core.config.require_replicas {
            return Err(unavailable(format!(
                "{key} is written, but {missing} connected replicas of Redis have not confirmed it within {patience}: a fail-over may lose it"
            )));
        }
        if before.is_power_of_two() || before == 0 {
            tracing::warn!(%key, unconfirmed = before + 1, "no replica of Redis has confirmed a write within {patience}: a fail-over may lose it");
        }
        Ok(())
    }

    fn may_show(&self, found: &Found) -> bool {
        let may_show = self.core.seen.may_show(&found.key, found.under.as_ref());
        if !may_show {
            self.core.counts.hidden.fetch_add(1, Ordering::Relaxed);
        }
        may_show
    }
}

/// Finds the servers, tries what will be asked of them, and says what is wrong.
async fn first_contact(core: &Core, deadline: Instant) -> Result<(), Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let failure = match try_contact(core).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let wait = backoff.next_wait();
        if failure.is_lasting || Instant::now() + wait > deadline {
            return Err(failure);
        }
        sleep(wait).await;
    }
}

async fn try_contact(core: &Core) -> Result<(), Failure> {
    core.topology.refresh().await?;
    for server in core.topology.masters() {
        server.connected().await.map_err(|away| away.failure)?;
    }
    core.check().await
}

#[async_trait]
impl State for RedisState {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn get(&self, key: &Key) -> Result<Option<StateEntry>, EngineError> {
        let partition = self.core.partition_of(key);
        let request = requests::get(self.core.names(partition), key);
        let answer = self.core.read(partition, &request).await?;
        let Some(found) = requests::found(key, answer)? else {
            return Ok(None);
        };
        match self.may_show(&found) {
            true => Ok(Some(state_entry(found))),
            false => Err(unavailable(format!(
                "{key} was written under a higher epoch before a fail-over of Redis lost it: wait until its leader writes it again"
            ))),
        }
    }

    async fn put(&self, key: &Key, value: Bytes, options: Put) -> Result<u64, EngineError> {
        let bytes = value.len();
        if bytes > MAX_VALUE {
            return Err(EngineError::new(
                ErrorKind::TooLarge,
                format!("the value of {key} has {bytes} bytes; state takes at most {MAX_VALUE}"),
            ));
        }
        let partition = self.core.partition_of(key);
        let request = requests::put(self.core.names(partition), key, &value, &options);
        let under = options.under.as_ref();
        self.write(key, partition, &request, under, bytes).await
    }

    async fn delete(
        &self,
        key: &Key,
        expect: Expect,
        under: Option<Under>,
    ) -> Result<bool, EngineError> {
        let partition = self.core.partition_of(key);
        let under = under.as_ref();
        let request = requests::delete(self.core.names(partition), key, expect, under);
        let revision = self.write(key, partition, &request, under, 0).await?;
        Ok(revision != 0)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, EngineError> {
        let mut parts: Vec<_> = (0..self.core.partitions.len())
            .map(|partition| Part {
                partition,
                after: after.map(|after| after.as_str().to_owned()),
                is_over: false,
                ready: VecDeque::new(),
            })
            .collect();
        let page = limit.div_ceil(parts.len()).saturating_add(8);
        let mut listed = Vec::new();
        while listed.len() < limit {
            let fill = parts
                .iter_mut()
                .map(|part| part.fill(&self.core, prefix, page));
            try_join_all(fill).await?;
            let next = parts.iter_mut().filter(|part| !part.ready.is_empty());
            let Some(next) = next.min_by(|one, other| one.first().cmp(&other.first())) else {
                break;
            };
            let found = next.ready.pop_front().filter(|found| self.may_show(found));
            listed.extend(found.map(state_entry));
        }
        Ok(listed)
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        let (sender, watch) = watch_channel();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let wanted = Wanted::Watch(prefix.clone(), sender, reply);
        let sent = self.watches.send(wanted).await;
        sent.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())??;
        Ok(watch)
    }

    async fn raise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError> {
        let mark = mark.clone();
        let under = Under { mark, epoch };
        self.refuse_superseded(&under)?;
        self.core.raise(&under).await
    }

    async fn mark(&self, mark: &Key) -> Result<u64, EngineError> {
        let all = 0..self.core.partitions.len();
        let marks = all.map(|partition| async move {
            let request = requests::mark(self.core.names(partition), mark);
            requests::number(self.core.read(partition, &request).await?)
        });
        let marks = try_join_all(marks).await?;
        let known = marks.into_iter().max().unwrap_or(0);
        self.core.seen.note_mark(mark, known);
        Ok(known)
    }

    fn failovers(&self) -> watch::Receiver<u64> {
        self.core.failovers.subscribe()
    }

    async fn check(&self) -> Result<(), EngineError> {
        Ok(self.core.check().await?)
    }
}

impl Drop for RedisState {
    fn drop(&mut self) {
        self.core.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The part of a list that comes from one partition.
struct Part {
    partition: usize,
    after: Option<String>,
    is_over: bool,
    ready: VecDeque<Found>,
}

impl Part {
    /// Reads the next page when the last is used up.
    async fn fill(&mut self, core: &Core, prefix: &Prefix, page: usize) -> Result<(), EngineError> {
        while self.ready.is_empty() && !self.is_over {
            let names = core.names(self.partition);
            let request = requests::list(names, prefix, self.after.as_deref(), page);
            let page = requests::page(core.read(self.partition, &request).await?)?;
            self.is_over = page.next.is_none();
            self.after = page.next;
            self.ready.extend(page.entries);
        }
        Ok(())
    }

    fn first(&self) -> Option<&Key> {
        self.ready.front().map(|found| &found.key)
    }
}

fn state_entry(found: Found) -> StateEntry {
    let Found {
        key,
        revision,
        value,
        ttl,
        ..
    } = found;
    StateEntry {
        entry: Entry {
            key,
            value,
            revision,
        },
        ttl,
    }
}
