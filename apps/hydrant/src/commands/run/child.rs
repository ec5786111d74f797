use std::io;
use std::process::Stdio;
use std::time::Duration;

use hydrant_node::process::Exit;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use super::node::Node;
use super::plan::Plan;

/// The server. It leads a group of its own, so that Ctrl-C at a terminal reaches this process
/// alone, which first drains. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    group: Option<Pid>,
}

impl Child {
    pub(super) fn spawn(plan: &Plan, node: &Node) -> io::Result<Self> {
        let mut command = Command::new(&plan.command[0]);
        command
            .args(&plan.command[1..])
            .env("PORT", plan.port.to_string())
            .env("HYDRANT_URL", &node.url)
            .env("HYDRANT_TOKEN", &node.token)
            .env("HYDRANT_INSTANCE", plan.instance.as_str())
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(url) = &node.public_url {
            command.env("HYDRANT_PUBLIC_URL", url);
        }
        die_with_this_process(&mut command);
        let process = command.spawn()?;
        let group = process.id().and_then(|pid| Pid::from_raw(pid as i32));
        Ok(Self { process, group })
    }

    /// Waits until it has ended, and tells how. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> String {
        let exit = self.process.wait().await;
        exit.map_or(Exit::Unknown, Exit::from).to_string()
    }

    /// SIGTERM, then after `limit` SIGKILL.
    pub(super) async fn stop(mut self, limit: Duration) {
        if let Some(pid) = self.process.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            // It may have ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(limit, self.process.wait()).await.is_err() {
            super::say("the server did not stop in time: killed");
        }
        self.kill_group();
        let _ = self.process.wait().await;
    }

    /// Ends it, and all that it started in its group, at once.
    pub(super) fn kill_group(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// The kernel kills the server when this process is killed, which then can't do it itself.
///
/// It counts the end of the thread that starts the server as the end of the parent: this process
/// has to work on its main thread alone.
#[cfg(target_os = "linux")]
fn die_with_this_process(command: &mut Command) {
    use rustix::process::{getppid, set_parent_process_death_signal};
    let parent = Pid::from_raw(std::process::id() as i32);
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != parent {
            return Err(io::Error::from(rustix::io::Errno::CHILD));
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only what a signal handler may do is
    // sound: it makes two plain system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(in_child) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_process(_command: &mut Command) {}
