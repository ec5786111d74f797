//! What a benchmark starts, and what it costs.

use std::fs;
use std::ops::Sub;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Result;

/// A process on some cores, as `taskset` names them; ended when it is dropped.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn start(cores: &str, command: &[String], port: u16) -> Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", cores])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command[0]))?;
        let mut process = Self(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.0.try_wait().is_ok_and(|status| status.is_some());
            if ended || begun.elapsed() > Duration::from_secs(20) {
                let command = command.join(" ");
                return Err(format!("`{command}` does not listen on port {port}"));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(process)
    }

    /// What it and its children have cost until now.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        let mut sum = Cpu::default();
        for process in self.family() {
            let (user, system) = ticks(process)?;
            sum.nanos += thread_nanos(process)?;
            sum.user += user;
            sum.system += system;
        }
        Ok(sum)
    }

    /// The memory that it and its children have in use, in bytes.
    pub(super) fn resident(&self) -> u64 {
        self.family().into_iter().map(resident).sum()
    }

    /// It and its children.
    pub(super) fn family(&self) -> Vec<u32> {
        family(self.0.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master ends its worker on SIGTERM; a SIGKILL would orphan it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// CPU time. The sum is exact, of the threads that live; how it is divided the system tells by samples.
#[derive(Clone, Copy, Default)]
pub(super) struct Cpu {
    nanos: u64,
    /// In hundredths of a second, as `system`.
    user: u64,
    system: u64,
}

impl Cpu {
    /// In microseconds: within the process, and within the kernel for it.
    pub(super) fn user_and_system(self) -> (f64, f64) {
        let all = self.nanos as f64 / 1000.0;
        let user = self.user as f64 / (self.user + self.system).max(1) as f64;
        (all * user, all * (1.0 - user))
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// CPU time of a process and those children of it that do its work, in nanoseconds, also of threads that have ended.
/// The services that a node supervises lead groups of their own, and count for themselves.
pub(super) fn family_nanos(parent: u32) -> Result<u64> {
    let all = family(parent).into_iter().map(ticks);
    all.map(|ticks| ticks.map(|(user, system)| (user + system) * 10_000_000))
        .sum()
}

/// CPU time of one process: user and system, in hundredths of a second.
fn ticks(process: u32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.map_err(|error| format!("process {process} has ended: {error}"))?;
    // Behind the name in brackets, counted from the state: proc_pid_stat(5).
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse);
    match (ticks.next(), ticks.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user, system)),
        _ => Err(format!("cannot read /proc/{process}/stat")),
    }
}

/// What the scheduler has given to the threads of a process.
fn thread_nanos(process: u32) -> Result<u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.map_err(|error| format!("process {process} has ended: {error}"))?;
    let nanos = threads.flatten().filter_map(|thread| {
        // One that ends at this moment counts no more.
        let told = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        told.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(nanos.sum())
}

/// As `VmRSS:     1234 kB`.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// A process and its children.
fn family(parent: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|id| id.parse().ok());
    let mut all = vec![parent];
    all.extend(children.filter(|child| !leads_a_group(*child)));
    all
}

fn leads_a_group(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name in brackets: the state, the parent, the group.
    let group = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(2));
    group.and_then(|group| group.parse().ok()) == Some(process)
}
