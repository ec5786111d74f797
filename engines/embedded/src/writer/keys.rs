//! How writes of keys and marks are decided.

use std::time::Duration;

use hydrant_ports::state::Under;
use hydrant_ports::{EngineError, ErrorKind, Expect, Key};

use crate::error::{conflict, session_closed, too_large};
use crate::image::{Life, Record, SessionId, cost};
use crate::queue::{Port, Write, Written};
use crate::writer::batch::Batch;
use crate::writer::{RESERVE, Writer};

impl Writer {
    pub(super) fn write(
        &mut self,
        write: Write,
        batch: &mut Batch,
    ) -> Result<Written, EngineError> {
        if write.session.is_some_and(|session| !self.is_open(session)) {
            return Err(session_closed());
        }
        if let Some(under) = &write.under {
            self.check_epoch(under, batch)?;
        }
        let old = self.current(write.port, &write.key, batch);
        self.check_owner(&write, old.as_ref())?;
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

    pub(super) fn latest(&self, port: Port, key: &Key, batch: &Batch) -> Option<Record> {
        match batch.keys(port).get(key) {
            Some(decided) => decided.clone(),
            None => self.shared.image(port).read().get(key).cloned(),
        }
    }

    pub(super) fn stage(&self, port: Port, key: Key, record: Option<Record>, batch: &mut Batch) {
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

    fn check_owner(&self, write: &Write, old: Option<&Record>) -> Result<(), EngineError> {
        let (Some(old), Some(_)) = (old, &write.value) else {
            return Ok(());
        };
        let key = &write.key;
        match (old.life, write.session) {
            (Life::Session(holder), Some(writer)) if self.same_owner(holder, writer) => Ok(()),
            (Life::Session(_), Some(_)) => {
                Err(conflict(format!("{key} belongs to another session")))
            }
            (Life::Session(_), None) => Err(conflict(format!("{key} is an ephemeral key"))),
            (_, Some(_)) => Err(conflict(format!("{key} is a kept key"))),
            (_, None) => Ok(()),
        }
    }

    fn same_owner(&self, one: SessionId, other: SessionId) -> bool {
        let owner = |id| self.sessions.get(&id).map(|session| &session.owner);
        one == other || owner(one).is_some_and(|one| Some(one) == owner(other))
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

    pub(super) fn raise(&self, under: &Under, batch: &mut Batch) -> Result<(), EngineError> {
        self.check_epoch(under, batch)?;
        self.stage_mark(under, batch)
    }

    fn stage_mark(&self, under: &Under, batch: &mut Batch) -> Result<(), EngineError> {
        let known = self.known_epoch(&under.mark, batch);
        if under.epoch == known {
            return Ok(());
        }
        let names = self.shared.marks().len() + batch.marks.len();
        if known == 0 && names >= self.shared.limits.names {
            return Err(self.too_many_names("marks"));
        }
        batch.marks.insert(under.mark.clone(), under.epoch);
        Ok(())
    }

    pub(super) fn too_many_names(&self, what: &str) -> EngineError {
        too_large(format!(
            "{} names of {what} are known already, and none is ever forgotten",
            self.shared.limits.names
        ))
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
