//! How a request gets its answer: to the right server, within its time, never done twice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use hydrant_ports::state::Under;
use hydrant_ports::{EngineError, Key, Prefix};
use hydrant_runtime::Backoff;
use redis::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::{Config, Mode};
use crate::error::{Failure, Verdict, unavailable, verdict};
use crate::names::{Names, partition_of, partitions};
use crate::requests::{self, Found, Request};
use crate::seen::Seen;
use crate::server::{Away, Connected, Identity, Server};
use crate::topology::Topology;

/// How many marks are raised in one step.
const MARKS_AT_ONCE: usize = 256;
/// How often a request follows a partition to another server.
const MOST_MOVES: usize = 5;
/// The waits of a request that may succeed later.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) topology: Topology,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) seen: Seen,
    pub(crate) failovers: watch::Sender<u64>,
    pub(crate) counts: Counters,
    closed: AtomicBool,
    requests: Arc<Semaphore>,
    /// In KiB.
    room: Arc<Semaphore>,
}

pub(crate) struct Partition {
    pub(crate) names: Names,
    /// The connections that are known to lead to the history that is known.
    adopted: RwLock<Option<Arc<Connected>>>,
    history: tokio::sync::Mutex<Option<Identity>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) unconfirmed: AtomicU64,
    pub(crate) hidden: AtomicU64,
    pub(crate) lost_messages: AtomicU64,
    pub(crate) subscriptions: AtomicU64,
}

/// What may be done with a request whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// Done twice, it is as if done once.
    Repeatable,
    /// Not known to have happened, it must not be sent again.
    Once,
}

/// Why a partition can't be asked: `since` when it has been so, if that is known.
struct Unready {
    failure: Failure,
    since: Option<Instant>,
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            since: None,
        }
    }
}

impl From<Away> for Unready {
    fn from(away: Away) -> Self {
        Self {
            failure: away.failure,
            since: Some(away.since),
        }
    }
}

