//! What a request costs the router in system calls, which nearly all of its CPU time goes into.
//! They are counted, not timed, so that a busy machine changes nothing; one call more in twenty
//! fails.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hydrant_router::Limits;

use crate::raw::{Backend, PATIENCE, ok, pause, router_with};

/// Where the router's process sends requests to, and where it writes its own address.
const BACKEND: &str = "COST_TEST_BACKEND";
const ADDRESS_FILE: &str = "COST_TEST_ADDRESS_FILE";

/// What is allowed above the figure that is known.
const GROWTH: f64 = 1.05;
/// To wait for the client, read and send; to wait for the instance, read and send.
const KNOWN: f64 = 6.0;
const FEW: u32 = 200;
const MANY: u32 = 1_200;

/// The router by itself; does nothing when it is not started by a test of this module.
#[test]
fn process() {
    let (Ok(backend), Ok(file)) = (std::env::var(BACKEND), std::env::var(ADDRESS_FILE)) else {
        return;
    };
    let router = router_with(Limits::default(), 1, &[backend.parse().unwrap()]);
    let unfinished = format!("{file}.new");
    std::fs::write(&unfinished, router.public_addr().to_string()).unwrap();
    std::fs::rename(unfinished, file).unwrap();
    // It ends with the test that started it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn a_get_over_http1_takes_few_system_calls() {
    check("GET of 200 B over HTTP/1.1", &["--h1"], KNOWN);
}

#[test]
fn a_post_of_10_kb_over_http1_takes_few_system_calls() {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, vec![b'x'; 10_000]).unwrap();
    let body = format!("--data={}", body.display());
    check("POST of 10 KB over HTTP/1.1", &["--h1", &body], KNOWN);
}

#[test]
fn a_get_over_http2_takes_few_system_calls() {
    check("GET of 200 B over HTTP/2", &[], KNOWN);
}

/// What a request takes, of those that one client sends one after the other: the difference of
/// two runs, so that what starts and ends the router is left out.
fn check(what: &str, client: &[&str], known: f64) {
    for tool in ["strace", "h2load"] {
        if !hydrant_harness::is_there(tool) {
            return hydrant_harness::skipped(format!("`{tool}` is missing"));
        }
    }
    let (few, many) = (calls(client, FEW), calls(client, MANY));
    let requests = f64::from(MANY - FEW);
    let per_request = |name: &str, count: u64| {
        (count as f64 - few.get(name).copied().unwrap_or(0) as f64) / requests
    };
    let each = many
        .iter()
        .map(|(name, count)| (name, per_request(name, *count)));
    let each: Vec<_> = each.filter(|(_, calls)| *calls > 0.01).collect();
    let all: f64 = each.iter().map(|(_, calls)| calls).sum();
    let told: Vec<_> = each
        .iter()
        .map(|(name, calls)| format!("{name} {calls:.2}"))
        .collect();
    println!("{what}: {all:.2} system calls ({})", told.join(", "));
    assert!(
        all <= known * GROWTH,
        "{what}: {all:.2} system calls, known are {known} ({})",
        told.join(", ")
    );
}

/// The system calls of a router that serves so many requests, by their names.
fn calls(client: &[&str], requests: u32) -> BTreeMap<String, u64> {
    let answer = ok(&[b'x'; 200]);
    let backend =
        Backend::start(
            move |mut wire, _| {
                while wire.message(false).is_some() && wire.try_send(&answer).is_ok() {}
            },
        );
    let folder = tempfile::tempdir().unwrap();
    let mut traced = Traced::start(folder.path(), backend.address);
    let url = format!("http://{}/api/t/", traced.address(folder.path()));
    let load = Command::new("h2load")
        .args(["-c1", "-m1", "-t1", "-n", &requests.to_string()])
        .args(client)
        .arg(url)
        .output()
        .expect("h2load starts");
    let said = String::from_utf8_lossy(&load.stdout);
    let all_well = format!("status codes: {requests} 2xx");
    assert!(said.contains(&all_well), "{said}");
    traced.end();
    counted(&std::fs::read_to_string(folder.path().join("calls")).unwrap())
}

/// The lines of a summary: the name of a call, and how often it was made.
fn counted(summary: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, calls) = line.split_once(' ')?;
        Some((name.to_owned(), calls.trim().parse().ok()?))
    };
    let mut counted: BTreeMap<_, _> = summary.lines().filter_map(line).collect();
    counted.remove("total");
    counted
}

/// A router whose system calls are counted.
struct Traced(Child);

impl Traced {
    fn start(folder: &Path, backend: SocketAddr) -> Self {
        let this = std::env::current_exe().expect("the path of this binary");
        let child = Command::new("strace")
            .args(["-f", "-qq", "-c", "-U", "name,calls", "-o"])
            .arg(folder.join("calls"))
            .arg(this)
            .args(["--exact", "cost::process", "--nocapture"])
            .env(BACKEND, backend.to_string())
            .env(ADDRESS_FILE, folder.join("address"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("strace starts"))
    }

    fn address(&mut self, folder: &Path) -> String {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(address) = std::fs::read_to_string(folder.join("address")) {
                return address;
            }
            let ended = self.0.try_wait().expect("a child");
            assert!(ended.is_none(), "the router ended: {ended:?}");
            assert!(std::time::Instant::now() < end, "the router starts");
            pause(std::time::Duration::from_millis(10));
        }
    }

    /// The summary is written when the router has ended.
    fn end(&mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait().expect("a child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It ends by itself, as its input does.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
