//! Starts the real servers that tests talk to, and our own nodes, on one machine.
//!
//! Everything is synchronous and has its own threads and processes, so that it can be used from a
//! plain test and from within any runtime alike. Whatever is started ends when its value is
//! dropped, also after a panic; what a killed test process leaves, its [`janitor`] ends.

mod carbon;
mod certificates;
pub mod foreign;
pub mod galera;
mod janitor;
pub mod mariadb;
pub mod netns;
pub mod node;
mod port;
mod process;
mod proxy;
pub mod redis;
mod reverse_proxy;
pub mod seaweedfs;
mod secondary;
mod sshd;
mod wiremock;
pub mod zookeeper;

use std::fmt;
use std::time::{Duration, Instant};

pub use carbon::Carbon;
pub use certificates::Certificates;
pub use galera::Galera;
pub use janitor::{MARK, folder, marked};
pub use mariadb::MariaDb;
pub use process::{Process, kill};
pub use proxy::Proxy;
pub use redis::Redis;
pub use reverse_proxy::ReverseProxy;
pub use seaweedfs::SeaweedFs;
pub use sshd::Sshd;
pub use wiremock::WireMock;
pub use zookeeper::ZooKeeper;

/// How long a server may take to be ready on a busy machine.
pub const READY: Duration = Duration::from_secs(60);

/// Something that this machine lacks, and how to mend it: a reason to skip a test.
#[derive(Debug, Clone)]
pub struct Missing(String);

impl Missing {
    pub(crate) fn program(program: &str, package: &str) -> Self {
        Self(format!(
            "`{program}` is not here; install the system's package `{package}`"
        ))
    }

    pub(crate) fn because(reason: String) -> Self {
        Self(reason)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Says aloud that a test is skipped. The test returns after it.
pub fn skipped(reason: impl fmt::Display) {
    println!("SKIPPED: {reason}");
}

/// Whether the long forms of the tests run.
pub fn is_soak() -> bool {
    std::env::var_os("HYDRANT_SOAK").is_some()
}

/// Where chance begins: at `HYDRANT_SEED`, which runs a failure again; else anywhere in a long run, and
/// at the same place in a short one, which says something about a change only when it can be run
/// again. Prints it.
pub fn seed() -> u64 {
    let seed = match std::env::var("HYDRANT_SEED") {
        Ok(given) => given.parse().expect("HYDRANT_SEED is a number"),
        Err(_) if is_soak() => fastrand::u64(..),
        Err(_) => 1,
    };
    println!("HYDRANT_SEED={seed}");
    seed
}

/// What drives the clients of a test that is itself synchronous, also while the test does something else.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.expect("the system gives threads")
}

/// Whether a program is on this machine.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    // The folders of the system's administrator are not on everybody's path.
    let mut folders = folders.chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.any(|folder| folder.join(program).is_file())
}

fn require(program: &str, package: &str) -> Result<(), Missing> {
    if is_there(program) {
        Ok(())
    } else {
        Err(Missing::program(program, package))
    }
}

/// Waits until `ready` says so, `time` at most; tells whether it did.
pub fn wait_until(time: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !ready() {
        if Instant::now() > end {
            return false;
        }
        pause(Duration::from_millis(25));
    }
    true
}

/// Sleeps: for tests only.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness has no event loop that it could block"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
