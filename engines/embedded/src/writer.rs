//! The one thread that changes anything: it takes all commands that wait, decides them in order,
//! makes what has to last durable in one commit, and only then shows and answers them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hydrant_ports::coordination::{Holder, SeatName, SessionState};
use hydrant_ports::state::Under;
use hydrant_ports::{EngineError, ErrorKind, Expect, Key};
use hydrant_runtime::Clock;
use tokio::sync::watch;

use crate::coordination::EmbeddedSeat;
use crate::disk::{Changes, Disk, Medium, StoreFile, Stored};
use crate::error::{closed, conflict, session_closed, too_large, unavailable};
use crate::image::{Image, Life, Record, SessionId, SharedImage, cost};
use crate::queue::{Command, Opened, Port, Queue, Reply, Taken, Write, Written};
use crate::seats::{Holders, Lines, Waiter};
use crate::{Config, Limits, OpenError};

/// Revisions are reserved on the disk in blocks of this many, so that ephemeral keys, which never
/// touch the disk, have growing ones too.
const RESERVE: u64 = 1 << 16;

/// While keys with a time to live exist, the writer wakes this often at the latest: the time of
/// day may be set.
const LONGEST_NAP: Duration = Duration::from_millis(250);

/// The most keys that run out in one commit.
const MAX_SWEEP: usize = 4096;

/// What everybody reads and the writer changes.
pub(crate) struct Shared {
    pub(crate) coordination: SharedImage,
    pub(crate) state: SharedImage,
    pub(crate) holders: Holders,
    pub(crate) limits: Limits,
    marks: RwLock<HashMap<Key, u64>>,
    clock: Clock,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    pub(crate) fn mark(&self, mark: &Key) -> u64 {
        let marks = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        marks.get(mark).copied().unwrap_or(0)
    }

    fn image(&self, port: Port) -> &SharedImage {
        match port {
            Port::Coordination => &self.coordination,
            Port::State => &self.state,
        }
    }
}

/// An open store: the way to the writer, and what is read.
pub(crate) struct Core {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    ended: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    pub(crate) fn open(config: Config) -> Result<Self, OpenError> {
        let medium = Box::new(StoreFile(config.path.clone()));
        Self::open_on(medium, config)
    }

