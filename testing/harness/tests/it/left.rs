//! Nothing is left behind: not by a value that is dropped, not by a test that panics, not by a
//! test process that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hydrant_harness::netns::Network;
use hydrant_harness::redis::{Options, Redis};
use hydrant_harness::{marked, skipped, wait_until};

/// Set in the process that is to be killed: where it tells what it has started.
const VICTIM: &str = "HYDRANT_TEST_VICTIM";

#[test]
fn a_panic_leaves_nothing() {
    let redis = match Redis::single(Options::default()) {
        Ok(redis) => redis,
        Err(missing) => return skipped(missing),
    };
    let folder = redis.folder().to_owned();
    assert_eq!(marked(&folder).len(), 1);
    let panicked = std::thread::spawn(move || {
        let _redis = redis;
        panic!("as a test does that fails");
    });
    assert!(panicked.join().is_err());
    assert_eq!(marked(&folder), Vec::<u32>::new());
    assert!(!folder.exists());
}

#[test]
fn a_killed_test_process_leaves_nothing() {
    let told = tempfile::NamedTempFile::new().expect("a file");
    let mut victim = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "left::victim"])
        .env(VICTIM, told.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program starts");
    let patience = Duration::from_secs(60);
    let read = || fs::read_to_string(told.path()).unwrap_or_default();
    let ended = wait_until(patience, || {
        read().ends_with('\n') || victim.try_wait().is_ok_and(|status| status.is_some())
    });
    assert!(ended, "it does not start its server");
    let told = read();
    let Some((folder, rest)) = told.split_once('\n') else {
        return skipped("the other process has not started a server");
    };
    let folder = PathBuf::from(folder);
    assert_eq!(marked(&folder).len(), 1, "it runs");
    victim.kill().expect("it can be killed");
    victim.wait().expect("it can be awaited");
    assert!(
        wait_until(patience, || marked(&folder).is_empty()),
        "its server is gone"
    );
    let base = folder.parent().expect("the process's folder");
    assert!(
        wait_until(patience, || !base.exists()),
        "its folder is gone"
    );
    if let Some(namespace) = rest.lines().next() {
        let file = Path::new("/run/netns").join(namespace);
        assert!(!file.exists(), "its network is gone");
    }
}

/// What the test above kills: it starts servers, tells so, and waits.
#[test]
fn victim() {
    let Some(told) = std::env::var_os(VICTIM) else {
        return;
    };
    let Ok(redis) = Redis::single(Options::default()) else {
        return;
    };
    let network = Network::start(1);
    let namespace = network
        .iter()
        .filter_map(|network| network.hosts()[0].name());
    let text = format!(
        "{}\n{}\n",
        redis.folder().display(),
        namespace.collect::<String>()
    );
    fs::write(told, text).expect("the file can be written");
    // Until it is killed, or the test above has failed.
    let _ = std::io::stdin().read_line(&mut String::new());
}
