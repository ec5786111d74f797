//! The contract suites over a store whose process is killed: what a kill leaves is the file as it
//! is at that moment, without any clean-up, so a copy of the file is opened next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use hydrant_embedded::{Config, EmbeddedStore};
use hydrant_ports::contract::Subject;
use hydrant_ports::{Coordination, State};
use hydrant_runtime::Clock;
use tempfile::TempDir;

struct Embedded {
    folder: TempDir,
    clock: Clock,
    lives: u32,
    store: EmbeddedStore,
}

async fn open() -> Embedded {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let store = open_at(folder.path().join("0.redb"), &clock);
    Embedded {
        folder,
        clock,
        lives: 0,
        store,
    }
}

fn open_at(path: PathBuf, clock: &Clock) -> EmbeddedStore {
    let mut config = Config::new(path);
    config.clock = clock.clone();
    EmbeddedStore::open_with(config).unwrap()
}

impl Embedded {
    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.redb", self.lives))
    }

    fn kill(&mut self) {
        let old = self.path();
        self.lives += 1;
        std::fs::copy(old, self.path()).unwrap();
        self.store = open_at(self.path(), &self.clock);
    }
}

#[async_trait]
impl Subject<dyn Coordination> for Embedded {
    fn engine(&self) -> Arc<dyn Coordination> {
        self.store.coordination()
    }

    async fn kill_and_reopen(&mut self) {
        self.kill();
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

#[async_trait]
impl Subject<dyn State> for Embedded {
    fn engine(&self) -> Arc<dyn State> {
        self.store.state()
    }

    async fn kill_and_reopen(&mut self) {
        self.kill();
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

mod coordination {
    hydrant_ports::coordination_contract!(super::open());
}

mod state {
    hydrant_ports::state_contract!(super::open());
}
