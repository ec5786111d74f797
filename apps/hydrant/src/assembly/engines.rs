use std::path::Path;
use std::sync::Arc;

use hydrant_embedded::EmbeddedStore;
use hydrant_node::Engines;
use hydrant_ports::{Coordination, State};
#[cfg(feature = "redis")]
use hydrant_redis::RedisState;
use hydrant_runtime::with_causes;
#[cfg(feature = "zookeeper")]
use hydrant_zookeeper::ZookeeperCoordination;
use serde::Deserialize;

use crate::config::{Mistake, Table};
use crate::failure::{Result, wrong};

/// What is read of a file, or where its mistake is.
type Read<T> = std::result::Result<T, Mistake>;

/// What stands behind the port of coordination.
#[derive(Clone, Debug, Default)]
pub(crate) enum CoordinationEngine {
    /// The store in the data folder.
    #[default]
    Embedded,
    /// An ensemble.
    #[cfg(feature = "zookeeper")]
    Zookeeper(Box<hydrant_zookeeper::Config>),
}

/// What stands behind the port of state.
#[derive(Clone, Debug, Default)]
pub(crate) enum StateEngine {
    /// The store in the data folder.
    #[default]
    Embedded,
    /// One server, Sentinel or a cluster.
    #[cfg(feature = "redis")]
    Redis(Box<hydrant_redis::Config>),
}

/// The settings of an engine that has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

impl CoordinationEngine {
    /// What `[coordination]` says. Its relative paths begin at `folder`.
    pub(crate) fn read(table: Option<Table<'_>>, folder: &Path) -> Read<Self> {
        let Some(table) = table else {
            return Ok(Self::default());
        };
        match table.engine() {
            "embedded" => table.settings().map(|NoSettings {}| Self::Embedded),
            "zookeeper" => Self::read_zookeeper(table, folder),
            _ => Err(unknown(&table, "embedded or zookeeper")),
        }
    }

    #[cfg(feature = "zookeeper")]
    fn read_zookeeper(table: Table<'_>, folder: &Path) -> Read<Self> {
        let at = table.engine_at();
        let mut config: Box<hydrant_zookeeper::Config> = table.settings()?;
        config.check().map_err(|error| (at, with_causes(&error)))?;
        config.relative_to(folder);
        Ok(Self::Zookeeper(config))
    }

    #[cfg(not(feature = "zookeeper"))]
    fn read_zookeeper(table: Table<'_>, _: &Path) -> Read<Self> {
        Err(not_built_in(&table))
    }

    /// Whether the nodes of several servers work on it together.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Embedded)
    }
}

impl StateEngine {
    /// What `[state]` says. Its relative paths begin at `folder`.
    pub(crate) fn read(table: Option<Table<'_>>, folder: &Path) -> Read<Self> {
        let Some(table) = table else {
            return Ok(Self::default());
        };
        match table.engine() {
            "embedded" => table.settings().map(|NoSettings {}| Self::Embedded),
            "redis" => Self::read_redis(table, folder),
            _ => Err(unknown(&table, "embedded or redis")),
        }
    }

    #[cfg(feature = "redis")]
    fn read_redis(table: Table<'_>, folder: &Path) -> Read<Self> {
        let at = table.engine_at();
        let mut config: Box<hydrant_redis::Config> = table.settings()?;
        config.check().map_err(|error| (at, with_causes(&error)))?;
        config.relative_to(folder);
        Ok(Self::Redis(config))
    }

    #[cfg(not(feature = "redis"))]
    fn read_redis(table: Table<'_>, _: &Path) -> Read<Self> {
        Err(not_built_in(&table))
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

#[cfg(not(all(feature = "redis", feature = "zookeeper")))]
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
    ends: Vec<End>,
}

/// What is closed when the node has stopped.
enum End {
    Store(EmbeddedStore),
    #[cfg(feature = "zookeeper")]
    Zookeeper(Arc<ZookeeperCoordination>),
    #[cfg(feature = "redis")]
    Redis(Arc<RedisState>),
}

impl Opened {
    /// Connects to what is shared, and opens the store of the data folder where one is needed.
    pub(crate) async fn open(
        coordination: CoordinationEngine,
        state: StateEngine,
        data: &Path,
    ) -> Result<Self> {
        let mut ends = Vec::new();
        match open(coordination, state, data, &mut ends).await {
            Ok(engines) => Ok(Self { engines, ends }),
            Err(failure) => {
                close(ends).await;
                Err(failure)
            }
        }
    }

