//! WireMock: a web server with answers by rules, which nobody of this project wrote.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{READY, foreign, is_there, wait_until};

/// Takes orders, each under a key. The number of an order is made from its key, so a repeat gets the same one:
/// that is what it is to honour the key.
const ORDERS: &str = r#"{"request": {"method": "POST", "urlPath": "/orders",
    "headers": {"Idempotency-Key": {"matches": "[0-9a-f-]{36}"}}},
  "response": {"status": 201, "headers": {"content-type": "application/json"},
    "body": "{\"order\": \"W-{{request.headers.Idempotency-Key}}\"}"}}"#;

/// What it says of each request that comes in; its own journal would end with its process.
const RECEIVED: &str = " Request received:";
const KEY: &str = "idempotency-key: [";

/// A server that runs. Dropped, it is gone.
pub struct WireMock {
    process: Process,
    port: Port,
    _folder: TempDir,
}

impl WireMock {
    /// Starts one. When it can't be had, that is said aloud. `target` is the tests' `CARGO_TARGET_TMPDIR`.
    pub fn start(target: &Path) -> Option<Self> {
        if !is_there("java") {
            println!(
                "SKIPPED: java is not here; install the system's package `default-jre-headless`"
            );
            return None;
        }
        let Some(jar) = jar(&foreign::npm(target)?) else {
            println!("SKIPPED: the package `wiremock` of npm has no jar");
            return None;
        };
        let folder = crate::folder();
        let mappings = folder.path().join("mappings");
        fs::create_dir(&mappings).expect("a folder");
        fs::write(mappings.join("orders.json"), ORDERS).expect("a file");
        let port = Port::take();
        let arguments = arguments(&jar, &port, folder.path());
        let wiremock = Self {
            process: Process::new("wiremock", folder.path(), "java", &arguments),
            port,
            _folder: folder,
        };
        wiremock.restart();
        Some(wiremock)
    }

    /// Where it takes orders, and answers `{"order": "W-KEY"}`.
    pub fn orders(&self) -> String {
        format!("http://{}/orders", self.address())
    }

    /// The number that the order of this key has.
    pub fn order_of(key: &str) -> String {
        format!("W-{key}")
    }

    /// Its process, to end or to freeze it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it, if it does not run, and waits until it answers.
    pub fn restart(&self) {
        self.process.start();
        let is_ready = || {
            self.process.check();
            TcpStream::connect(self.address()).is_ok()
        };
        assert!(wait_until(READY, is_ready), "{}", self.process.tail());
    }

    /// The keys of all orders that came in, of each the times of day at which it came, as `2026-03-01 12:00:00.000`,
    /// over all its lives.
    pub fn received(&self) -> BTreeMap<String, Vec<String>> {
        read(&self.process.log())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.number()).into()
    }
}

fn read(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut received: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut at = "";
    for line in log.lines() {
        if let Some(time) = line.strip_suffix(RECEIVED) {
            at = time;
        } else if let Some(key) = line.strip_prefix(KEY) {
            let key = key.trim_end_matches(']').to_owned();
            received.entry(key).or_default().push(at.to_owned());
        }
    }
    received
}

fn jar(npm: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(npm.join("node_modules/wiremock/build")).ok()?;
    let mut paths = files.flatten().map(|file| file.path());
    paths.find(|path| path.extension().is_some_and(|ending| ending == "jar"))
}

fn arguments(jar: &Path, port: &Port, folder: &Path) -> Vec<String> {
    let (jar, folder) = (jar.to_string_lossy(), folder.to_string_lossy());
    let port = port.number().to_string();
    let all = [
        // Small, and soon there.
        "-Xmx96m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-jar",
        &jar,
        "--port",
        &port,
        "--bind-address",
        "127.0.0.1",
        "--root-dir",
        &folder,
        "--global-response-templating",
        "--max-request-journal-entries",
        "1000",
        "--verbose",
        "--disable-banner",
    ];
    all.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_is_read_from_its_log() {
        let log = "2026-11-22 17:18:02.784 Request received:\n127.0.0.1 - POST /orders\n\n\
                   idempotency-key: [abc]\n{\"a\": 1}\n\n\
                   2026-11-22 17:18:03.000 Request received:\nidempotency-key: [abc]\n";
        let times = ["2026-11-22 17:18:02.784", "2026-11-22 17:18:03.000"];
        assert_eq!(read(log)["abc"], times);
    }
}
