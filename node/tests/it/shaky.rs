//! Engines that a test takes away, lets hang, and lets forget, as a server does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::coordination::{Holder, Seat, SeatName, Session, SessionState};
use hydrant_ports::state::{Put, StateEntry, Under};
use hydrant_ports::{
    Coordination, EngineError, Entry, ErrorKind, Expect, Key, Prefix, State, Versioned, Watch,
};
use tokio::sync::watch;

const WELL: u8 = 0;
const AWAY: u8 = 1;
const HANGS: u8 = 2;

/// How an engine behaves.
#[derive(Default)]
pub struct Mood(AtomicU8);

impl Mood {
    pub fn well(&self) {
        self.0.store(WELL, Ordering::SeqCst);
    }

    pub fn away(&self) {
        self.0.store(AWAY, Ordering::SeqCst);
    }

    pub fn hang(&self) {
        self.0.store(HANGS, Ordering::SeqCst);
    }

    async fn pass(&self) -> Result<(), EngineError> {
        match self.0.load(Ordering::SeqCst) {
            WELL => Ok(()),
            AWAY => Err(EngineError::new(ErrorKind::Unavailable, "away")),
            _ => std::future::pending().await,
        }
    }
}

/// Coordination as a client of a distant server sees it: a session may be lost for the client
/// while the server still holds what it put.
pub struct Shaky {
    engine: Arc<dyn Coordination>,
    pub mood: Arc<Mood>,
    sessions: Mutex<Vec<Arc<Kept>>>,
}

struct Kept {
    session: Box<dyn Session>,
    state: watch::Sender<SessionState>,
    mood: Arc<Mood>,
}

struct Client(Arc<Kept>);

impl Shaky {
    pub fn new(engine: Arc<dyn Coordination>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            mood: Arc::default(),
            sessions: Mutex::default(),
        })
    }

    /// How many sessions were opened.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().unwrap().len()
    }

    /// What the client hears of the state of its newest session.
    pub fn tell(&self, state: SessionState) {
        let sessions = self.sessions.lock().unwrap();
        sessions.last().unwrap().state.send_replace(state);
    }

    /// The server gives up all sessions but the newest.
    pub async fn expire_earlier(&self) {
        let earlier: Vec<_> = {
            let sessions = self.sessions.lock().unwrap();
            sessions[..sessions.len() - 1].to_vec()
        };
        for kept in earlier {
            kept.session.close().await;
        }
    }
}

#[async_trait]
impl Session for Client {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.0.state.subscribe()
    }

    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError> {
        self.0.mood.pass().await?;
        self.0.session.put_ephemeral(key, value, expect).await
    }

    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError> {
        self.0.mood.pass().await?;
        self.0.session.take_seat(seat, holder).await
    }

    async fn close(&self) {
        if self.0.mood.pass().await.is_ok() {
            self.0.session.close().await;
        }
    }
}

#[async_trait]
impl Coordination for Shaky {
    fn name(&self) -> &'static str {
        "shaky"
    }

    async fn open_session(
        &self,
        owner: &str,
        ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError> {
        self.mood.pass().await?;
        let kept = Arc::new(Kept {
            session: self.engine.open_session(owner, ttl).await?,
            state: watch::Sender::new(SessionState::Connected),
            mood: self.mood.clone(),
        });
        self.sessions.lock().unwrap().push(kept.clone());
        Ok(Box::new(Client(kept)))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError> {
        self.mood.pass().await?;
        self.engine.get(key).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError> {
        self.mood.pass().await?;
        self.engine.list(prefix).await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        self.mood.pass().await?;
        self.engine.watch(prefix).await
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError> {
        self.mood.pass().await?;
        self.engine.put(key, value, expect).await
    }

    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError> {
        self.mood.pass().await?;
        self.engine.delete(key, expect).await
    }

    async fn holder(
        &self,
        seat: &SeatName,
    ) -> Result<watch::Receiver<Option<Holder>>, EngineError> {
        self.mood.pass().await?;
        self.engine.holder(seat).await
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.mood.pass().await?;
        self.engine.check().await
    }
}

/// State whose marks can be taken back, as by a fail-over to a replica that had not heard of them.
pub struct Forgetful {
    engine: Arc<dyn State>,
    pub mood: Mood,
    marks: Mutex<HashMap<Key, u64>>,
    failovers: watch::Sender<u64>,
}

impl Forgetful {
    pub fn new(engine: Arc<dyn State>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            mood: Mood::default(),
            marks: Mutex::default(),
            failovers: watch::Sender::new(0),
        })
    }

    pub fn known(&self, mark: &Key) -> u64 {
        self.marks.lock().unwrap().get(mark).copied().unwrap_or(0)
    }

    /// Puts a mark back to what it was.
    pub fn set_back(&self, mark: &Key, epoch: u64) {
        self.marks.lock().unwrap().insert(mark.clone(), epoch);
    }

    /// Says that writes may have been lost.
    pub fn fail_over(&self) {
        self.failovers.send_modify(|count| *count += 1);
    }

    fn rise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError> {
        let mut marks = self.marks.lock().unwrap();
        let known = marks.entry(mark.clone()).or_default();
        if epoch < *known {
            let kind = ErrorKind::Superseded { known: *known };
            return Err(EngineError::new(kind, "a higher epoch is known"));
        }
        *known = epoch;
        Ok(())
    }
}

#[async_trait]
impl State for Forgetful {
    fn name(&self) -> &'static str {
        "forgetful"
    }

    async fn get(&self, key: &Key) -> Result<Option<StateEntry>, EngineError> {
        self.mood.pass().await?;
        self.engine.get(key).await
    }

    async fn put(&self, key: &Key, value: Bytes, mut options: Put) -> Result<u64, EngineError> {
        self.mood.pass().await?;
        if let Some(under) = options.under.take() {
            self.rise(&under.mark, under.epoch)?;
        }
        self.engine.put(key, value, options).await
    }

    async fn delete(
        &self,
        key: &Key,
        expect: Expect,
        under: Option<Under>,
    ) -> Result<bool, EngineError> {
        self.mood.pass().await?;
        if let Some(under) = under {
            self.rise(&under.mark, under.epoch)?;
        }
        self.engine.delete(key, expect, None).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, EngineError> {
        self.mood.pass().await?;
        self.engine.list(prefix, after, limit).await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        self.mood.pass().await?;
        self.engine.watch(prefix).await
    }

    async fn raise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError> {
        self.mood.pass().await?;
        self.rise(mark, epoch)
    }

    async fn mark(&self, mark: &Key) -> Result<u64, EngineError> {
        self.mood.pass().await?;
        Ok(self.known(mark))
    }

    fn failovers(&self) -> watch::Receiver<u64> {
        self.failovers.subscribe()
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.mood.pass().await
    }
}
