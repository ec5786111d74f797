//! Clients of npm and PyPI over a line that is cut every 2 MB.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hydrant_harness::Proxy;

use super::*;
use crate::foreign;
use crate::harness::{Setup, is_soak, seed};

const MB: usize = 1_000_000;
/// How much a process may grow by an upload, in KiB: the pieces that are under way, and what the allocator
/// keeps. Five times what is seen.
const GROWTH: u64 = 320 * 1024;

#[test]
fn tus_js_client_uploads_over_a_line_that_is_cut_every_2_mb() {
    let Some(scripts) = foreign::npm() else {
        return;
    };
    let script = scripts.join("tus.mjs");
    upload_with("tus-js-client", |endpoint, file| {
        let mut command = Command::new("node");
        command.arg(&script).arg(endpoint).arg(file);
        command
    });
}

#[test]
fn tus_js_client_uploads_parts_side_by_side_over_such_a_line() {
    let Some(scripts) = foreign::npm() else {
        return;
    };
    let script = scripts.join("tus.mjs");
    upload_with("tus-js-client, 4 parts", |endpoint, file| {
        let mut command = Command::new("node");
        command.arg(&script).arg(endpoint).arg(file).arg("4");
        command
    });
}

#[test]
fn tuspy_uploads_over_a_line_that_is_cut_every_2_mb() {
    let Some(scripts) = foreign::pypi() else {
        return;
    };
    upload_with("tuspy", |endpoint, file| {
        let mut command = Command::new("python3");
        command
            .arg(scripts.join("tus_client.py"))
            .arg(endpoint)
            .arg(file)
            .args(["100000000", "no"])
            .env("PYTHONPATH", &scripts);
        command
    });
}

#[test]
fn tuspy_uploads_chunks_with_checksums_over_such_a_line() {
    let Some(scripts) = foreign::pypi() else {
        return;
    };
    upload_with("tuspy with checksums", |endpoint, file| {
        let mut command = Command::new("python3");
        command
            .arg(scripts.join("tus_client.py"))
            .arg(endpoint)
            .arg(file)
            .args(["1500000", "yes"])
            .env("PYTHONPATH", &scripts);
        command
    });
}

fn upload_with(name: &str, client: impl Fn(&str, &std::path::Path) -> Command) {
    let counter = Counter::new(Setup::up().start());
    let size = if is_soak() { 100 * MB } else { 10 * MB };
    let all = bytes(size, seed());
    let line = Proxy::start(counter.node.public());
    line.reset_after(2 * MB as u64);
    let file = counter.file(&all);
    let watch = Watch::start(&counter.node);
    let begun = Instant::now();
    let mut command = client(&counter.endpoint(line.address()), &file);
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!(
        "{name}: {} MB in {:?}, the line was cut {} times, {} retries",
        size / MB,
        begun.elapsed(),
        line.resets(),
        told["retries"]
    );
    watch.end(name);
    assert!(
        line.resets() >= (size / MB / 2 - 1) as u64 / 2,
        "the line was cut"
    );
    let listed = counter.listed();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["size"], size);
    assert_eq!(listed[0]["name"], "picture.png");
    let url = told["url"].as_str().expect("a URL");
    let fetched = counter.fetch(url, &counter.token());
    assert_eq!(fetched.status, 200);
    assert!(fetched.body == all, "these are other bytes");
    let sha256 = listed[0]["sha256"].as_str().expect("a hash");
    assert_eq!(fetched.header("etag"), format!("\"{sha256}\""));
    assert_eq!(
        counter
            .ask(Method::POST, &format!("{}/submit", counter.path), &[], b"")
            .status
            .as_u16()
            / 100,
        2
    );
}

/// Looks at the memory of the node and of the services of submissions.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Process>>>,
    thread: std::thread::JoinHandle<()>,
}

struct Process {
    name: String,
    pid: u32,
    before: u64,
    most: u64,
}

impl Watch {
    fn start(node: &Node) -> Self {
        let mut all = vec![("node".to_owned(), node.pid())];
        for service in ["api/submissions", "service/submissions"] {
            for instance in node.instances(service) {
                all.push((
                    service.to_owned(),
                    instance["pid"].as_u64().unwrap_or_default() as u32,
                ));
            }
        }
        let seen = all.into_iter().map(|(name, pid)| Process {
            before: memory(pid),
            most: 0,
            name,
            pid,
        });
        let seen = Arc::new(Mutex::new(seen.collect::<Vec<_>>()));
        let stop = Arc::new(AtomicBool::new(false));
        let (to_look, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for process in to_look.lock().expect("no panic").iter_mut() {
                    process.most = process.most.max(memory(process.pid));
                }
                hydrant_harness::pause(Duration::from_millis(50));
            }
        });
        Self { stop, seen, thread }
    }

    fn end(self, name: &str) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it looks only");
        for process in self.seen.lock().expect("no panic").iter() {
            let Process {
                name: which,
                before,
                most,
                ..
            } = process;
            println!(
                "{name}: memory of {which}: {} MiB, at most {} MiB",
                before / 1024,
                most / 1024
            );
            assert!(
                *before > 0 && most.saturating_sub(*before) < GROWTH,
                "{which} grows"
            );
        }
    }
}

/// What a process has in memory, in KiB; 0 when it is gone.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
