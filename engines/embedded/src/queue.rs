//! The way from the event loops to the writer's thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hydrant_ports::coordination::SeatName;
use hydrant_ports::state::Under;
use hydrant_ports::{EngineError, Expect, Key};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::coordination::{EmbeddedSeat, EmbeddedSession};
use crate::error::closed;
use crate::image::SessionId;

/// How much may wait for the writer, in KiB; a command without a value counts as one.
const ROOM: usize = 64 * 1024;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// Which of the two ports a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Coordination,
    State,
}

/// A change of one key.
pub(crate) struct Write {
    pub(crate) port: Port,
    pub(crate) key: Key,
    /// `None` deletes.
    pub(crate) value: Option<Bytes>,
    pub(crate) expect: Expect,
    /// The session that writes an ephemeral key.
    pub(crate) session: Option<SessionId>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) under: Option<Under>,
}

impl Write {
    pub(crate) fn put(port: Port, key: &Key, value: Bytes, expect: Expect) -> Self {
        Self {
            value: Some(value),
            ..Self::delete(port, key, expect)
        }
    }

    pub(crate) fn delete(port: Port, key: &Key, expect: Expect) -> Self {
        Self {
            port,
            key: key.clone(),
            value: None,
            expect,
            session: None,
            ttl: None,
            under: None,
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The key's revision now; 0 when it is gone.
    pub(crate) revision: u64,
    /// Whether the key was there before.
    pub(crate) existed: bool,
}

pub(crate) enum Command {
    Write(Write, Reply<Written>),
    Raise(Under, Reply<()>),
    OpenSession(Box<str>, Reply<EmbeddedSession>),
    EndSession(SessionId, Option<Reply<()>>),
    TakeSeat {
        seat: SeatName,
        session: SessionId,
        name: String,
        reply: Reply<EmbeddedSeat>,
    },
    /// Gives up the seat that was granted with `ticket`, if it is still held so.
    GiveUp {
        seat: SeatName,
        ticket: u64,
        reply: Option<Reply<()>>,
    },
    /// Makes sure that the disk can be written.
    Check(Reply<()>),
}

struct Waiting {
    command: Command,
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Inner {
    commands: Vec<Waiting>,
    closed: bool,
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
    room: Arc<Semaphore>,
}

/// What the writer took: all that waited, in order.
pub(crate) struct Taken {
    pub(crate) commands: Vec<Command>,
    /// Nothing will come behind it.
    pub(crate) last: bool,
    _rooms: Vec<OwnedSemaphorePermit>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            ready: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    /// Sends a command that carries `bytes`, and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        bytes: usize,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, EngineError> {
        let kib = u32::try_from(1 + bytes / 1024).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(kib).await;
        let (reply, answer) = oneshot::channel();
        self.push(command(reply), Some(room.map_err(|_| closed())?))?;
        answer.await.map_err(|_| closed())?
    }

    /// Sends a command that gives something up: it waits for no room, since there are never more
    /// of them than of what is held. A closed store has given it up already.
    pub(crate) fn tell(&self, command: Command) {
        let _ = self.push(command, None);
    }

    fn push(
        &self,
        command: Command,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), EngineError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(closed());
        }
        inner.commands.push(Waiting {
            command,
            _room: room,
        });
        drop(inner);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for commands, at most for `limit`, and takes all.
    pub(crate) fn take(&self, limit: Option<Duration>) -> Taken {
        let is_idle = |inner: &mut Inner| inner.commands.is_empty() && !inner.closed;
        let guard = self.lock();
        let mut inner = match limit {
            None => self
                .ready
                .wait_while(guard, is_idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.ready
                    .wait_timeout_while(guard, limit, is_idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        let last = inner.closed;
        let waiting = std::mem::take(&mut inner.commands);
        drop(inner);
        Taken::new(waiting, last)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Lets nothing in any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.ready.notify_one();
    }

    /// Closes, and drops what waits: who asked learns that the store is closed.
    pub(crate) fn abandon(&self) {
        self.close();
        let waiting = std::mem::take(&mut self.lock().commands);
        drop(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn new(waiting: Vec<Waiting>, last: bool) -> Self {
        let mut taken = Self {
            commands: Vec::with_capacity(waiting.len()),
            last,
            _rooms: Vec::new(),
        };
        for Waiting { command, _room } in waiting {
            taken.commands.push(command);
            taken._rooms.extend(_room);
        }
        taken
    }
}
