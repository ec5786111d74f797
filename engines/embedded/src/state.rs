use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::state::{MAX_VALUE, Put, StateEntry, Under};
use hydrant_ports::{EngineError, Expect, Key, Prefix, State, Watch};
use tokio::sync::watch;

use crate::error::too_large;
use crate::image::{Life, Record};
use crate::queue::{Command, Port, Write};
use crate::store::Core;

pub(crate) struct EmbeddedState(Arc<Core>);

impl EmbeddedState {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }
}

#[async_trait]
impl State for EmbeddedState {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn get(&self, key: &Key) -> Result<Option<StateEntry>, EngineError> {
        let shared = self.0.shared()?;
        let now_ms = shared.now_ms();
        let image = shared.state.read();
        let living = image.get(key).filter(|record| !record.is_over(now_ms));
        Ok(living.map(|record| entry(key, record, now_ms)))
    }

    async fn put(&self, key: &Key, value: Bytes, options: Put) -> Result<u64, EngineError> {
        let bytes = value.len();
        if bytes > MAX_VALUE {
            return Err(too_large(format!(
                "the value of {key} has {bytes} bytes; state takes at most {MAX_VALUE}"
            )));
        }
        let write = Write {
            ttl: options.ttl,
            under: options.under,
            ..Write::put(Port::State, key, value, options.expect)
        };
        let ask = |reply| Command::Write(write, reply);
        Ok(self.0.queue().ask(bytes, ask).await?.revision)
    }

    async fn delete(
        &self,
        key: &Key,
        expect: Expect,
        under: Option<Under>,
    ) -> Result<bool, EngineError> {
        let delete = Write {
            under,
            ..Write::delete(Port::State, key, expect)
        };
        let ask = |reply| Command::Write(delete, reply);
        Ok(self.0.queue().ask(0, ask).await?.existed)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, EngineError> {
        let shared = self.0.shared()?;
        let now_ms = shared.now_ms();
        let image = shared.state.read();
        let living = image
            .range(prefix, after)
            .filter(|(_, record)| !record.is_over(now_ms));
        let page = living.take(limit);
        Ok(page
            .map(|(key, record)| entry(key, record, now_ms))
            .collect())
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        let shared = self.0.shared()?;
        let most = shared.limits.watchers;
        shared.state.write().watch(prefix, shared.now_ms(), most)
    }

    async fn raise(&self, mark: &Key, epoch: u64) -> Result<(), EngineError> {
        let under = Under {
            mark: mark.clone(),
            epoch,
        };
        self.0
            .queue()
            .ask(0, |reply| Command::Raise(under, reply))
            .await
    }

    async fn mark(&self, mark: &Key) -> Result<u64, EngineError> {
        Ok(self.0.shared()?.mark(mark))
    }

    fn failovers(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn check(&self) -> Result<(), EngineError> {
        self.0.queue().ask(0, Command::Check).await
    }
}

fn entry(key: &Key, record: &Record, now_ms: i64) -> StateEntry {
    let ttl = match record.life {
        Life::Until(until) => {
            let left_ms = u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0);
            Some(Duration::from_millis(left_ms))
        }
        Life::Kept | Life::Session(_) => None,
    };
    StateEntry {
        entry: record.entry(key),
        ttl,
    }
}