    pub(crate) fn open_on(medium: Box<dyn Medium>, config: Config) -> Result<Self, OpenError> {
        let (disk, stored) = Disk::open(medium)?;
        let queue = Arc::new(Queue::new());
        let mut writer = Writer::new(disk, queue.clone(), &config);
        writer.adopt(stored);
        let shared = writer.shared.clone();
        let (end, ended) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("hydrant-store".to_owned())
            .spawn(move || {
                writer.run();
                drop(writer);
                drop(end);
            })
            .map_err(|error| OpenError::io(&config.path, error))?;
        Ok(Self {
            shared,
            queue,
            ended,
            thread: Some(thread),
        })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// What can be read while the store is open.
    pub(crate) fn shared(&self) -> Result<&Shared, EngineError> {
        if self.queue.is_closed() {
            return Err(closed());
        }
        Ok(&self.shared)
    }

    pub(crate) async fn close(&self) {
        self.queue.close();
        // The sender is dropped behind the file.
        let _ = self.ended.clone().changed().await;
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct OpenSession {
    state: watch::Sender<SessionState>,
    keys: HashSet<Key>,
}

struct Writer {
    disk: Disk,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    /// The last revision that was given, and the highest that the disk has reserved.
    revision: u64,
    reserved: u64,
    epochs: HashMap<Key, u64>,
    sessions: HashMap<SessionId, OpenSession>,
    /// Sessions whose keys are still to be removed.
    ended: Vec<SessionId>,
    lines: Lines,
    expiries: BTreeSet<(i64, Key)>,
    /// Numbers sessions and tickets.
    last_number: u64,
}

/// An answer that waits for the commit; it is told why there was none.
type Answer = Box<dyn FnOnce(Option<&str>) + Send>;

/// What is decided and not yet durable. Discarded as a whole when the commit fails.
struct Batch {
    now_ms: i64,
    coordination: BTreeMap<Key, Option<Record>>,
    state: BTreeMap<Key, Option<Record>>,
    marks: HashMap<Key, u64>,
    epochs: HashMap<Key, u64>,
    reserved: Option<u64>,
    /// How much larger the ports are behind it, in bytes.
    growth: [isize; 2],
    answers: Vec<Answer>,
    grants: Vec<(SeatName, Waiter, u64)>,
}

impl Batch {
    fn new(now_ms: i64) -> Self {
        Self {
            now_ms,
            coordination: BTreeMap::new(),
            state: BTreeMap::new(),
            marks: HashMap::new(),
            epochs: HashMap::new(),
            reserved: None,
            growth: [0; 2],
            answers: Vec::new(),
            grants: Vec::new(),
        }
    }

    fn keys(&self, port: Port) -> &BTreeMap<Key, Option<Record>> {
        match port {
            Port::Coordination => &self.coordination,
            Port::State => &self.state,
        }
    }

    fn keys_mut(&mut self, port: Port) -> &mut BTreeMap<Key, Option<Record>> {
        match port {
            Port::Coordination => &mut self.coordination,
            Port::State => &mut self.state,
        }
    }

    /// Answers once the batch is durable.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, result: Result<T, EngineError>) {
        self.answers.push(Box::new(move |failure| {
            // Who asked may have left.
            let _ = reply.send(match failure {
                None => result,
                Some(why) => Err(unavailable(why)),
            });
        }));
    }
}

impl Writer {
    fn new(disk: Disk, queue: Arc<Queue>, config: &Config) -> Self {
        Self {
            disk,
            queue,
            shared: Arc::new(Shared {
                coordination: SharedImage::default(),
                state: SharedImage::default(),
                holders: Holders::default(),
                limits: config.limits,
                marks: RwLock::default(),
                clock: config.clock.clone(),
            }),
            revision: 0,
            reserved: 0,
            epochs: HashMap::new(),
            sessions: HashMap::new(),
            ended: Vec::new(),
            lines: Lines::default(),
            expiries: BTreeSet::new(),
            last_number: 0,
        }
    }

    fn run(&mut self) {
        loop {
            let taken = self.queue.take(self.nap());
            let last = taken.last;
            self.serve(taken);
            if last {
                return;
            }
        }
    }

    /// How long the writer may wait for commands; `None` as long as there are none.
    fn nap(&self) -> Option<Duration> {
        let owes = self.lines.have_changed() || !self.ended.is_empty();
        if self.disk.has_failed() && (owes || !self.expiries.is_empty()) {
            return Some(LONGEST_NAP);
        }
        if owes {
            return Some(Duration::ZERO);
        }
        let (until, _) = self.expiries.first()?;
        let left_ms = until.saturating_sub(self.shared.now_ms()).max(1);
        Some(Duration::from_millis(left_ms.unsigned_abs()).min(LONGEST_NAP))
    }

    fn serve(&mut self, taken: Taken) {
        let mut batch = Batch::new(self.shared.now_ms());
        for command in taken.commands {
            self.decide(command, &mut batch);
        }
        self.remove_ended(&mut batch);
        self.run_out(&mut batch);
        self.fill_seats(&mut batch);
        self.finish(batch);
    }

    fn decide(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Write(write, reply) => {
                let result = self.write(write, batch);
                batch.answer(reply, result);
            }
            Command::Raise(under, reply) => {
                let result = self.raise(&under, batch);
                batch.answer(reply, result);
            }
            Command::OpenSession(reply) => {
                let result = self.open_session();
                batch.answer(reply, result);
            }
            Command::EndSession(session, reply) => {
                self.end_session(session);
                if let Some(reply) = reply {
                    batch.answer(reply, Ok(()));
                }
            }
            Command::TakeSeat {
                seat,
                session,
                name,
                reply,
            } => self.enter_line(&seat, session, name, reply),
            Command::GiveUp {
                seat,
                ticket,
                reply,
            } => {
                if self.lines.give_up(&seat, ticket) {
                    self.shared.holders.publish(&seat, None);
                }
                if let Some(reply) = reply {
                    batch.answer(reply, Ok(()));
                }
            }
            Command::Check(reply) => {
                // A commit that changes nothing but says that the disk takes it.
                batch.reserved.get_or_insert(self.reserved);
                batch.answer(reply, Ok(()));
            }
        }
    }

    fn write(&mut self, write: Write, batch: &mut Batch) -> Result<Written, EngineError> {
        if write.session.is_some_and(|session| !self.is_open(session)) {
            return Err(session_closed());
        }
        if let Some(under) = &write.under {
            self.check_epoch(under, batch)?;
        }
        let old = self.current(write.port, &write.key, batch);
        check_owner(&write, old.as_ref())?;
        check_expected(&write, old.as_ref())?;
        self.check_room(&write, old.as_ref(), batch)?;
        if let Some(under) = &write.under {
            self.stage_mark(under, batch)?;
        }
        let existed = old.is_some();
        let record = self.record(&write, batch);
        let revision = record.as_ref().map_or(0, |record| record.revision);
        if existed || record.is_some() {
            self.stage(write.port, write.key, record, batch);
        }
        Ok(Written { revision, existed })
    }

    /// What the key will be; takes a revision for it.
    fn record(&mut self, write: &Write, batch: &mut Batch) -> Option<Record> {
        let value = write.value.clone()?;
        let life = match (write.session, write.ttl) {
            (Some(session), _) => Life::Session(session),
            (None, Some(ttl)) => Life::Until(end_of(ttl, batch.now_ms)),
            (None, None) => Life::Kept,
        };
        Some(Record {
            value,
            revision: self.next_revision(batch),
            life,
        })
    }

    fn next_revision(&mut self, batch: &mut Batch) -> u64 {
        self.revision += 1;
        if self.revision > batch.reserved.unwrap_or(self.reserved) {
            batch.reserved = Some(self.revision + RESERVE);
        }
        self.revision
    }

    /// What a key is behind what is decided already; `None` also when its time is over.
    fn current(&self, port: Port, key: &Key, batch: &Batch) -> Option<Record> {
        let record = self.latest(port, key, batch)?;
        (!record.is_over(batch.now_ms)).then_some(record)
    }

    fn latest(&self, port: Port, key: &Key, batch: &Batch) -> Option<Record> {
        match batch.keys(port).get(key) {
            Some(decided) => decided.clone(),
            None => self.shared.image(port).read().get(key).cloned(),
        }
    }

    fn stage(&self, port: Port, key: Key, record: Option<Record>, batch: &mut Batch) {
        let cost_of = |record: &Option<Record>| {
            let record = record.as_ref();
            record.map_or(0, |record| cost(&key, record.value.len()) as isize)
        };
        let growth = cost_of(&record) - cost_of(&self.latest(port, &key, batch));
        batch.growth[port as usize] += growth;
        batch.keys_mut(port).insert(key, record);
    }

    fn check_room(
        &self,
        write: &Write,
        old: Option<&Record>,
        batch: &Batch,
    ) -> Result<(), EngineError> {
        let Some(value) = &write.value else {
            return Ok(());
        };
        let most = match write.port {
            Port::Coordination => self.shared.limits.coordination,
            Port::State => self.shared.limits.state,
        };
        let held = self.shared.image(write.port).read().bytes();
        let held = held.saturating_add_signed(batch.growth[write.port as usize]);
        let old_cost = old.map_or(0, |old| cost(&write.key, old.value.len()));
        let new_cost = cost(&write.key, value.len());
        if new_cost > old_cost && held - old_cost.min(held) + new_cost > most {
            return Err(too_large(format!(
                "the store is full: it may hold {most} bytes; delete keys first"
            )));
        }
        Ok(())
    }

    fn known_epoch(&self, mark: &Key, batch: &Batch) -> u64 {
        let decided = batch.marks.get(mark).copied();
        decided.unwrap_or_else(|| self.shared.mark(mark))
    }

    fn check_epoch(&self, under: &Under, batch: &Batch) -> Result<(), EngineError> {
        let known = self.known_epoch(&under.mark, batch);
        if under.epoch < known {
            let message = format!(
                "epoch {} of {} is over: {known} is known",
                under.epoch, under.mark
            );
            return Err(EngineError::new(ErrorKind::Superseded { known }, message));
        }
        Ok(())
    }

    fn raise(&self, under: &Under, batch: &mut Batch) -> Result<(), EngineError> {
        self.check_epoch(under, batch)?;
        self.stage_mark(under, batch)
    }

    fn stage_mark(&self, under: &Under, batch: &mut Batch) -> Result<(), EngineError> {
        let known = self.known_epoch(&under.mark, batch);
        if under.epoch == known {
            return Ok(());
        }
        let marks = self
            .shared
            .marks
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if known == 0 && marks.len() + batch.marks.len() >= self.shared.limits.names {
            return Err(self.too_many_names("marks"));
        }
        batch.marks.insert(under.mark.clone(), under.epoch);
        Ok(())
    }

    fn too_many_names(&self, what: &str) -> EngineError {
        too_large(format!(
            "{} names of {what} are known already, and none is ever forgotten",
            self.shared.limits.names
        ))
    }

    fn open_session(&mut self) -> Result<Opened, EngineError> {
        if self.sessions.len() >= self.shared.limits.sessions {
            return Err(too_large(format!(
                "{} sessions are open already",
                self.sessions.len()
            )));
        }
        self.last_number += 1;
        let (sender, state) = watch::channel(SessionState::Connected);
        let session = OpenSession {
            state: sender,
            keys: HashSet::new(),
        };
        self.sessions.insert(self.last_number, session);
        Ok(Opened {
            session: self.last_number,
            state,
        })
    }

    fn is_open(&self, session: SessionId) -> bool {
        let session = self.sessions.get(&session);
        session.is_some_and(|session| *session.state.borrow() == SessionState::Connected)
    }

    fn end_session(&mut self, id: SessionId) {
        if !self.is_open(id) {
            return;
        }
        if let Some(session) = self.sessions.get(&id) {
            session.state.send_replace(SessionState::Lost);
        }
        for seat in self.lines.end_session(id) {
            self.shared.holders.publish(&seat, None);
        }
        self.ended.push(id);
    }

    /// Removes the keys of the sessions that have ended. They are forgotten only when that is
    /// done, so a commit that fails delays it and no more.
    fn remove_ended(&self, batch: &mut Batch) {
        for id in &self.ended {
            let mut keys: Vec<Key> = self
                .sessions
                .get(id)
                .map_or_else(Vec::new, |session| session.keys.iter().cloned().collect());
            keys.extend(batch.coordination.keys().cloned());
            for key in keys {
                let record = self.latest(Port::Coordination, &key, batch);
                if record.is_some_and(|record| record.life == Life::Session(*id)) {
                    self.stage(Port::Coordination, key, None, batch);
                }
            }
        }
    }

    /// Removes the keys whose time is over.
    fn run_out(&self, batch: &mut Batch) {
        let over = self.expiries.iter().take(MAX_SWEEP);
        let over = over.take_while(|(until, _)| *until <= batch.now_ms);
        let keys: Vec<Key> = over.map(|(_, key)| key.clone()).collect();
        for key in keys {
            let record = self.latest(Port::State, &key, batch);
            if record.is_some_and(|record| record.is_over(batch.now_ms)) {
                self.stage(Port::State, key, None, batch);
            }
        }
    }

    fn enter_line(
        &mut self,
        seat: &SeatName,
        session: SessionId,
        name: String,
        reply: Reply<EmbeddedSeat>,
    ) {
        if !self.is_open(session) {
            let _ = reply.send(Err(session_closed()));
            return;
        }
        self.last_number += 1;
        let waiter = Waiter {
            ticket: self.last_number,
            session,
            name,
            reply,
        };
        self.lines.enter(seat, waiter, self.shared.limits.line);
    }

    /// Decides who takes the seats that are free; the epochs are durable before anybody knows.
    fn fill_seats(&mut self, batch: &mut Batch) {
        for (seat, waiter) in self.lines.next() {
            let last = self.epochs.get(&seat.0).copied();
            if last.is_none() && self.epochs.len() + batch.epochs.len() >= self.shared.limits.names
            {
                let _ = waiter.reply.send(Err(self.too_many_names("seats")));
                self.lines.skip(seat);
                continue;
            }
            let epoch = last.unwrap_or(0) + 1;
            batch.epochs.insert(seat.0.clone(), epoch);
            batch.grants.push((seat, waiter, epoch));
        }
    }

    /// Makes the batch durable, then shows and answers it.
    fn finish(&mut self, batch: Batch) {
        let failure = self.commit(&batch).err();
        match &failure {
            None => self.show(&batch),
            Some(why) => tracing::error!(error = why, "the store can't be written"),
        }
        for (seat, waiter, epoch) in batch.grants {
            self.grant(seat, waiter, epoch, failure.as_deref());
        }
        for answer in batch.answers {
            answer(failure.as_deref());
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        let changes = self.changes(batch);
        if changes.is_empty() {
            return Ok(());
        }
        if self.disk.has_failed() {
            self.recover()?;
            // What was decided was decided on what may not be true any more.
            return Err("the store was opened again after a failure; try again".to_owned());
        }
        self.disk
            .commit(&changes)
            .map_err(|error| format!("the store can't be written: {error}"))
    }

    /// What of the batch has to last.
    fn changes(&self, batch: &Batch) -> Changes {
        let image = self.shared.coordination.read();
        let was_kept = |key: &Key| image.get(key).is_some_and(|old| old.life == Life::Kept);
        let lasting = batch
            .coordination
            .iter()
            .filter_map(|(key, record)| match record {
                Some(record) if record.life == Life::Kept => {
                    Some((key.clone(), Some(record.clone())))
                }
                _ => was_kept(key).then(|| (key.clone(), None)),
            });
        Changes {
            kept: lasting.collect(),
            state: pairs(&batch.state),
            marks: pairs(&batch.marks),
            epochs: pairs(&batch.epochs),
            reserved: batch.reserved,
        }
    }

    /// Puts the batch into what is read, and tells the watchers.
    fn show(&mut self, batch: &Batch) {
        self.reserved = batch.reserved.unwrap_or(self.reserved);
        self.epochs.extend(pairs(&batch.epochs));
        if !batch.marks.is_empty() {
            let mut marks = self
                .shared
                .marks
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            marks.extend(pairs(&batch.marks));
        }
        for port in [Port::Coordination, Port::State] {
            self.show_keys(port, batch);
        }
        for session in self.ended.drain(..) {
            self.sessions.remove(&session);
        }
    }

    fn show_keys(&mut self, port: Port, batch: &Batch) {
        let changed = batch.keys(port);
        if changed.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let mut image = shared.image(port).write();
        for (key, record) in changed {
            self.replace(&mut image, key, record.clone());
        }
        image.tell(changed.keys(), batch.now_ms);
    }

    /// Sets a key in the image, and keeps the lists of what ends when.
    fn replace(&mut self, image: &mut Image, key: &Key, record: Option<Record>) {
        let life = record.as_ref().map(|record| record.life);
        let old = image.set(key, record).map(|old| old.life);
        match old {
            Some(Life::Until(until)) => {
                self.expiries.remove(&(until, key.clone()));
            }
            Some(Life::Session(id)) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.keys.remove(key);
                }
            }
            Some(Life::Kept) | None => {}
        }
        match life {
            Some(Life::Until(until)) => {
                self.expiries.insert((until, key.clone()));
            }
            Some(Life::Session(id)) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.keys.insert(key.clone());
                }
            }
            Some(Life::Kept) | None => {}
        }
    }

    fn grant(&mut self, seat: SeatName, waiter: Waiter, epoch: u64, failure: Option<&str>) {
        if let Some(why) = failure {
            let _ = waiter.reply.send(Err(unavailable(why)));
            self.lines.skip(seat);
            return;
        }
        let lost = self.lines.seat(&seat, &waiter);
        let holder = Holder {
            name: waiter.name,
            epoch,
        };
        self.shared.holders.publish(&seat, Some(holder));
        // To somebody who has left, it is dropped here, and by that given up.
        let _ = waiter.reply.send(Ok(EmbeddedSeat {
            seat,
            ticket: waiter.ticket,
            epoch,
            lost,
            queue: self.queue.clone(),
        }));
    }

    /// Opens the file again after a failure: the last commit may be in it or not.
    fn recover(&mut self) -> Result<(), String> {
        let stored = self
            .disk
            .reopen()
            .map_err(|error| format!("the store can't be opened again after a failure: {error}"))?;
        self.adopt(stored);
        tracing::info!("the store was opened again after a failure");
        Ok(())
    }

    /// Takes over what the disk holds; ephemeral keys stay as they are.
    fn adopt(&mut self, stored: Stored) {
        let given = stored.kept.iter().chain(&stored.state);
        let highest = given.map(|(_, record)| record.revision).max().unwrap_or(0);
        self.reserved = stored.reserved;
        self.revision = self.revision.max(stored.reserved).max(highest);
        self.epochs = stored.epochs;
        *self
            .shared
            .marks
            .write()
            .unwrap_or_else(PoisonError::into_inner) = stored.marks;
        self.adopt_keys(Port::Coordination, stored.kept);
        self.adopt_keys(Port::State, stored.state);
    }

    fn adopt_keys(&mut self, port: Port, stored: Vec<(Key, Record)>) {
        let shared = self.shared.clone();
        let mut image = shared.image(port).write();
        let durable: Vec<Key> = image
            .range(&Default::default(), None)
            .filter(|(_, record)| !matches!(record.life, Life::Session(_)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in durable {
            self.replace(&mut image, &key, None);
        }
        for (key, record) in stored {
            self.replace(&mut image, &key, Some(record));
        }
        image.tell_all(shared.now_ms());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.abandon();
        for session in self.sessions.values() {
            session.state.send_replace(SessionState::Lost);
        }
        self.shared.holders.clear();
        self.shared.coordination.write().end_watches();
        self.shared.state.write().end_watches();
    }
}

fn check_owner(write: &Write, old: Option<&Record>) -> Result<(), EngineError> {
    let (Some(old), Some(_)) = (old, &write.value) else {
        return Ok(());
    };
    let key = &write.key;
    match (old.life, write.session) {
        (Life::Session(owner), Some(writer)) if owner == writer => Ok(()),
        (Life::Session(_), Some(_)) => Err(conflict(format!("{key} belongs to another session"))),
        (Life::Session(_), None) => Err(conflict(format!("{key} is an ephemeral key"))),
        (_, Some(_)) => Err(conflict(format!("{key} is a kept key"))),
        (_, None) => Ok(()),
    }
}

fn check_expected(write: &Write, old: Option<&Record>) -> Result<(), EngineError> {
    let key = &write.key;
    match (write.expect, old) {
        (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Revision(expected), Some(old)) if old.revision == expected => Ok(()),
        (Expect::Absent, Some(_)) => Err(conflict(format!("{key} is there already"))),
        (Expect::Revision(expected), Some(old)) => Err(conflict(format!(
            "{key} is at revision {}, not {expected}",
            old.revision
        ))),
        (Expect::Revision(expected), None) => Err(conflict(format!(
            "{key} is not there, and revision {expected} was expected"
        ))),
    }
}

fn end_of(ttl: Duration, now_ms: i64) -> i64 {
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_add(ttl_ms)
}

fn pairs<'a, K, V>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> Vec<(K, V)>
where
    K: Clone + 'a,
    V: Clone + 'a,
{
    map.into_iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
