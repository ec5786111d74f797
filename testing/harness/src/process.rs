//! A server's process: it can be killed, frozen and started again, and its output is kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::MARK;

/// How much of a log a panic shows.
const SHOWN: usize = 4_000;

/// A process that is started, ended and started again with the same arguments. Dropped, it is
/// gone.
pub struct Process {
    name: String,
    program: String,
    arguments: Vec<String>,
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// Describes a process that works in `folder`; its output is appended to `NAME.log` there.
    pub fn new(name: &str, folder: &Path, program: &str, arguments: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            folder: folder.to_owned(),
            state: Mutex::new(State {
                child: None,
                paused: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, if it does not run.
    pub fn start(&self) {
        let mut state = self.state();
        if state.child.is_some() {
            return;
        }
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(self.log_path())
                .expect("a file for the output")
        };
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .env(MARK, &self.folder)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.program));
        state.child = Some(child);
        state.paused = false;
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut state = self.state();
        if let Some(mut child) = state.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        state.paused = false;
    }

    /// Freezes it: its connections stay open, and it answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        self.state().paused = true;
    }

    /// Lets a frozen one go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.state().paused = false;
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.state().child {
            kill(child.id(), signal);
        }
    }

    /// Whether it has been started and not been killed; it may have ended by itself, which
    /// [`Process::check`] tells.
    pub fn is_up(&self) -> bool {
        self.state().child.is_some()
    }

    /// Whether it runs, and is not frozen.
    pub fn is_active(&self) -> bool {
        let state = self.state();
        state.child.is_some() && !state.paused
    }

    /// Its number, while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.state().child.as_ref().map(Child::id)
    }

    /// The processes that it has started.
    pub fn children(&self) -> Vec<u32> {
        let Some(pid) = self.pid() else {
            return Vec::new();
        };
        let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let listed = listed.unwrap_or_default();
        let pids = listed.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.collect()
    }

    /// Panics with the log when it has ended by itself.
    pub fn check(&self) {
        let ended = match &mut self.state().child {
            Some(child) => child.try_wait().expect("the process can be awaited"),
            None => None,
        };
        if let Some(status) = ended {
            panic!("{} ended: {status}\n{}", self.name, self.tail());
        }
    }

    /// Where its output is.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of its log, under the log's path.
    pub fn tail(&self) -> String {
        let log = self.log();
        let mut start = log.len().saturating_sub(SHOWN);
        while !log.is_char_boundary(start) {
            start += 1;
        }
        format!("{}:\n{}", self.log_path().display(), &log[start..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of {}", self.tail());
        }
        self.kill();
    }
}

/// Sends a process a signal; one that is gone already is no failure.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), signal);
}
