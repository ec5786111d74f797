//! The engines with a deadline for every call: an engine that hangs must not take the local API
//! with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::coordination::{Holder, Seat, SeatName, Session, SessionState};
use hydrant_ports::state::{Put, StateEntry, Under};
use hydrant_ports::{
    Coordination, EngineError, Entry, ErrorKind, Expect, Key, Prefix, State, Versioned, Watch,
};
use tokio::sync::watch;

use crate::config::Engines;

/// The longest that a call to an engine takes. Longer than an engine's own tries of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest that opening a session takes: it may have to find another server of the engine.
const OPEN: Duration = Duration::from_secs(15);

/// The same engines, which answer within a deadline: with `Unavailable` when they don't.
pub(crate) fn bounded(engines: &Engines) -> Engines {
    Engines {
        coordination: Arc::new(Bounded(engines.coordination.clone())),
        state: Arc::new(Bounded(engines.state.clone())),
    }
}

struct Bounded<T: ?Sized>(Arc<T>);

struct BoundedSession(Box<dyn Session>);

struct BoundedSeat(Box<dyn Seat>);

/// Waits for an answer to `what`.
async fn within<T>(
    limit: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answered) => answered,
        Err(_) => {
            let message = format!("no answer to {what} within {} s", limit.as_secs());
            Err(EngineError::new(ErrorKind::Unavailable, message))
        }
    }
}

#[async_trait]
impl Coordination for Bounded<dyn Coordination> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn open_session(
        &self,
        owner: &str,
        ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError> {
        let opened = self.0.open_session(owner, ttl);
        let session = within(OPEN, "the opening of a session", opened).await?;
        Ok(Box::new(BoundedSession(session)))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError> {
        within(DEADLINE, "a read", self.0.get(key)).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError> {
        within(DEADLINE, "a list", self.0.list(prefix)).await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        within(OPEN, "the beginning of a watch", self.0.watch(prefix)).await
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError> {
        within(DEADLINE, "a write", self.0.put(key, value, expect)).await
    }

    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError> {
        within(DEADLINE, "a deletion", self.0.delete(key, expect)).await
    }

    async fn holder(
        &self,
        seat: &SeatName,
    ) -> Result<watch::Receiver<Option<Holder>>, EngineError> {
        within(DEADLINE, "a look at a seat", self.0.holder(seat)).await
    }

    async fn check(&self) -> Result<(), EngineError> {
        within(DEADLINE, "a check", self.0.check()).await
    }
}

#[async_trait]
impl Session for BoundedSession {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.0.state()
    }

    async fn put_ephemeral(
        &self,
        key: &Key,
        value: Bytes,
        expect: Expect,
    ) -> Result<u64, EngineError> {
        let put = self.0.put_ephemeral(key, value, expect);
        within(DEADLINE, "a write", put).await
    }

    /// Waits in line, for as long as whoever asked does.
    async fn take_seat(&self, seat: &SeatName, holder: &str) -> Result<Box<dyn Seat>, EngineError> {
        let seat = self.0.take_seat(seat, holder).await?;
        Ok(Box::new(BoundedSeat(seat)))
    }

    async fn close(&self) {
        // The engine ends a session that is not closed when it hears no more of it.
        if tokio::time::timeout(DEADLINE, self.0.close())
            .await
            .is_err()
        {
            tracing::warn!("coordination did not answer to the end of the session");
        }
    }
}

#[async_trait]
impl Seat for BoundedSeat {
    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    async fn lost(&self) {
        self.0.lost().await;
    }

    async fn give_up(self: Box<Self>) {
        if tokio::time::timeout(DEADLINE, self.0.give_up())
            .await
            .is_err()
        {
            tracing::warn!("coordination did not answer to a seat that was given up");
        }
    }
}

#[async_trait]
impl State for Bounded<dyn State> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn get(&self, key: &Key) -> Result<Option<StateEntry>, EngineError> {
        within(DEADLINE, "a read", self.0.get(key)).await
    }

    async fn put(&self, key: &Key, value: Bytes, options: Put) -> Result<u64, EngineError> {
        within(DEADLINE, "a write", self.0.put(key, value, options)).await
    }

    async fn delete(
        &self,
        key: &Key,
        expect: Expect,
        under: Option<Under>,
    ) -> Result<bool, EngineError> {
        let deleted = self.0.delete(key, expect, under);
        within(DEADLINE, "a deletion", deleted).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, EngineError> {
        within(DEADLINE, "a list", self.0.list(prefix, after, limit)).await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        within(OPEN, "the beginning of a watch", self.0.watch(prefix)).await
    }

    async fn raise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError> {
        within(DEADLINE, "the raising of a mark", self.0.raise(mark, epoch)).await
    }

    async fn mark(&self, mark: &Key) -> Result<u64, EngineError> {
        within(DEADLINE, "the reading of a mark", self.0.mark(mark)).await
    }

    fn failovers(&self) -> watch::Receiver<u64> {
        self.0.failovers()
    }

    async fn check(&self) -> Result<(), EngineError> {
        within(DEADLINE, "a check", self.0.check()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_unavailable() {
        let hangs = within::<()>(DEADLINE, "a read", std::future::pending()).await;
        let error = hangs.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "no answer to a read within 5 s");
    }
}
