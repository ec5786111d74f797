//! One process of a service: started in a group of its own with limits, watched until it ends,
//! stopped with everything that it started.
//!
//! A process is meant to outlive the node that started it. The next node takes it over by its
//! [`ProcessId`]; what differs between a child and an adopted process stays in this module.

mod cgroup;
mod identity;
mod limits;
mod restart;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

pub use cgroup::{Cgroup, Cgroups};
pub use identity::{ProcessId, Tagged, with_variable};
pub use limits::Limits;
pub(crate) use restart::GOOD_RUN;
pub use restart::Restarts;

use identity::number;

/// What to start, and how.
#[derive(Debug)]
pub struct Launch {
    /// The program, looked up in PATH when it has no slash, and its arguments.
    pub command: Vec<String>,
    /// Variables set in addition to the node's own.
    pub env: BTreeMap<String, String>,
    /// Where it runs; the node's own folder when there is none.
    pub directory: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// The group that enforces the limits that the kernel has no limit per process for.
    pub cgroup: Option<Cgroup>,
    /// The file that its standard output is appended to.
    pub stdout: PathBuf,
    /// The file that its standard error is appended to.
    pub stderr: PathBuf,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not known: only its parent learns it, and that was an earlier node.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with {code}"),
            Exit::Signal(signal) => write!(f, "killed by {}", signal_name(*signal)),
            Exit::Unknown => f.write_str("ended, how is not known"),
        }
    }
}

/// The name of a signal, as `SIGKILL`.
fn signal_name(signal: i32) -> String {
    const NAMES: &[(Signal, &str)] = &[
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| known.as_raw() == signal)
        .map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).into())
}

/// A running process that the node watches. Dropping it leaves the process running.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    /// `None` when it was started by an earlier node.
    child: Option<Child>,
}

impl Process {
    /// Starts a process, as the leader of a group of its own.
    pub fn spawn(launch: Launch) -> io::Result<Self> {
        let Some((program, arguments)) = launch.command.split_first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the command is empty",
            ));
        };
        let mut command = Command::new(program);
        for name in not_inherited() {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .envs(&launch.env)
            .stdin(Stdio::null())
            .stdout(append_to(&launch.stdout)?)
            .stderr(append_to(&launch.stderr)?)
            .process_group(0);
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        limits::apply(&mut command, launch.limits, launch.cgroup);
        let child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        // A child is not reaped before it is waited for, so its entry is still there.
        let id = ProcessId::of(pid).unwrap_or_else(|| ProcessId::ended(pid));
        Ok(Self {
            id,
            child: Some(child),
        })
    }

    /// Takes over a process of an earlier node; `None` when it has ended.
    pub fn adopt(id: ProcessId) -> Option<Self> {
        id.is_alive().then_some(Self { id, child: None })
    }

    /// Who it is.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Whether an earlier node started it.
    pub fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Waits until it has ended. May be dropped and called again.
    pub async fn exited(&mut self) -> Exit {
        match &mut self.child {
            Some(child) => child.wait().await.map_or(Exit::Unknown, Exit::from),
            None => {
                self.id.ended_elsewhere().await;
                Exit::Unknown
            }
        }
    }

    /// Asks the process, not its children, to end.
    pub fn terminate(&self) {
        if let Some(pid) = self.signal_target() {
            // It may have ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends the process and all of its group at once. To be called also after the process has
    /// ended by itself, for what it left behind.
    pub fn kill_group(&self) {
        // A group's number is not given to a new process while the group has members.
        if let Some(pid) = number(self.id.pid).filter(|pid| *pid != Pid::INIT) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The process, unless its number may belong to another one by now.
    fn signal_target(&self) -> Option<Pid> {
        let pid = match &self.child {
            Some(child) => child.id(),
            None => self.id.is_alive().then_some(self.id.pid),
        };
        number(pid?)
    }
}

/// The node's own variables that a process gets only when they are meant for it: a port, which all
/// would want, who waits for the node, whom it tells that it serves, and where a database and its password are.
fn not_inherited() -> impl Iterator<Item = OsString> {
    let is_kept = |name: &OsString| {
        let name = name.to_string_lossy();
        ["PORT", "HYDRANT_PREDECESSOR", "NOTIFY_SOCKET"].contains(&&*name)
            || ["HYDRANT_RECORDS", "HYDRANT_OBJECTS"]
                .iter()
                .any(|own| name.starts_with(own))
    };
    std::env::vars_os().map(|(name, _)| name).filter(is_kept)
}

fn append_to(path: &PathBuf) -> io::Result<std::fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_read_as_people_say_them() {
        assert_eq!(Exit::Code(1).to_string(), "exited with 1");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Signal(63).to_string(), "killed by signal 63");
    }
}
