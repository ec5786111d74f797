use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hydrant_contracts::{InstanceId, ServiceId, Version, proto};
use hydrant_runtime::Clock;
use serde::Serialize;

use crate::logs::Logs;
use crate::process::Limits;

/// The most processes of one service on one server.
pub const MAX_INSTANCES: u32 = 1000;

/// A service whose processes the node starts and keeps running.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceSpec {
    /// The service.
    pub id: ServiceId,
    /// The version that its instances register.
    pub version: Version,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The command registers itself through the SDK; else it is a plain web server, which
    /// `hydrant run` starts and registers.
    pub sdk: bool,
    /// How many processes; at most [`MAX_INSTANCES`]. Not part of the fingerprint: changing it
    /// restarts nothing.
    #[serde(skip)]
    pub instances: u32,
    /// Variables that are set in addition to those of the node.
    pub env: BTreeMap<String, String>,
    /// Where it runs; the node's own folder when there is none.
    pub directory: Option<PathBuf>,
    /// What each process may use.
    pub limits: Limits,
    /// The prefixes of a plain web server, as `/api/files/`; `/{tier}/{name}/` when empty.
    pub routes: Vec<String>,
    /// A plain web server sees the whole path, with the prefix.
    pub keep_prefix: bool,
    /// The paths where a plain web server takes any request more than once without harm.
    pub safe_to_repeat: Vec<String>,
    /// The path that a plain web server answers with 2xx or 3xx when it is well.
    pub health: Option<String>,
    /// How long a process may take to stop after SIGTERM. Then it is killed.
    pub stop_timeout: Duration,
}

impl ServiceSpec {
    /// One process of `command`, with the usual of all else.
    pub fn new(id: ServiceId, version: Version, command: Vec<String>) -> Self {
        Self {
            id,
            version,
            command,
            sdk: false,
            instances: 1,
            env: BTreeMap::new(),
            directory: None,
            limits: Limits::default(),
            routes: Vec::new(),
            keep_prefix: false,
            safe_to_repeat: Vec::new(),
            health: None,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// What a supervisor needs of its node.
#[derive(Clone)]
pub struct SupervisorConfig {
    /// The data folder; the supervisor writes in `supervisor/` below it.
    pub data: PathBuf,
    /// How long services live without a node: their `HYDRANT_GRACE`.
    pub grace: Duration,
    /// The local listener, as `http://127.0.0.1:8081`: their `HYDRANT_URL`.
    pub local_url: String,
    /// The public listener: their `HYDRANT_PUBLIC_URL`.
    pub public_url: String,
    /// Makes the token of a service: its `HYDRANT_TOKEN`.
    pub issue_token: Arc<dyn Fn(&ServiceId) -> String + Send + Sync>,
    /// What the supervisor asks the node to do.
    pub hooks: Arc<dyn Hooks>,
    /// Where the output of the processes goes.
    pub logs: Logs,
    /// The time of day.
    pub clock: Clock,
}

/// What the supervisor asks the node to do.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Takes the instance out of the routing tables, and returns when its last request is done
    /// or `limit` is over.
    async fn drain(&self, instance: &InstanceId, limit: Duration);

    /// Returns when the instance is registered as ready. May wait for ever: the supervisor has
    /// its own limit.
    async fn ready(&self, instance: &InstanceId);

    /// Keeps the number of processes that was asked for, for the next start of the node.
    async fn keep_scale(
        &self,
        service: &ServiceId,
        instances: u32,
    ) -> Result<(), hydrant_contracts::Error>;
}

/// A service as the supervisor runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisedService {
    /// The service.
    pub id: ServiceId,
    /// The version that new processes run.
    pub version: Version,
    /// How many processes there should be.
    pub wanted: u32,
    /// The processes that there are, those that stop included.
    pub processes: Vec<SupervisedProcess>,
}

/// One of a service's processes, running or about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisedProcess {
    /// Which of the service's processes, from 0.
    pub slot: u32,
    /// The instance that it registers as; a new one at each start.
    pub instance: Option<InstanceId>,
    /// Its process id; `None` while it does not run.
    pub pid: Option<u32>,
    /// What it does.
    pub state: ProcessState,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last, as `exited with 1` or `killed by SIGKILL`; `None` when it never has.
    pub last_exit: Option<String>,
    /// How long until it is started again.
    pub next_start: Option<Duration>,
    /// When it reached its state, in milliseconds since 1970.
    pub since_unix_ms: i64,
    /// It was taken over from an earlier node.
    pub adopted: bool,
    /// How often it ended soon after its start, one time after the other; 0 once it has run well.
    pub short_runs: u32,
}

/// What a supervised process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It ended, and is started again after a wait.
    BackingOff,
    /// It is drained and stopped, and not started again.
    Stopping,
}

impl ProcessState {
    /// The state as people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProcessState::Starting => "starting",
            ProcessState::Running => "running",
            ProcessState::BackingOff => "backing off",
            ProcessState::Stopping => "stopping",
        }
    }
}

impl From<&SupervisedService> for proto::SupervisedService {
    fn from(service: &SupervisedService) -> Self {
        proto::SupervisedService {
            tier: proto::Tier::from(service.id.tier).into(),
            service: service.id.name.to_string(),
            version: service.version.to_string(),
            wanted: service.wanted,
            processes: service.processes.iter().map(Into::into).collect(),
            ..Default::default()
        }
    }
}

impl From<&SupervisedProcess> for proto::SupervisedProcess {
    fn from(process: &SupervisedProcess) -> Self {
        proto::SupervisedProcess {
            slot: process.slot,
            pid: process.pid.unwrap_or(0),
            state: process.state.as_str().into(),
            restarts: process.restarts,
            last_exit: process.last_exit.clone().unwrap_or_default(),
            next_start_ms: process.next_start.map_or(0, |wait| wait.as_millis() as u64),
            since_unix_ms: process.since_unix_ms,
            adopted: process.adopted,
            short_runs: process.short_runs,
            instance: process
                .instance
                .as_ref()
                .map_or(String::new(), InstanceId::to_string),
            ..Default::default()
        }
    }
}
