use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// How often a process that is not our child is looked at where the kernel can't tell its end.
const POLL: Duration = Duration::from_millis(200);

/// Which process it is. Its number alone may belong to another one later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number, which is also that of its group.
    pub pid: u32,
    /// When it started, in a form that only compares.
    pub start: String,
}

impl ProcessId {
    /// The process that has this number now; `None` when none has, or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start: start_time(pid)?,
        })
    }

    /// A process of this number that has ended before it could be looked at.
    pub(super) fn ended(pid: u32) -> Self {
        Self {
            pid,
            start: String::new(),
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|start| start == self.start)
    }

    /// Waits until it has ended, for a process that is not our child.
    pub(super) async fn ended_elsewhere(&self) {
        if let Some(handle) = handle(self.pid) {
            // The handle is of whoever has the number now.
            if !self.is_alive() || handle.readable().await.is_ok() {
                return;
            }
        }
        while self.is_alive() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The number as the kernel takes it; `None` for 0 and what no process can have.
pub(super) fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// A descriptor that becomes readable when the process ends.
#[cfg(target_os = "linux")]
fn handle(pid: u32) -> Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use rustix::process::{PidfdFlags, pidfd_open};
    use tokio::io::{Interest, unix::AsyncFd};
    let handle = pidfd_open(number(pid)?, PidfdFlags::NONBLOCK).ok()?;
    // SAFETY: the descriptor is owned, so it stays open until the AsyncFd is dropped with it.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.ok()
}

#[cfg(not(target_os = "linux"))]
fn handle(_pid: u32) -> Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    None
}

/// When the process started: clock ticks since the machine did, and which start of the machine.
#[cfg(target_os = "linux")]
fn start_time(pid: u32) -> Option<String> {
    number(pid)?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = start_ticks(&stat)?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{ticks}@{}", boot.trim()))
}

/// Field 22 of a `stat` line; `None` for a process that has ended and waits for its parent.
#[cfg(target_os = "linux")]
fn start_ticks(stat: &str) -> Option<u64> {
    // The name, field 2, is in brackets and may hold anything, brackets too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn start_time(pid: u32) -> Option<String> {
    number(pid)?;
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let (state, start) = line.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| start.trim().into())
}

/// A process that was found by a variable of its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// What the variable says.
    pub value: String,
    /// The process.
    pub id: ProcessId,
    /// It leads its process group.
    pub leader: bool,
}

impl Tagged {
    /// Ends it at once.
    pub fn kill(&self) {
        if let Some(pid) = number(self.id.pid).filter(|_| self.id.is_alive()) {
            // It may have ended in this moment.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The other processes that were started with the variable `name`, the oldest numbers first.
///
/// It finds what a node started and died before it could note its number. Linux only, and only
/// processes of the same user; elsewhere it finds none.
#[cfg(target_os = "linux")]
pub fn with_variable(name: &str) -> Vec<Tagged> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| *pid != std::process::id())
        .filter_map(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            Some(Tagged {
                value: variable(&environment, name)?,
                id: ProcessId::of(pid)?,
                leader: is_group_leader(pid),
            })
        })
        .collect();
    found.sort_by_key(|tagged| tagged.id.pid);
    found
}

#[cfg(not(target_os = "linux"))]
pub fn with_variable(_name: &str) -> Vec<Tagged> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn is_group_leader(pid: u32) -> bool {
    let pid = number(pid);
    pid.is_some() && rustix::process::getpgid(pid).ok() == pid
}

#[cfg(target_os = "linux")]
fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .and_then(|value| String::from_utf8(value.to_vec()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        let other = ProcessId {
            start: "1@x".into(),
            ..own
        };
        assert!(!other.is_alive());
        assert_eq!(ProcessId::of(0), None);
        assert_eq!(ProcessId::of(u32::MAX), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line = |state| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 8 9 18446744073")
        };
        assert_eq!(start_ticks(&line("S")), Some(4711));
        assert_eq!(start_ticks(&line("Z")), None);
        assert_eq!(start_ticks("7 (a"), None);
        assert_eq!(start_ticks(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"XHYDRANT_INSTANCE=no\0HYDRANT_INSTANCE=a-1\0PATH=/bin\0";
        assert_eq!(
            variable(environment, "HYDRANT_INSTANCE").as_deref(),
            Some("a-1")
        );
        assert_eq!(variable(environment, "HYDRANT"), None);
    }
}
