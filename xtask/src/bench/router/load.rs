//! Who asks, and how often it was answered.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Result;
use super::peers::{Peer, example, scripts};
use crate::bench::{which, wrk};

/// The core of the proxy that is measured, and of everything else.
pub(super) const CORES: (&str, &str) = ("0", "1");
/// Of HTTP/2: connections, and requests of each at the same time.
const HTTP2: (&str, &str) = ("-c16", "-m8");

#[derive(Clone, Copy)]
pub(super) enum Load {
    /// By wrk, on connections that are kept if the script does not close them.
    Http1 {
        path: &'static str,
        connections: u32,
        script: Option<&'static str>,
    },
    /// By h2load, with prior knowledge; a body makes it a call by gRPC.
    Http2 {
        path: &'static str,
        body: Option<&'static str>,
    },
    /// One message after the other on each WebSocket.
    Echo { connections: u32 },
}

impl Load {
    pub(super) const fn get(path: &'static str, connections: u32) -> Self {
        Self::Http1 {
            path,
            connections,
            script: None,
        }
    }

    pub(super) const fn script(path: &'static str, connections: u32, script: &'static str) -> Self {
        Self::Http1 {
            path,
            connections,
            script: Some(script),
        }
    }

    /// Loads a proxy for some seconds and returns how many requests it answered.
    pub(super) fn run(self, root: &Path, peer: &Peer, seconds: u32) -> Result<u64> {
        let command = self.command(root, peer, seconds);
        let (told, _) = output(Command::new("taskset").args(["-c", CORES.1]).args(command))?;
        self.read(&told)
    }

    /// How many system calls a request makes the proxy do.
    pub(super) fn calls(self, root: &Path, peer: &Peer, seconds: u32) -> Result<f64> {
        let family: Vec<_> = peer.process.family().iter().map(u32::to_string).collect();
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", CALLS, "-p", &family.join(",")])
            .args(["taskset", "-c", CORES.1])
            .args(self.command(root, peer, seconds));
        let (told, counted) = output(&mut perf)?;
        let calls = counted.lines().find_map(|line| {
            let (count, rest) = line.split_once(',')?;
            rest.contains(CALLS).then(|| count.parse::<u64>().ok())?
        });
        let calls = calls.ok_or_else(|| format!("perf did not count: {counted}"))?;
        Ok(calls as f64 / self.read(&told)? as f64)
    }

    fn command(self, root: &Path, peer: &Peer, seconds: u32) -> Vec<String> {
        let Peer { port, http2, .. } = peer;
        let words: Vec<String> = match self {
            Self::Http1 {
                path,
                connections,
                script,
            } => {
                let script = script.map(|name| scripts(root).join(name).display().to_string());
                let mut words: Vec<_> = ["wrk", "-t1"].map(str::to_owned).into();
                words.extend([format!("-c{connections}"), format!("-d{seconds}s")]);
                words.extend(script.map(|script| format!("-s{script}")));
                words.push(format!("http://127.0.0.1:{port}/api/bench/{path}"));
                words
            }
            Self::Http2 { path, body } => {
                let mut words: Vec<_> = ["h2load", "-t1", HTTP2.0, HTTP2.1]
                    .map(str::to_owned)
                    .into();
                words.push(format!("-D{seconds}"));
                if let Some(body) = body {
                    let body = peer.www.join(body).display().to_string();
                    words.extend(["-d".into(), body]);
                    words.extend(
                        ["-Hte: trailers", "-Hcontent-type: application/grpc"].map(str::to_owned),
                    );
                }
                words.push(format!("http://127.0.0.1:{http2}/api/{path}"));
                words
            }
            Self::Echo { connections } => {
                let program = example(root, "echo").display().to_string();
                let numbers =
                    [u32::from(*port), connections, seconds].map(|number| number.to_string());
                [program, "load".into()]
                    .into_iter()
                    .chain(numbers)
                    .collect()
            }
        };
        words
    }

    /// How many requests were answered, if all were answered well.
    fn read(self, told: &str) -> Result<u64> {
        match self {
            Self::Http1 { .. } if told.contains("Non-2xx") => {
                Err(format!("answers that are not 200:\n{told}"))
            }
            Self::Http1 { .. } => wrk::requests(told),
            Self::Http2 { .. } => succeeded(told),
            Self::Echo { .. } => {
                let count = told.trim().parse().ok().filter(|count| *count > 0);
                count.ok_or_else(|| format!("no message came back: {told}"))
            }
        }
    }
}

/// Of h2load: `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, …`.
fn succeeded(told: &str) -> Result<u64> {
    let line = told.lines().find(|line| line.starts_with("requests: "));
    let count = |what: &str| {
        let part = line?.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse::<u64>().ok()
    };
    match (count(" succeeded"), count(" failed")) {
        (Some(good @ 1..), Some(0)) => Ok(good),
        _ => Err(format!("answers that are not good:\n{told}")),
    }
}

fn output(command: &mut Command) -> Result<(String, String)> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run the load: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    match output.status.success() {
        true => Ok((told, errors)),
        false => Err(format!("{:?} failed: {errors}", command.get_program())),
    }
}

/// What the kernel counts system calls by.
const CALLS: &str = "raw_syscalls:sys_enter";

/// Whether system calls can be counted here; says so aloud when not.
pub(super) fn counts_calls() -> bool {
    let perf = which("perf").unwrap_or_else(|| PathBuf::from("perf"));
    let tried = Command::new(perf)
        .args(["stat", "-x,", "-e", CALLS, "true"])
        .output();
    let counts = tried.is_ok_and(|output| output.status.success());
    if !counts {
        hydrant_harness::skipped("system calls are not counted: `perf stat` can't do it here");
    }
    counts
}

/// Moves this process off the core that is measured, and lets it and its children have as many files open as
/// the system gives.
pub(super) fn prepare() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).map_err(|error| error.to_string())?;
    let mut cores = CpuSet::new();
    cores.set(1);
    sched_setaffinity(None, &cores).map_err(|error| format!("two cores are needed: {error}"))
}

/// How many files a process may have open here.
pub(super) fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_tells_is_read() {
        let told = |failed| {
            format!(
                "requests: 12 total, 13 started, 12 done, 12 succeeded, {failed} failed, 0 errored\n"
            )
        };
        assert_eq!(succeeded(&told(0)), Ok(12));
        assert!(succeeded(&told(1)).is_err());
        assert!(succeeded("").is_err());
    }
}
