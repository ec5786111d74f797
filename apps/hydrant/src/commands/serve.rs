//! What `up` and `node` share: a node that runs until the process is asked to end.

use std::path::Path;
use std::time::Duration;

use hydrant_runtime::termination_signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::assembly::{Former, Prepared, Running, Settings};
use crate::data::RunningNode;
use crate::failure::{Failure, Result, system};
use crate::handover::{Predecessor, Successor};

/// How long a node may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The most files that a node may have open: two for each connection that its router takes, and
/// not more, since some programs that inherit the limit look at every number below it.
const OPEN_FILES: u64 = 131_072;

/// How long a process may let requests under way end after another one has taken its place.
const DRAIN: Duration = Duration::from_secs(300);

/// A node that runs, and the signals that end it.
pub(crate) struct Serving {
    running: Running,
    end: JoinHandle<std::io::Result<&'static str>>,
    restart: Signal,
}

impl Serving {
    /// Starts a node, in the place of a process that waits for this one if there is one; a signal that comes
    /// meanwhile is not lost. `builtin` tells whether the built-in services are wanted.
    pub(crate) async fn start(settings: Settings, builtin: bool) -> Result<Self> {
        raise_open_files();
        let restart = signal(SignalKind::user_defined2());
        let restart = restart.map_err(|error| system("cannot await signals", &error, ""))?;
        let mut end = tokio::spawn(termination_signal());
        tokio::task::yield_now().await;
        let running = tokio::select! {
            running = start(settings, builtin) => running?,
            _ = &mut end => return Err(Failure::Exit(1)),
        };
        tell_systemd();
        Ok(Self {
            running,
            end,
            restart,
        })
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

    /// Waits for the signal, then stops everything; or for the one to give the server over to a new process.
    pub(crate) async fn until_asked_to_end(mut self) -> Result<()> {
        loop {
            let ended = tokio::select! {
                ended = &mut self.end => ended,
                _ = self.restart.recv() => match self.give_over().await? {
                    Some(again) => {
                        self = again;
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            let signal = match ended {
                Ok(Ok(signal)) => signal,
                Ok(Err(error)) => return Err(system("cannot await signals", &error, "")),
                Err(_) => "a failure",
            };
            tracing::info!(signal, "stopping");
            return self.stop().await;
        }
    }

    async fn stop(self) -> Result<()> {
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

    /// Gives the server over to a new process, and ends when the last request has; what comes back goes on,
    /// because that did not succeed.
    async fn give_over(mut self) -> Result<Option<Self>> {
        let successor = match Successor::start(&self.running).await {
            Ok(successor) => successor,
            Err(why) => {
                self.goes_on(why);
                return Ok(Some(self));
            }
        };
        let pid = successor.pid();
        tracing::info!(pid, "a new process takes the place of this one");
        let former = self.running.retire().await;
        match successor.follow(&former).await {
            Ok(()) => {
                tracing::info!(
                    pid,
                    "the new process serves; this one lets its requests end"
                );
                // Who asked for the end meanwhile meant the node, whichever process that is.
                if self.end.is_finished() {
                    successor_ends(pid);
                }
                tokio::select! {
                    () = former.end(DRAIN) => {}
                    _ = &mut self.end => {}
                }
                Ok(None)
            }
            Err(why) => {
                let running = start_again(former).await?;
                let mut again = Self { running, ..self };
                again.goes_on(why);
                Ok(Some(again))
            }
        }
    }

    fn goes_on(&mut self, why: String) {
        tracing::error!("no new process took the place of this one, which goes on: {why}");
        self.running.was_not_restarted(why);
    }
}

async fn start(settings: Settings, builtin: bool) -> Result<Running> {
    let Some(mut before) = Predecessor::waiting()? else {
        return Prepared::new(settings, builtin).await?.start().await;
    };
    let inheritance = before.until_it_leaves().await?;
    let prepared = Prepared::new(settings, builtin).await?;
    let running = prepared.start_after(inheritance).await?;
    running.open()?;
    before.serves_now().await;
    Ok(running)
}

fn successor_ends(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, rustix::process::Signal::TERM)) {
        tracing::error!(%error, "cannot end the new process");
    }
}

/// The node serves, and this is its process from now on. Without systemd, nobody hears of it.
fn tell_systemd() {
    let pid = std::process::id();
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready, NotifyState::MainPid(pid)]) {
        tracing::warn!(%error, "cannot tell systemd that the node serves");
    }
}

/// Starts the node again that was given over to a process that has ended.
async fn start_again(former: Former) -> Result<Running> {
    let running = former.start_again().await?;
    running.open()?;
    tokio::spawn(former.end(DRAIN));
    Ok(running)
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
