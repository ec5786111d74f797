use std::path::Path;
use std::time::Duration;

use hydrant_contracts::{Code, Error};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::Instant;

use crate::api::not_running;
use crate::cli::Global;
use crate::data::{self, RunningNode};
use crate::failure::{Failure, Result, system};
use crate::output::Output;

/// How long the new process may take until it serves.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Has the running node give its server over to a new process of the program that is installed now.
pub(crate) async fn run(global: &Global, output: &Output) -> Result<()> {
    let folder = data::folder(global.data.as_deref())?;
    let look = || data::running_node(&folder);
    let before = look()?.ok_or_else(|| not_running(&folder))?;
    ask(&before, &folder)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        let Some(now) = look()? else {
            return Err(not_running(&folder));
        };
        if now.pid != before.pid {
            return tell(&before, &now, output);
        }
        if let Some(why) = now.not_restarted.filter(|now| before.times() < now.times) {
            return Err(failed(&format!(
                "no new process took the place of process {}, which goes on: {}",
                before.pid, why.why
            )));
        }
    }
    Err(failed(&format!(
        "process {} has not given its server over in {} s",
        before.pid,
        PATIENCE.as_secs()
    )))
}

impl RunningNode {
    /// How often it could not be restarted.
    fn times(&self) -> u32 {
        self.not_restarted.as_ref().map_or(0, |not| not.times)
    }
}

fn ask(node: &RunningNode, folder: &Path) -> Result<()> {
    let pid = i32::try_from(node.pid).ok().and_then(Pid::from_raw);
    // The number of a node that was killed may be that of another program by now.
    let pid = pid.filter(|_| data::is_held(folder));
    let pid = pid.ok_or_else(|| not_running(folder))?;
    match kill_process(pid, Signal::USR2) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(not_running(folder)),
        Err(error) => Err(system(
            format!("process {} can't be asked", node.pid),
            &error.into(),
            "run as the user who started the node",
        )),
    }
}

fn tell(before: &RunningNode, now: &RunningNode, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&json!({ "before": before.pid, "now": now.pid }));
    }
    output.text(&format!(
        "process {} serves in the place of process {}, which lets its last requests end\n",
        now.pid, before.pid
    ))
}

fn failed(message: &str) -> Failure {
    Error::new(Code::Aborted, "not_restarted", message)
        .mend("see what the node printed, mend it, and try again")
        .into()
}
