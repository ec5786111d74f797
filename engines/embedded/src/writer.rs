//! The one thread that changes anything: it takes all commands that wait, decides them in order,
//! makes what has to last durable in one commit, and only then shows and answers them.

mod batch;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hydrant_ports::coordination::{Holder, SeatName, SessionState};
use hydrant_ports::{EngineError, Key};
use tokio::sync::watch;

use crate::coordination::{EmbeddedSeat, EmbeddedSession};
use crate::disk::{Changes, Disk, Stored};
use crate::error::{session_closed, too_large, unavailable};
use crate::image::{Image, Life, Record, SessionId};
use crate::queue::{Command, Port, Queue, Reply, Taken};
use crate::seats::{Lines, Waiter};
use crate::store::Shared;

use batch::Batch;

/// Revisions are reserved on the disk in blocks of this many, so that ephemeral keys, which never
/// touch the disk, have growing ones too.
const RESERVE: u64 = 1 << 16;

/// While keys with a time to live exist, the writer wakes this often at the latest: the time of
/// day may be set.
const LONGEST_NAP: Duration = Duration::from_millis(250);

/// The most keys that run out in one commit.
const MAX_SWEEP: usize = 4096;

struct OpenSession {
    owner: Box<str>,
    state: watch::Sender<SessionState>,
    keys: HashSet<Key>,
}

/// The thread's own; nobody else changes anything.
pub(crate) struct Writer {
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

impl Writer {
    pub(crate) fn new(disk: Disk, stored: Stored, queue: Arc<Queue>, shared: Arc<Shared>) -> Self {
        let mut writer = Self {
            disk,
            queue,
            shared,
            revision: 0,
            reserved: 0,
            epochs: HashMap::new(),
            sessions: HashMap::new(),
            ended: Vec::new(),
            lines: Lines::default(),
            expiries: BTreeSet::new(),
            last_number: 0,
        };
        writer.adopt(stored);
        writer
    }

    /// Serves until the queue is closed and empty.
    pub(crate) fn run(&mut self) {
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
            Command::OpenSession(owner, reply) => {
                // Nothing of it has to last, so nothing has to be waited for.
                let _ = reply.send(self.open_session(owner));
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

    fn open_session(&mut self, owner: Box<str>) -> Result<EmbeddedSession, EngineError> {
        if self.sessions.len() >= self.shared.limits.sessions {
            return Err(too_large(format!(
                "{} sessions are open already",
                self.sessions.len()
            )));
        }
        self.last_number += 1;
        let (sender, state) = watch::channel(SessionState::Connected);
        let session = OpenSession {
            owner,
            state: sender,
            keys: HashSet::new(),
        };
        self.sessions.insert(self.last_number, session);
        Ok(EmbeddedSession {
            id: self.last_number,
            state,
            queue: self.queue.clone(),
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
            self.shared.marks_mut().extend(pairs(&batch.marks));
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
        *self.shared.marks_mut() = stored.marks;
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

fn pairs<'a, K, V>(map: impl IntoIterator<Item = (&'a K, &'a V)>) -> Vec<(K, V)>
where
    K: Clone + 'a,
    V: Clone + 'a,
{
    map.into_iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
