//! The binary as people get it, for benchmarks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Result, target};

/// The release binary on a data folder of its own.
pub(super) struct Hydrant {
    program: PathBuf,
    pub(super) data: PathBuf,
}

impl Hydrant {
    /// What was built, with its data in a folder.
    pub(super) fn new(root: &Path, data: PathBuf) -> Self {
        let program = target(root).join("release/hydrant");
        Self { program, data }
    }

    /// The command that starts all of it.
    pub(super) fn up(&self, public: u16, local: u16, more: &[String]) -> Vec<String> {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let program = self.program.display().to_string();
        let data = self.data.display().to_string();
        let arguments = ["up", "--data", &data, "--public"];
        let mut command: Vec<String> = vec![program];
        command.extend(arguments.map(str::to_owned));
        command.extend([at(public), "--local".into(), at(local)]);
        command.extend_from_slice(more);
        command
    }

    /// What a command says, as JSON.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["--json", "--data"])
            .arg(&self.data)
            .args(arguments)
            .output();
        let output = output.map_err(|error| format!("cannot run hydrant: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let told = String::from_utf8_lossy(&output.stderr);
        Err(format!("hydrant {}: {told}", arguments.join(" ")))
    }

    /// The processes of a service, all of them ready.
    pub(super) fn processes(&self, service: &str) -> Result<Vec<(u32, u16)>> {
        let listed: Value = read(&self.run(&["list", service])?)?;
        let all = listed["instances"].as_array().cloned().unwrap_or_default();
        let all: Result<Vec<_>> = all.iter().map(ready).collect();
        all.and_then(|all| match all.is_empty() {
            true => Err(format!("there is no process of {service}")),
            false => Ok(all),
        })
    }

    /// The only process of a service, and its port.
    pub(super) fn one(&self, service: &str) -> Result<(u32, u16)> {
        match self.processes(service)?[..] {
            [one] => Ok(one),
            ref all => Err(format!("{} processes of {service}", all.len())),
        }
    }
}

fn ready(instance: &Value) -> Result<(u32, u16)> {
    let port = instance["address"]
        .as_str()
        .and_then(|address| address.rsplit(':').next()?.parse().ok());
    match (instance["pid"].as_u64(), port) {
        (Some(pid), Some(port)) if instance["state"] == "ready" => Ok((pid as u32, port)),
        _ => Err(format!("an instance is not ready: {instance}")),
    }
}

/// JSON.
pub(super) fn read(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

/// Tries for a while: what was just started may not be there yet.
pub(super) fn again<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => hydrant_harness::pause(Duration::from_millis(200)),
            other => return other,
        }
    }
}
