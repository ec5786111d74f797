//! `hydrant run` without a node: the server never outlives it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// `hydrant run` of a shell that notes its process id and then sleeps; the node never answers.
fn run(folder: &Path, grace: &str) -> (Child, Pid) {
    let note = folder.join("pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        note.display()
    );
    let shim = Command::new(env!("CARGO_BIN_EXE_hydrant"))
        .args(["run", "--service", "sleeper", "--version", "1.0.0"])
        .args(["--grace", grace, "--", "sh", "-c", &script])
        .env("HYDRANT_URL", "http://127.0.0.1:9")
        .env("HYDRANT_TOKEN", "none")
        .env("HYDRANT_DATA", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(|| note.exists());
    let pid = std::fs::read_to_string(note).unwrap();
    (shim, Pid::from_raw(pid.trim().parse().unwrap()).unwrap())
}

fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

/// Whether the process runs; one that only waits for its parent to notice does not.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    match stat {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) if Path::new("/proc/self").exists() => false,
        Err(_) => test_kill_process(pid).is_ok(),
    }
}

#[test]
fn the_server_ends_when_the_node_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shim, server) = run(folder.path(), "1s");
    assert_eq!(shim.wait().unwrap().code(), Some(5));
    assert!(!runs(server));
}

#[test]
fn the_server_is_stopped_before_its_shim_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shim, server) = run(folder.path(), "60s");
    let pid = Pid::from_raw(shim.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(shim.wait().unwrap().code(), Some(0));
    assert!(!runs(server));
}

#[cfg(target_os = "linux")]
#[test]
fn the_server_is_killed_with_its_shim() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shim, server) = run(folder.path(), "60s");
    assert!(runs(server));
    shim.kill().unwrap();
    shim.wait().unwrap();
    until(|| !runs(server));
}
