//! What `up` and `node` share: a node that runs until the process is asked to end.

use std::path::Path;
use std::time::Duration;

use hydrant_runtime::termination_signal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use crate::assembly::{Prepared, Running, Settings};
use crate::data::RunningNode;
use crate::failure::{Failure, Result, system};

/// How long a node may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The most files that a node may have open: two for each connection that its router takes, and
/// not more, since some programs that inherit the limit look at every number below it.
const OPEN_FILES: u64 = 131_072;

/// A node that runs, and the signal that ends it.
pub(crate) struct Serving {
    running: Running,
    end: JoinHandle<std::io::Result<&'static str>>,
}

impl Serving {
    /// Starts a node; a signal that comes meanwhile is not lost. `builtin` tells whether the
    /// built-in services are wanted.
    pub(crate) async fn start(settings: Settings, builtin: bool) -> Result<Self> {
        raise_open_files();
        let mut end = tokio::spawn(termination_signal());
        tokio::task::yield_now().await;
        let prepared = tokio::select! {
            prepared = Prepared::new(settings, builtin) => prepared?,
            _ = &mut end => return Err(Failure::Exit(1)),
        };
        let running = prepared.start().await?;
        Ok(Self { running, end })
    }

    /// Where the node listens.
    pub(crate) fn addresses(&self) -> RunningNode {
        self.running.addresses()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        self.running.data()
    }

    /// Whether the process was asked to end.
    pub(crate) fn is_asked_to_end(&self) -> bool {
        self.end.is_finished()
    }

    /// Waits for the signal, then stops everything.
    pub(crate) async fn until_asked_to_end(self) -> Result<()> {
        let signal = match self.end.await {
            Ok(Ok(signal)) => signal,
            Ok(Err(error)) => return Err(system("cannot await signals", &error, "")),
            Err(_) => "a failure",
        };
        tracing::info!(signal, "stopping");
        match tokio::time::timeout(STOP_LIMIT, self.running.stop()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                eprintln!(
                    "hydrant: not all could be stopped in {} s",
                    STOP_LIMIT.as_secs()
                );
                Err(Failure::Exit(1))
            }
        }
    }
}

/// Takes as many open files as the system lets this process have: every connection is one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, wanted, "cannot raise the limit of open files");
    }
}