    /// What a node is given.
    pub(crate) fn engines(&self) -> Engines {
        self.engines.clone()
    }

    /// Closes what only one process can have open.
    pub(crate) async fn close_files(&mut self) {
        let (files, shared) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|end| matches!(end, End::Store(_)));
        self.ends = shared;
        close(files).await;
    }

    /// Closes what is open here, and says goodbye to what is shared.
    pub(crate) async fn close(self) {
        drop(self.engines);
        close(self.ends).await;
    }
}

async fn open(
    coordination: CoordinationEngine,
    state: StateEngine,
    data: &Path,
    ends: &mut Vec<End>,
) -> Result<Engines> {
    let coordination = connect_coordination(coordination, data, ends).await?;
    let state = connect_state(state, ends).await?;
    if let (Some(coordination), Some(state)) = (&coordination, &state) {
        let (coordination, state) = (coordination.clone(), state.clone());
        return Ok(Engines {
            coordination,
            state,
        });
    }
    let store = open_store(data)?;
    let engines = Engines {
        coordination: coordination.unwrap_or_else(|| store.coordination()),
        state: state.unwrap_or_else(|| store.state()),
    };
    ends.push(End::Store(store));
    Ok(engines)
}

/// `None` where it is embedded.
#[cfg_attr(not(feature = "zookeeper"), expect(unused_variables))]
async fn connect_coordination(
    engine: CoordinationEngine,
    data: &Path,
    ends: &mut Vec<End>,
) -> Result<Option<Arc<dyn Coordination>>> {
    match engine {
        CoordinationEngine::Embedded => Ok(None),
        #[cfg(feature = "zookeeper")]
        CoordinationEngine::Zookeeper(mut config) => {
            config
                .era_file
                .get_or_insert_with(|| data.join("zookeeper.era"));
            let connected = ZookeeperCoordination::connect(*config).await;
            let engine = connected.map_err(|error| no_engine("coordination", error))?;
            ends.push(End::Zookeeper(engine.clone()));
            Ok(Some(engine))
        }
    }
}

/// `None` where it is embedded.
#[cfg_attr(not(feature = "redis"), expect(unused_variables))]
async fn connect_state(engine: StateEngine, ends: &mut Vec<End>) -> Result<Option<Arc<dyn State>>> {
    match engine {
        StateEngine::Embedded => Ok(None),
        #[cfg(feature = "redis")]
        StateEngine::Redis(config) => {
            let connected = RedisState::connect(*config).await;
            let engine = connected.map_err(|error| no_engine("state", error))?;
            ends.push(End::Redis(engine.clone()));
            Ok(Some(engine))
        }
    }
}

async fn close(ends: Vec<End>) {
    for end in ends {
        match end {
            End::Store(store) => store.close().await,
            #[cfg(feature = "zookeeper")]
            End::Zookeeper(engine) => engine.close().await,
            #[cfg(feature = "redis")]
            End::Redis(engine) => engine.close().await,
        }
    }
}

/// Why a shared engine can't be used, with where it is configured.
#[cfg(any(feature = "redis", feature = "zookeeper"))]
fn no_engine(port: &str, error: hydrant_ports::EngineError) -> crate::failure::Failure {
    let message = with_causes(&error);
    let mut error = hydrant_contracts::Error::from(error);
    error.message = message;
    error
        .mend(format!(
            "start it, or mend [{port}] in the configuration file"
        ))
        .into()
}

/// Opens the store of a data folder.
pub(crate) fn open_store(data: &Path) -> Result<EmbeddedStore> {
    EmbeddedStore::open(data.join("store.redb"))
        .map_err(|error| wrong("store_unusable", with_causes(&error), ""))
}
