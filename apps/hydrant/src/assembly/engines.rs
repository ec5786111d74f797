//! What stands behind the ports: chosen by the configuration file, opened here, closed when the node
//! has stopped.

use std::path::Path;

use hydrant_embedded::EmbeddedStore;
use hydrant_node::Engines;
use serde::Deserialize;

use super::chain;
use crate::config::{Mistake, Table};
use crate::failure::{Result, wrong};

/// What stands behind the port of coordination.
#[derive(Debug, Default)]
pub(crate) enum CoordinationEngine {
    /// The store in the data folder.
    #[default]
    Embedded,
}

/// What stands behind the port of state.
#[derive(Debug, Default)]
pub(crate) enum StateEngine {
    /// The store in the data folder.
    #[default]
    Embedded,
}

/// The settings of an engine that has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

impl CoordinationEngine {
    /// What `[coordination]` says. Its relative paths begin at `folder`.
    pub(crate) fn read(
        table: Option<Table<'_>>,
        folder: &Path,
    ) -> std::result::Result<Self, Mistake> {
        let Some(table) = table else {
            return Ok(Self::default());
        };
        match table.engine() {
            "embedded" => table.settings().map(|NoSettings {}| Self::Embedded),
            "zookeeper" => Err(not_built_in(&table)),
            _ => Err(unknown(&table, "embedded or zookeeper")),
        }
    }

    /// Whether the nodes of several servers work on it together.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Embedded)
    }
}

impl StateEngine {
    /// What `[state]` says. Its relative paths begin at `folder`.
    pub(crate) fn read(
        table: Option<Table<'_>>,
        folder: &Path,
    ) -> std::result::Result<Self, Mistake> {
        let Some(table) = table else {
            return Ok(Self::default());
        };
        match table.engine() {
            "embedded" => table.settings().map(|NoSettings {}| Self::Embedded),
            "redis" => Err(not_built_in(&table)),
            _ => Err(unknown(&table, "embedded or redis")),
        }
    }

    /// Whether the nodes of several servers work on it together.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Embedded)
    }
}

fn unknown(table: &Table<'_>, known: &str) -> Mistake {
    let engine = table.engine().escape_debug();
    let message = format!("there is no engine `{engine}` for this port: write {known}");
    (table.engine_at(), message)
}

fn not_built_in(table: &Table<'_>) -> Mistake {
    let engine = table.engine();
    let message = format!(
        "this program was built without the engine `{engine}`: build it with `cargo build --release --features {engine}`"
    );
    (table.engine_at(), message)
}

/// Engines that work, and what has to be closed behind them.
pub(crate) struct Opened {
    engines: Engines,
    store: Option<EmbeddedStore>,
}

impl Opened {
    /// Opens the embedded store where one is needed, and connects to what is shared.
    pub(crate) async fn open(
        coordination: CoordinationEngine,
        state: StateEngine,
        data: &Path,
    ) -> Result<Self> {
        let store = open_store(data)?;
        let engines = Engines {
            coordination: match coordination {
                CoordinationEngine::Embedded => store.coordination(),
            },
            state: match state {
                StateEngine::Embedded => store.state(),
            },
        };
        Ok(Self {
            engines,
            store: Some(store),
        })
    }

    /// What a node is given.
    pub(crate) fn engines(&self) -> Engines {
        self.engines.clone()
    }

    /// Closes what is open here, and says goodbye to what is shared.
    pub(crate) async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

fn open_store(data: &Path) -> Result<EmbeddedStore> {
    EmbeddedStore::open(data.join("store.redb"))
        .map_err(|error| wrong("store_unusable", chain(&error), ""))
}
