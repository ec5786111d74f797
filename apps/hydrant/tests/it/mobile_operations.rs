//! What operators need of the mobile service: a start that nobody notices, changes that are live when
//! they are said to be, alarms that rise and fall, and secrets that stay where they belong.

mod alarms;
mod live;
mod roles;
mod secrets;
mod start;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_harness::mariadb::{self, MariaDb};
use hydrant_harness::node::Fleet;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fleet::engines::{Engines, program};
use crate::fleet::outage::services;
use crate::harness::{Node, pause};

const BULK: &str = "/ofrep/v1/evaluate/flags";
const INIT: &str = "/v1/init?platform=ios&version=7.2.1&locale=en-US";

/// Two servers with the mobile service, and what they share.
struct Town {
    nodes: Vec<Node>,
    tables: MariaDb,
    engines: Engines,
    _folder: TempDir,
}

impl Town {
    /// With so many processes of `api/mobile` on each server. `way` makes the table `[state]` of the
    /// second server, whose way to the state may be another one.
    fn start(instances: u32, way: impl FnOnce(&Engines) -> String) -> Option<Self> {
        let engines = Engines::start(1)?;
        let tables = match MariaDb::start(mariadb::Options::default()) {
            Ok(tables) => tables,
            Err(missing) => {
                hydrant_harness::skipped(missing);
                return None;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let sources = folder.path().join("sources.toml");
        std::fs::write(&sources, "").unwrap();
        let services = with_instances(&services(&sources), instances);
        // Shorter ones end by themselves on a busy machine.
        let session = Duration::from_secs(8);
        let shared = engines.tables(session) + &tables.table();
        let coordination =
            crate::fleet::engines::coordination(&engines.zookeeper.addresses(), session);
        let own = coordination + &way(&engines) + &tables.table();
        let fleet = Fleet::new(program(), &shared);
        let mut nodes = vec![
            fleet.server("one", "here", &services).spawn(),
            fleet.server_with("two", "here", &own, &services).spawn(),
        ];
        nodes.iter_mut().for_each(Node::wait_ready);
        let town = Self {
            nodes,
            tables,
            engines,
            _folder: folder,
        };
        for node in &town.nodes {
            node.wait("all are there", |node| {
                let there = addresses(node).len() as u32 == 2 * instances;
                (there && ready(node, "service/mobile").len() == 2).then_some(())
            });
        }
        Some(town)
    }
}

/// The last table is that of `api/mobile`.
fn with_instances(services: &str, instances: u32) -> String {
    format!("{}\ninstances = {instances}\n\n", services.trim_end())
}

fn ready(node: &Node, service: &str) -> Vec<Value> {
    let mut all = node.instances(service);
    all.retain(|one| one["state"] == "ready");
    all
}

/// Where the processes of `api/mobile` answer.
fn addresses(node: &Node) -> Vec<String> {
    let ready = ready(node, "api/mobile");
    let address = |one: &Value| one["address"].as_str().expect("an address").to_owned();
    ready.iter().map(address).collect()
}

/// The path of `api/mobile` on a public listener.
fn public(node: &Node) -> String {
    format!("{}/api/mobile", node.public())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Somebody who changes documents through a node.
struct Operator {
    http: reqwest::Client,
    local: SocketAddr,
    token: String,
}

impl Operator {
    fn of(node: &Node) -> Self {
        let token = std::fs::read_to_string(node.data().join("operator.token"));
        Self {
            http: reqwest::Client::new(),
            local: node.local(),
            token: token.expect("a token").trim().to_owned(),
        }
    }

    /// Calls a method of `service/mobile`.
    async fn call(&self, method: &str, request: &Value) -> Result<Value, Value> {
        let url = format!(
            "http://{}/service/mobile/hydrant.mobile.v1.{method}",
            self.local
        );
        let asked = self.http.post(url).json(request);
        let asked = asked.header("hydrant-token", &self.token).send();
        let answer = asked.await.map_err(|error| json!(error.to_string()))?;
        let is_good = answer.status().is_success();
        let body: Value = answer
            .json()
            .await
            .map_err(|error| json!(error.to_string()))?;
        is_good.then(|| body.clone()).ok_or(body)
    }

    /// Puts the flag `answer` with a value, and gives what the service says.
    async fn put(&self, value: u64) -> Result<Value, Value> {
        let change = json!({ "id": { "kind": "flags", "name": "answer" }, "body": flag(value) });
        let request = json!({ "author": "test", "reason": "a test", "changes": [change] });
        self.call("Documents/Apply", &request).await
    }
}

fn flag(value: u64) -> String {
    let flag = json!({
        "state": "ENABLED", "metadata": { "public": true },
        "variants": { "one": value }, "defaultVariant": "one",
    });
    json!({ "flags": { "answer": flag } }).to_string()
}

/// The value of the flag `answer` that an instance, or a listener, gives; else what it says.
async fn answer_of(http: &reqwest::Client, base: &str, key: Option<&str>) -> Result<u64, String> {
    let asked = http.post(format!("http://{base}{BULK}/answer")).body("{}");
    let asked = key
        .into_iter()
        .fold(asked, |asked, key| asked.bearer_auth(key));
    let answer = asked.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(|error| error.to_string())?;
    body["value"]
        .as_u64()
        .ok_or_else(|| format!("{status}: {body}"))
}

fn revision(answer: &Value) -> u64 {
    let revision = &answer["revision"];
    let text = revision.as_str().map(str::to_owned);
    let text = text.unwrap_or_else(|| revision.to_string());
    text.parse()
        .unwrap_or_else(|_| panic!("a revision: {answer}"))
}

/// Waits for what takes longer than most: alarms are patient.
fn wait_long<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        pause(Duration::from_millis(100));
    }
}

/// How busy the machine is: figures mean nothing without it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn environment_of(pid: u32) -> String {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}
