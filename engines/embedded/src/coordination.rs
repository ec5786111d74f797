use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::coordination::{Holder, MAX_VALUE, Seat, SeatName, Session, SessionState};
use hydrant_ports::{Coordination, EngineError, Entry, Expect, Key, Prefix, Versioned, Watch};
use tokio::sync::watch;

use crate::error::too_large;
use crate::image::SessionId;
use crate::queue::{Command, Port, Queue, Write};
use crate::store::Core;

pub(crate) struct EmbeddedCoordination(Arc<Core>);

impl EmbeddedCoordination {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }
}

#[async_trait]
impl Coordination for EmbeddedCoordination {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn open_session(
        &self,
        owner: &str,
        _ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError> {
        let ask = |reply| Command::OpenSession(owner.into(), reply);
        let session = self.0.queue().ask(owner.len(), ask).await?;
        Ok(Box::new(session))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError> {
        let image = self.0.shared()?.coordination.read();
        Ok(image.get(key).map(|record| record.versioned()))
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError> {
        let image = self.0.shared()?.coordination.read();
        let entries = image.range(prefix, None);
        Ok(entries.map(|(key, record)| record.entry(key)).collect())
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        let shared = self.0.shared()?;
        let most = shared.limits.watchers;
        shared
            .coordination
            .write()
            .watch(prefix, shared.now_ms(), most)
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError> {
        put(self.0.queue(), key, value, expect, None).await
    }

    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError> {
        let delete = Write::delete(Port::Coordination, key, expect);
        let ask = |reply| Command::Write(delete, reply);
        Ok(self.0.queue().ask(0, ask).await?.existed)
    }

    async fn holder(
        &self,
        seat: &SeatName,
    ) -> Result<watch::Receiver<Option<Holder>>, EngineError> {
        Ok(self.0.shared()?.holders.observe(seat))
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.0.queue().ask(0, Command::Check).await
    }
}

async fn put(
    queue: &Queue,
    key: &Key,
    value: Bytes,
    expect: Expect,
    session: Option<SessionId>,
) -> Result<u64, EngineError> {
    let bytes = value.len();
    if bytes > MAX_VALUE {
        return Err(too_large(format!(
            "the value of {key} has {bytes} bytes; coordination takes at most {MAX_VALUE}"
        )));
    }
    let write = Write {
        session,
        ..Write::put(Port::Coordination, key, value, expect)
    };
    let ask = |reply| Command::Write(write, reply);
    Ok(queue.ask(bytes, ask).await?.revision)
}

/// A session that the writer has opened. Wherever it is dropped, also on the way to somebody who
/// has left meanwhile, it ends.
pub(crate) struct EmbeddedSession {
    pub(crate) id: SessionId,
    pub(crate) state: watch::Receiver<SessionState>,
    pub(crate) queue: Arc<Queue>,
}

#[async_trait]
impl Session for EmbeddedSession {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError> {
        put(&self.queue, key, value, expect, Some(self.id)).await
    }

    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError> {
        let command = |reply| Command::TakeSeat {
            seat: seat.clone(),
            session: self.id,
            name: holder.to_owned(),
            reply,
        };
        let seat = self.queue.ask(holder.len(), command).await?;
        Ok(Box::new(seat))
    }

    async fn close(&self) {
        let command = |reply| Command::EndSession(self.id, Some(reply));
        // A closed store has ended it already.
        let _ = self.queue.ask(0, command).await;
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        self.queue.tell(Command::EndSession(self.id, None));
    }
}

/// A seat that the writer has given. Wherever it is dropped, also on the way to a candidate who
/// has left meanwhile, it is given up.
pub(crate) struct EmbeddedSeat {
    pub(crate) seat: SeatName,
    pub(crate) ticket: u64,
    pub(crate) epoch: u64,
    pub(crate) lost: watch::Receiver<bool>,
    pub(crate) queue: Arc<Queue>,
}

#[async_trait]
impl Seat for EmbeddedSeat {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn lost(&self) {
        // The writer's end without a word is a loss, too.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    async fn give_up(self: Box<Self>) {
        let command = |reply| Command::GiveUp {
            seat: self.seat.clone(),
            ticket: self.ticket,
            reply: Some(reply),
        };
        // A closed store has given it up already.
        let _ = self.queue.ask(0, command).await;
    }
}

impl Drop for EmbeddedSeat {
    fn drop(&mut self) {
        self.queue.tell(Command::GiveUp {
            seat: self.seat.clone(),
            ticket: self.ticket,
            reply: None,
        });
    }
}
