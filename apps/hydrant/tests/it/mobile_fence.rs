//! A leader of `service/mobile` is stopped while what it publishes is on the way. The write arrives when
//! another one leads and has published what is newer: it has to be refused.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hydrant_harness::Proxy;
use hydrant_sdk::{Config, Hydrant, StateChange, StateWatch};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fleet::engines::program;
use crate::harness::{Node, Setup, kill};

/// More than any request of the service has but the one that publishes.
const LARGE: usize = 8 * 1024;
/// How the process is called that reaches its node by a way of its own.
const AFAR: &str = "mobile-afar";
/// The key of what is published.
const PUBLISHED: &str = "bundle";
/// How long the watch may take to begin.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long it is looked whether anything is written.
const CALM: Duration = Duration::from_secs(2);

#[test]
fn what_an_old_leader_had_on_the_way_is_refused() {
    let office = Office::start();
    let way = Proxy::start(office.node.local());
    let old = office.start_afar(&way);
    office.node.json(&["scale", "service/mobile", "0"]);
    office.wait_for_leader("the one afar leads", |leader| leader == AFAR);

    way.hold_at(LARGE);
    let mut change = office.spawn_change("lower");
    office.node.wait("what it publishes is on the way", |_| {
        way.is_holding().then_some(())
    });
    old.signal(Signal::STOP);
    office.node.json(&["scale", "service/mobile", "1"]);
    office.node.wait("the one afar is given up", |node| {
        let all = node.instances("service/mobile");
        let is_next = |one: &Value| one["instance"] != AFAR && one["state"] == "ready";
        (!all.is_empty() && all.iter().all(is_next)).then_some(())
    });
    office.wait_for_leader("another one leads", |leader| leader != AFAR);
    // Whoever made it: it is in the tables.
    let _ = change.kill();
    let _ = change.wait();
    let newer = office.change("usual");

    let mut watch = office.watch();
    let published = office
        .next(&mut watch, PATIENCE)
        .expect("what is published");
    way.restore();
    let released = Instant::now();
    while released.elapsed() < CALM {
        if released.elapsed() > CALM / 2 {
            old.signal(Signal::CONT);
        }
        let changed = office.next(&mut watch, CALM / 10);
        let is_same = changed.is_none_or(|value| value == published);
        assert!(
            is_same,
            "revision {newer} was written over after {:?}",
            released.elapsed()
        );
    }
}

/// A node with the mobile service, and documents that are large when they are published.
struct Office {
    node: Node,
    runtime: Runtime,
}

impl Office {
    fn start() -> Self {
        let office = Self {
            node: Setup::up().start(),
            runtime: hydrant_harness::runtime(),
        };
        office.wait_for_leader("somebody leads", |_| true);
        let noise: String = (0..4 * LARGE).map(|_| fastrand::alphanumeric()).collect();
        let flags = json!({ "flags": { "large": {
            "state": "ENABLED", "variants": { "a": noise }, "defaultVariant": "a",
        } } });
        let path = office.node.data().join("large.json");
        std::fs::write(&path, flags.to_string()).unwrap();
        let path = path.to_str().expect("text");
        let line = ["mobile", "put", "flags/large", path, "-m", "a test"];
        office.node.json(&line);
        office
    }

    /// One more process of `service/mobile`, as the node starts them, which reaches it by `way`.
    fn start_afar(&self, way: &Proxy) -> Process {
        let own = &self.node.instances("service/mobile")[0];
        let environment = std::fs::read(format!("/proc/{}/environ", own["pid"])).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        let variables = environment
            .split('\0')
            .filter_map(|line| line.split_once('='));
        let process = Command::new(program())
            .args(["builtin", "service-mobile"])
            .env_clear()
            .envs(variables)
            .env("HYDRANT_URL", format!("http://{}", way.address()))
            .env("HYDRANT_INSTANCE", AFAR)
            .spawn()
            .unwrap();
        let process = Process(process);
        self.node.wait("it is ready", |node| {
            let all = node.instances("service/mobile");
            let is_it = |one: &&Value| one["instance"] == AFAR && one["state"] == "ready";
            all.iter().find(is_it).map(|_| ())
        });
        process
    }

    fn wait_for_leader(&self, what: &str, is_right: impl Fn(&str) -> bool) {
        self.node.wait(what, |node| {
            let status = node.run(&["--json", "mobile", "status"]).stdout;
            let status: Value = serde_json::from_slice(&status).ok()?;
            is_right(status["leader"].as_str().filter(|name| !name.is_empty())?).then_some(())
        });
    }

    fn spawn_change(&self, variant: &str) -> Child {
        self.node.command(&change_to(variant)).spawn().unwrap()
    }

    /// Changes a flag; the revision that is published then.
    fn change(&self, variant: &str) -> u64 {
        let done = self.node.json(&change_to(variant));
        assert_eq!(done["published"], true, "{done}");
        done["revision"].as_u64().expect("a revision")
    }

    fn watch(&self) -> StateWatch {
        let token = self.node.json(&["token", "api/mobile"])["token"].clone();
        let url = format!("http://{}", self.node.local());
        let config = Config::new(&url, token.as_str()).expect("the node's URL");
        let state = Hydrant::new(config).expect("the node's URL").state();
        state
            .of(&"service/mobile".parse().unwrap())
            .watch(PUBLISHED)
    }

    /// What is published next, if anything is.
    fn next(&self, watch: &mut StateWatch, patience: Duration) -> Option<Vec<u8>> {
        let next = async { tokio::time::timeout(patience, watch.next()).await };
        match self.runtime.block_on(next).ok()?.expect("a watch") {
            StateChange::All(mut entries) => Some(entries.remove(0).value),
            StateChange::Put(entry) => Some(entry.value),
            StateChange::Removed(key) => panic!("{key} is gone"),
        }
    }
}

fn change_to(variant: &str) -> [&str; 7] {
    [
        "mobile",
        "flag",
        "default",
        "price-cents",
        variant,
        "-m",
        "a test",
    ]
}

/// A process that ends with its test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(self.0.id(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
