//! What `up` and `node` share: a node that runs until the process is asked to end.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use hydrant_runtime::termination_signal;
use tokio::task::JoinHandle;

use crate::assembly::Running;
use crate::data::RunningNode;
use crate::failure::{Failure, Result, system};

/// How long a node may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A node that runs, and the signal that ends it.
pub(crate) struct Serving {
    running: Running,
    end: JoinHandle<std::io::Result<&'static str>>,
}

impl Serving {
    /// Starts a node; a signal that comes meanwhile is not lost.
    pub(crate) async fn start(start: impl Future<Output = Result<Running>>) -> Result<Self> {
        let end = tokio::spawn(termination_signal());
        tokio::task::yield_now().await;
        let running = start.await?;
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