impl Core {
    pub(crate) fn new(config: Config) -> Result<Self, Failure> {
        let names = partitions(config.mode, &config.prefix);
        let topology = Topology::new(&config, &names.iter().collect::<Vec<_>>())?;
        let kib = usize::try_from(config.in_flight.get() >> 10).unwrap_or(usize::MAX);
        Ok(Self {
            topology,
            partitions: names.into_iter().map(Partition::new).collect(),
            seen: Seen::new(config.remember),
            failovers: watch::channel(0).0,
            counts: Counters::default(),
            closed: AtomicBool::new(false),
            requests: Arc::new(Semaphore::new(config.requests.min(Semaphore::MAX_PERMITS))),
            room: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            config,
        })
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn partition_of(&self, key: &Key) -> usize {
        partition_of(key.as_str(), self.partitions.len())
    }

    pub(crate) fn names(&self, partition: usize) -> &Names {
        &self.partitions[partition].names
    }

    pub(crate) async fn read(
        &self,
        partition: usize,
        request: &Request,
    ) -> Result<Value, EngineError> {
        let answer = self.ask(partition, request, Kind::Read, 0).await?;
        Ok(answer.0)
    }

    /// Asks the master of a partition; `bytes` is the size of the value that is sent. Gives the
    /// answer, and who gave it.
    pub(crate) async fn ask(
        &self,
        partition: usize,
        request: &Request,
        kind: Kind,
        bytes: usize,
    ) -> Result<(Value, Arc<Connected>), Failure> {
        let deadline = Instant::now() + self.config.request_timeout.get();
        let _permits = self.permits(bytes, deadline).await?;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let (mut in_full, mut moves, mut losses) = (false, 0, 0);
        loop {
            if self.is_closed() {
                return Err(Failure::closed());
            }
            let connected = self.ready(partition, deadline).await?;
            let command = request.command(in_full);
            let line = match kind {
                Kind::Read => &connected.reads,
                Kind::Repeatable | Kind::Once => &connected.writes,
            };
            let Ok(answer) = timeout_at(deadline, line.ask(&command)).await else {
                self.discard(partition, &connected);
                return Err(self.too_late(kind));
            };
            let error = match answer {
                Ok(value) => return Ok((value, connected)),
                Err(error) => error,
            };
            match verdict(&error) {
                Verdict::NoScript if !in_full => in_full = true,
                Verdict::Moved(to) if moves < MOST_MOVES => {
                    moves += 1;
                    self.follow(partition, to, &connected).await;
                    self.pause(&mut backoff, deadline, &error).await?;
                }
                Verdict::NotNow => self.pause(&mut backoff, deadline, &error).await?,
                Verdict::Lost if kind != Kind::Once && losses == 0 => {
                    losses += 1;
                    self.discard(partition, &connected);
                }
                Verdict::Lost => {
                    self.discard(partition, &connected);
                    return Err(lost(kind, &error));
                }
                Verdict::Refused(error) => return Err(error),
                Verdict::NoScript | Verdict::Moved(_) => {
                    return Err(Failure::passing(format!("Redis does not settle: {error}")));
                }
            }
        }
    }

    async fn permits(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<[OwnedSemaphorePermit; 2], Failure> {
        let kib = u32::try_from(1 + bytes / 1024).unwrap_or(u32::MAX);
        let acquire = async {
            let one = self.requests.clone().acquire_owned().await;
            let room = self.room.clone().acquire_many_owned(kib).await;
            Ok([
                one.map_err(|_| Failure::closed())?,
                room.map_err(|_| Failure::closed())?,
            ])
        };
        let acquired = timeout_at(deadline, acquire).await;
        acquired.unwrap_or_else(|_| {
            Err(Failure::passing(
                "too many requests of Redis are under way; nothing was sent",
            ))
        })
    }

    async fn pause(
        &self,
        backoff: &mut Backoff,
        deadline: Instant,
        error: &redis::RedisError,
    ) -> Result<(), Failure> {
        let wait = backoff.next_wait();
        if Instant::now() + wait > deadline {
            return Err(Failure::passing(format!(
                "Redis can't answer now, nothing was written: {error}"
            )));
        }
        sleep(wait).await;
        Ok(())
    }

    /// A partition is not where it was asked.
    async fn follow(
        &self,
        partition: usize,
        to: Option<crate::address::Address>,
        from: &Arc<Connected>,
    ) {
        match to {
            Some(to) => self.topology.moved(partition, to),
            None => {
                self.discard(partition, from);
                let _ = self.topology.refresh().await;
            }
        }
    }

    fn discard(&self, partition: usize, connected: &Arc<Connected>) {
        if let Some(server) = self.topology.master(partition) {
            server.discard(connected);
        }
    }

    fn too_late(&self, kind: Kind) -> Failure {
        let patience = self.config.request_timeout;
        Failure::passing(match kind {
            Kind::Read => format!("Redis did not answer within {patience}"),
            _ => format!("Redis did not answer within {patience}; the write may have happened"),
        })
    }

    /// Connections to the master of a partition, once what a fail-over may have taken is put
    /// right. Waits for a server that just went away, not for one that has been away for longer
    /// than a request may take.
    pub(crate) async fn ready(
        &self,
        partition: usize,
        deadline: Instant,
    ) -> Result<Arc<Connected>, Failure> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut last = None;
        let attempts = async {
            loop {
                let unready = match self.try_ready(partition).await {
                    Ok(connected) => return Ok(connected),
                    Err(unready) => unready,
                };
                let patience = self.config.request_timeout.get();
                let is_old = unready
                    .since
                    .is_some_and(|since| since.elapsed() > patience);
                let refreshed = self.topology.refresh().await;
                let is_lasting = unready.failure.is_lasting;
                let failure = refreshed.err().unwrap_or(unready.failure);
                if is_lasting || is_old || self.is_closed() {
                    return Err(failure);
                }
                last = Some(failure);
                sleep(backoff.next_wait()).await;
            }
        };
        let result = timeout_at(deadline, attempts).await;
        result.unwrap_or_else(|_| {
            let failure = last.take();
            Err(failure.unwrap_or_else(|| Failure::passing("Redis can't be reached in time")))
        })
    }

    async fn try_ready(&self, partition: usize) -> Result<Arc<Connected>, Unready> {
        let Some(server) = self.topology.master(partition) else {
            return Err(
                Failure::passing("it is not known yet which Redis server is master").into(),
            );
        };
        let connected = server.connected().await?;
        let adopted = &self.partitions[partition].adopted;
        let known = self.partitions[partition].adopted();
        if known.is_some_and(|known| Arc::ptr_eq(&known, &connected)) {
            return Ok(connected);
        }
        self.examine(&server, &connected)?;
        self.adopt(partition, &connected).await?;
        *adopted.write().unwrap_or_else(PoisonError::into_inner) = Some(connected.clone());
        Ok(connected)
    }

    /// Whether a server is one that can be worked with.
    fn examine(&self, server: &Server, connected: &Arc<Connected>) -> Result<(), Failure> {
        let (address, facts) = (&server.address, &connected.facts);
        let wrong = |what: &str| {
            Err(Failure::lasting(format!(
                "Redis at {address} {what}: choose another `mode`, or other `servers`"
            )))
        };
        let is_cluster = self.config.mode == Mode::Cluster;
        match () {
            () if facts.is_sentinel => return wrong("is a Sentinel"),
            () if facts.is_cluster && !is_cluster => return wrong("is part of a cluster"),
            () if !facts.is_cluster && is_cluster => return wrong("is not part of a cluster"),
            () if !facts.is_master && self.config.mode == Mode::Single => {
                return wrong("is a replica, which can't be written");
            }
            () => {}
        }
        if !facts.is_master {
            server.discard(connected);
            return Err(Failure::passing(format!(
                "Redis at {address} is a replica now"
            )));
        }
        if facts.eviction.starts_with("allkeys") {
            return Err(Failure::lasting(format!(
                "Redis at {address} drops keys at will when it is full, marks among them: set `maxmemory-policy noeviction` there"
            )));
        }
        if let Some(told) = &facts.forbidden {
            return Err(Failure::lasting(format!(
                "Redis at {address} would lose its data when it restarts: it replays its file with the permissions of the default user, which lacks some ({told}); \
                write `user default off ~* &* +@all` there, which lets nobody in"
            )));
        }
        if !facts.is_durable {
            tracing::warn!(%address, "this Redis server does not keep what it acknowledges over a restart: set `appendonly yes` there");
        }
        Ok(())
    }

    /// Takes a server for the master of a partition. If its history is another one, or another
    /// process holds it, the marks that were seen are raised again before anything else is asked,
    /// and who listens learns of a fail-over.
    async fn adopt(&self, partition: usize, connected: &Connected) -> Result<(), Failure> {
        let place = &self.partitions[partition];
        let mut history = place.history.lock().await;
        let identity = &connected.facts.identity;
        if history.as_ref() == Some(identity) {
            return Ok(());
        }
        let is_first = history.is_none();
        let marks = self.seen.marks();
        for chunk in marks.chunks(MARKS_AT_ONCE) {
            raise_again(&place.names, connected, chunk).await?;
        }
        if !is_first {
            self.copy_marks(partition, connected).await?;
        }
        *history = Some(identity.clone());
        drop(history);
        if !is_first {
            self.failovers.send_modify(|count| *count += 1);
            tracing::warn!(
                partition,
                marks = marks.len(),
                "another Redis server, or a restarted one, has taken over: its last writes may be lost; known marks are raised again"
            );
        }
        Ok(())
    }

    /// Raises the marks that another server of a cluster has. It is asked only if it is there: what
    /// this engine has seen itself is raised anyway.
    async fn copy_marks(&self, partition: usize, to: &Connected) -> Result<(), Failure> {
        let own = self.topology.master(partition);
        let own = own.map(|server| server.address.clone());
        let elsewhere = (0..self.partitions.len()).find_map(|other| {
            let server = self.topology.master(other)?;
            (Some(&server.address) != own.as_ref()).then_some((other, server))
        });
        let Some((other, server)) = elsewhere else {
            return Ok(());
        };
        let Ok(from) = server.connected().await else {
            return Ok(());
        };
        let mut cursor = "0".to_owned();
        loop {
            let request = requests::some_marks(self.names(other), &cursor, MARKS_AT_ONCE);
            let Ok(answer) = from.reads.ask(&request.command(false)).await else {
                return Ok(());
            };
            let (next, marks) = requests::marks(answer)
                .map_err(|error| Failure::passing(format!("can't read marks: {error}")))?;
            raise_again(self.names(partition), to, &marks).await?;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// A server has forgotten what it had told.
    pub(crate) async fn rolled_back(&self, partition: usize) {
        let place = &self.partitions[partition];
        *place.history.lock().await = Some(Identity::default());
        *place
            .adopted
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Raises a mark in all partitions, and waits for replicas.
    pub(crate) async fn raise(&self, under: &Under) -> Result<(), EngineError> {
        let all = 0..self.partitions.len();
        let raised = join_all(all.map(|partition| self.raise_in(partition, under))).await;
        let known = raised.iter().flatten().copied().max().unwrap_or(0);
        self.seen.note_mark(&under.mark, known);
        if known > under.epoch {
            return Err(requests::superseded(known));
        }
        raised
            .into_iter()
            .try_for_each(|result| result.map(|_| ()))?;
        self.seen.note_mark(&under.mark, under.epoch);
        Ok(())
    }

    /// Gives the epoch that is higher, if one is, or the one that was asked for.
    async fn raise_in(&self, partition: usize, under: &Under) -> Result<u64, EngineError> {
        let request = requests::raise(self.names(partition), [(&under.mark, under.epoch)]);
        let (answer, by) = self.ask(partition, &request, Kind::Repeatable, 0).await?;
        let higher = requests::number(answer)?;
        if higher > under.epoch {
            return Ok(higher);
        }
        match self.missing_replicas(&by).await {
            0 => Ok(under.epoch),
            missing => Err(unavailable(format!(
                "the mark {} is raised, but {missing} connected replicas of Redis have not confirmed it within {}: raise it again",
                under.mark, self.config.replica_timeout
            ))),
        }
    }

    pub(crate) async fn missing_replicas(&self, by: &Connected) -> usize {
        let Config {
            wait_replicas,
            replica_timeout,
            ..
        } = &self.config;
        by.missing_replicas(*wait_replicas, replica_timeout.get())
            .await
    }

    /// All entries of a partition below a prefix, and its revision when the first were read.
    pub(crate) async fn list_all(
        &self,
        partition: usize,
        prefix: &Prefix,
    ) -> Result<(u64, Vec<Found>), EngineError> {
        let (mut entries, mut after, mut revision) = (Vec::new(), None::<String>, None);
        loop {
            let names = self.names(partition);
            let request = requests::list(names, prefix, after.as_deref(), usize::MAX);
            let page = requests::page(self.read(partition, &request).await?)?;
            let revision = *revision.get_or_insert(page.revision);
            entries.extend(page.entries);
            after = page.next;
            if after.is_none() {
                return Ok((revision, entries));
            }
        }
    }

    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let all = 0..self.partitions.len();
        let probes = all.map(|partition| async move {
            let request = requests::probe(self.names(partition));
            self.ask(partition, &request, Kind::Repeatable, 0).await
        });
        try_join_all(probes).await.map(|_| ())
    }
}

impl Partition {
    fn new(names: Names) -> Self {
        Self {
            names,
            adopted: RwLock::default(),
            history: tokio::sync::Mutex::default(),
        }
    }

    fn adopted(&self) -> Option<Arc<Connected>> {
        let adopted = self.adopted.read();
        adopted.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Raises marks at a server that may have lost them.
async fn raise_again(
    names: &Names,
    connected: &Connected,
    marks: &[(Key, u64)],
) -> Result<(), Failure> {
    let marks = marks.iter().map(|(mark, epoch)| (mark, *epoch));
    let request = requests::raise(names, marks);
    let answer = connected.writes.ask(&request.command(true)).await;
    answer
        .map(|_| ())
        .map_err(|error| Failure::passing(format!("can't raise marks after a fail-over: {error}")))
}

fn lost(kind: Kind, error: &redis::RedisError) -> Failure {
    Failure::passing(match kind {
        Kind::Read => format!("the connection to Redis broke: {error}"),
        _ => format!("the connection to Redis broke; the write may have happened: {error}"),
    })
}
