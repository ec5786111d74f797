//! `cargo xtask bench router`: our router beside nginx and HAProxy, on the same work.
//!
//! CPU time per request is what is compared, and only within one round: absolute figures drift by
//! a fifth between runs of a shared machine.

mod hydrant;
mod mobile;
mod submissions;
mod wrk;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use mobile::mobile;
pub use submissions::submissions;

type Result<T> = std::result::Result<T, String>;

/// One kind of work.
struct Work {
    name: &'static str,
    path: &'static str,
    connections: u32,
    post: bool,
}

const WORKS: [Work; 4] = [
    Work {
        name: "W1: GET 200 B, 64 connections",
        path: "small",
        connections: 64,
        post: false,
    },
    Work {
        name: "W2: GET 100 KB, 16 connections",
        path: "large",
        connections: 16,
        post: false,
    },
    Work {
        name: "W3: POST 10 KB, 64 connections",
        path: "post",
        connections: 64,
        post: true,
    },
    Work {
        name: "W4: GET 200 B, 1000 connections",
        path: "small",
        connections: 1000,
        post: false,
    },
];

const PEERS: [&str; 3] = ["hydrant", "nginx", "haproxy"];
const ROUNDS: usize = 5;
const SECONDS: u32 = 4;

/// Runs the benchmark and prints a table.
pub fn router(root: &Path) -> Result<()> {
    for tool in ["nginx", "haproxy", "wrk", "taskset"] {
        if which(tool).is_none() {
            return Err(format!(
                "`{tool}` is missing: install the system's package of that name"
            ));
        }
    }
    cargo_build(root, &["-p", "hydrant-router", "--example", "standalone"])?;
    let bench = Bench::start(root)?;
    for work in &WORKS {
        bench.measure(work)?;
    }
    Ok(())
}

/// Builds something for release.
fn cargo_build(root: &Path, what: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--release"])
        .args(what)
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let built = status.success().then_some(());
    built.ok_or_else(|| format!("`cargo build {}` failed", what.join(" ")))
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// The running processes of a benchmark, ended when it is dropped.
struct Bench {
    _backend: Process,
    proxies: Vec<(&'static str, Process, u16)>,
    post_script: PathBuf,
    _folder: Folder,
}

impl Bench {
    fn start(root: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        let templates = root.join("testing/bench");
        let www = folder.0.join("www");
        fs::create_dir_all(&www).map_err(|error| error.to_string())?;
        fs::write(www.join("large"), vec![b'x'; 100 * 1024]).map_err(|error| error.to_string())?;
        let backends = [free_port()?, free_port()?];
        let config = |name: &str, listen: u16| -> Result<PathBuf> {
            let text = fs::read_to_string(templates.join(name)).map_err(|e| e.to_string())?;
            let text = text
                .replace("{dir}", &folder.0.display().to_string())
                .replace("{backend1}", &backends[0].to_string())
                .replace("{backend2}", &backends[1].to_string())
                .replace("{listen}", &listen.to_string())
                .replace("{small}", &"x".repeat(200));
            let path = folder.0.join(name);
            fs::write(&path, text).map_err(|error| error.to_string())?;
            Ok(path)
        };
        let nginx = |path: PathBuf| vec!["nginx".into(), "-c".into(), path.display().to_string()];
        let backend = Process::start("1", &nginx(config("backend.conf", 0)?), backends[0])?;
        let mut proxies = Vec::new();
        for peer in PEERS {
            let listen = free_port()?;
            let command = match peer {
                "nginx" => nginx(config("nginx.conf", listen)?),
                "haproxy" => {
                    let path = config("haproxy.cfg", listen)?.display().to_string();
                    vec![
                        "haproxy".into(),
                        "-db".into(),
                        "-q".into(),
                        "-f".into(),
                        path,
                    ]
                }
                _ => {
                    let binary = target(root).join("release/examples/standalone");
                    let mut command = vec![binary.display().to_string(), listen.to_string()];
                    command.extend(backends.iter().map(u16::to_string));
                    command
                }
            };
            proxies.push((peer, Process::start("0", &command, listen)?, listen));
        }
        let post_script = templates.join("post.lua");
        Ok(Self {
            _backend: backend,
            proxies,
            post_script,
            _folder: folder,
        })
    }

    /// Interleaves the peers for some rounds, and prints medians and ratios.
    fn measure(&self, work: &Work) -> Result<()> {
        let mut micros = vec![Vec::new(); self.proxies.len()];
        for round in 0..=ROUNDS {
            for (index, (_, process, port)) in self.proxies.iter().enumerate() {
                let before = process.cpu_nanos()?;
                let requests = self.load(work, *port)?;
                let spent = process.cpu_nanos()? - before;
                // The first round warms up.
                if round > 0 {
                    micros[index].push(spent as f64 / 1000.0 / requests as f64);
                }
            }
        }
        println!("\n{}", work.name);
        println!(
            "{:<10} {:>16} {:>22}",
            "", "CPU µs/request", "ratio of ours to it"
        );
        for (index, (peer, ..)) in self.proxies.iter().enumerate() {
            let ratios = micros[0]
                .iter()
                .zip(&micros[index])
                .map(|(ours, theirs)| ours / theirs);
            let ratio = median(ratios.collect());
            println!(
                "{peer:<10} {:>16.1} {ratio:>22.2}",
                median(micros[index].clone())
            );
        }
        Ok(())
    }

    /// Loads a proxy for some seconds and returns how many requests it answered.
    fn load(&self, work: &Work, port: u16) -> Result<u64> {
        let mut command = Command::new("taskset");
        command.args(["-c", "1", "wrk", "-t1"]);
        command
            .arg(format!("-c{}", work.connections))
            .arg(format!("-d{SECONDS}s"));
        if work.post {
            command.arg("-s").arg(&self.post_script);
        }
        command.arg(format!("http://127.0.0.1:{port}/api/bench/{}", work.path));
        let output = command
            .output()
            .map_err(|error| format!("cannot run wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("Non-2xx") {
            return Err(format!("answers that are not 200:\n{text}"));
        }
        text.lines()
            .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
            .filter(|requests| *requests > 0)
            .ok_or_else(|| format!("wrk did not say how many requests it sent:\n{text}"))
    }
}

/// A process on some cores, as `taskset` names them; ended when it is dropped.
struct Process(Child);

impl Process {
    fn start(cores: &str, command: &[String], port: u16) -> Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", cores])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command[0]))?;
        let process = Self(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!(
                    "`{}` does not listen on port {port}",
                    command.join(" ")
                ));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(process)
    }

    /// CPU time of the process and its children, over all their threads, in nanoseconds.
    fn cpu_nanos(&self) -> Result<u64> {
        family_nanos(self.0.id())
    }
}

/// CPU time of a process and those children of it that do its work, in nanoseconds, also of threads that have ended.
/// The services that a node supervises lead groups of their own, and count for themselves.
fn family_nanos(parent: u32) -> Result<u64> {
    family(parent).into_iter().map(nanos).sum()
}

/// CPU time of one process: user and system, in hundredths of a second.
fn nanos(process: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.map_err(|error| format!("process {process} has ended: {error}"))?;
    // Behind the name in brackets, counted from the state: proc_pid_stat(5).
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(ticks * 10_000_000)
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master ends its worker on SIGTERM; a SIGKILL would orphan it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
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

/// A temporary folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("hydrant-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
