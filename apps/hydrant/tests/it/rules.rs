//! Rules of traffic, with the real binary: on one server, and on three that share ZooKeeper.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hydrant_contracts::bucket::slot;
use hydrant_harness::node::{Node, Setup};
use hydrant_sdk::Service;
use hydrant_sdk::axum::Router;
use hydrant_sdk::axum::routing::get;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::fleet::engines::{Engines, program};

/// Says which version this process is.
const MARK: &str = "RULES_TEST";
/// The test below that is a process of a service, as the binary of tests is told.
const PROCESS: &str = "rules::process";
const SESSION: Duration = Duration::from_secs(10);

/// A service's process, which answers with its version; does nothing when it is not started as one.
#[test]
fn process() {
    let Ok(version) = std::env::var(MARK) else {
        return;
    };
    let service = Service::new(hydrant_sdk::Tier::Api, "shop", &version).expect("a version");
    let told = get(move || async move { version });
    let routes = Router::new().route("/version", told);
    let ended = hydrant_harness::runtime().block_on(service.http(routes).run());
    ended.expect("the service ends well");
}

/// The table of a configuration file: a process of a version.
fn table(version: &str) -> String {
    let this = std::env::current_exe().expect("the path of this binary");
    format!(
        "[[service]]\nname = \"shop\"\ntier = \"api\"\nversion = \"{version}\"\nsdk = true\n\
         command = [{this:?}, \"--exact\", \"{PROCESS}\", \"--nocapture\"]\n\
         env = {{ {MARK} = \"{version}\" }}\n\n"
    )
}

/// A process of a version that no node supervises.
struct ByHand(Child);

impl ByHand {
    fn start(node: &Node, version: &str) -> Self {
        let token = node.json(&["token", "api/shop"]);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", PROCESS, "--nocapture"])
            .env(MARK, version)
            .env("HYDRANT_URL", token["url"].as_str().unwrap())
            .env("HYDRANT_TOKEN", token["token"].as_str().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Files of rules.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// So many percent for 1.1.0.
    fn canary(&self, percent: u32) -> PathBuf {
        let rest = 100 - percent;
        let text = format!(
            "[[rule]]\nname = \"canary\"\nservice = \"api/shop\"\nsticky = \"header user-id\"\n\
             weights = {{ \"1.0.0\" = {rest}, \"1.1.0\" = {percent} }}\n"
        );
        self.file(&format!("canary-{percent}.toml"), &text)
    }
}

fn apply(node: &Node, file: &Path) -> Value {
    let file = file.to_str().unwrap();
    node.json(&[
        "rules", "apply", file, "-m", "a test", "--author", "ann", "--wait",
    ])
}

fn arm(
    runtime: &tokio::runtime::Runtime,
    client: &reqwest::Client,
    node: &Node,
    user: &str,
) -> String {
    let url = format!("http://{}/api/shop/version", node.public());
    runtime.block_on(async {
        let answer = client
            .get(url)
            .header("user-id", user)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    })
}

fn has_versions(node: &Node, count: usize) {
    node.wait("both versions are ready", |node| {
        let mut all = node.instances("api/shop");
        all.retain(|one| one["state"] == "ready");
        (all.len() == count).then_some(())
    });
}

/// People who have 1.0.0, and people who have 1.1.0, as long as that has from 5 to 50 %.
fn steady() -> (Vec<String>, Vec<String>) {
    let people = (0..400).map(|number| format!("user-{number}"));
    let number = |user: &String| slot("rule/canary", user).number();
    let (old, rest): (Vec<_>, Vec<_>) = people.partition(|user| number(user) < 5000);
    (
        old,
        rest.into_iter()
            .filter(|user| number(user) >= 9500)
            .collect(),
    )
}

#[test]
fn rules_hold_on_one_server_while_they_change_and_outlive_a_killed_node() {
    let (desk, runtime, client) = (
        Desk::new(),
        hydrant_harness::runtime(),
        reqwest::Client::new(),
    );
    let node = Setup::node(program(), &table("1.0.0")).start();
    let by_hand = ByHand::start(&node, "1.1.0");
    has_versions(&node, 2);
    assert_eq!(apply(&node, &desk.canary(5))["epoch"], 1);
    let (old, new) = steady();
    assert!(old.len() > 100 && new.len() > 5);
    changes_disturb_nobody(&node, &desk, &old, &new);
    let five = node.json(&["rules", "show", "canary"]);
    assert_eq!(
        (&five["author"], &five["rule"]["weights"]["1.1.0"]),
        (&"ann".into(), &5.into())
    );
    explains(&node, &new[0]);
    // The others get the share of a version that is gone.
    drop(by_hand);
    node.wait("the version is gone", |node| {
        (node.instances("api/shop").len() == 1).then_some(())
    });
    assert_eq!(arm(&runtime, &client, &node, &new[0]), "1.0.0");
    let redirect = desk.file(
        "moved.toml",
        "[[rule]]\nname = \"moved\"\nservice = \"api/shop\"\nredirect = { to = \"/elsewhere\" }\npriority = 1\n",
    );
    apply(&node, &redirect);
    let node = node.kill().start();
    let url = format!("http://{}/api/shop/version", node.public());
    let direct = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let direct = direct.build().unwrap();
    // The service registers again before it is found at all; no request passes by the rule then.
    let answer = node.wait("the service is back", |_| {
        let answer = runtime.block_on(direct.get(&url).send()).unwrap();
        (answer.status() != 503).then_some(answer)
    });
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"/elsewhere".parse().unwrap())
    );
}

/// Rules change as fast as the command line can, and each request is answered by the right version.
fn changes_disturb_nobody(node: &Node, desk: &Desk, old: &[String], new: &[String]) {
    let (ended, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let ask = |people: &[String], expected: &str| {
        let (runtime, client) = (hydrant_harness::runtime(), reqwest::Client::new());
        while !ended.load(Ordering::SeqCst) {
            for user in people.iter().take(50) {
                assert_eq!(arm(&runtime, &client, node, user), expected, "{user}");
                asked.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        // Also when this ends with a panic.
        let _ends = Ends(&ended);
        scope.spawn(|| ask(old, "1.0.0"));
        scope.spawn(|| ask(new, "1.1.0"));
        for (epoch, percent) in (2..).zip([10, 50, 7, 30, 5, 25, 50, 5]) {
            assert_eq!(apply(node, &desk.canary(percent))["epoch"], epoch);
        }
    });
    println!("{} requests while the rules changed", asked.into_inner());
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn explains(node: &Node, user: &str) {
    let header = format!("user-id: {user}");
    let explained = node.json(&[
        "explain",
        "--public",
        "-H",
        &header,
        "GET",
        "/api/shop/version",
    ]);
    let rule = &explained["rules"][0];
    assert_eq!(
        (&rule["name"], &rule["decides"]),
        (&"canary".into(), &true.into())
    );
    assert!(
        rule["verdict"]
            .as_str()
            .unwrap()
            .ends_with("which is 1.1.0's"),
        "{rule}"
    );
}

#[test]
fn when_apply_returns_every_server_goes_by_the_rules_and_who_does_not_is_named() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let fleet = engines.fleet(SESSION);
    let places = [
        ("one", table("1.0.0")),
        ("two", table("1.1.0")),
        ("three", String::new()),
    ];
    let mut nodes = places.map(|(server, services)| fleet.server(server, "a", &services).spawn());
    for node in &mut nodes {
        node.wait_ready();
    }
    for node in &nodes {
        has_versions(node, 2);
    }
    let (desk, runtime, client) = (
        Desk::new(),
        hydrant_harness::runtime(),
        reqwest::Client::new(),
    );
    for (at, percent) in [0, 100, 0, 100, 50].into_iter().enumerate() {
        let applied = apply(&nodes[at % 3], &desk.canary(percent));
        assert_eq!(applied["served"].as_array().unwrap().len(), 3, "{applied}");
        for user in ["user-1", "user-2", "user-3", "user-4"] {
            let arms: Vec<_> = nodes
                .iter()
                .map(|node| arm(&runtime, &client, node, user))
                .collect();
            let is_of_half = slot("rule/canary", user).number() >= 5000;
            let expected = match percent == 100 || (percent == 50 && is_of_half) {
                true => "1.1.0",
                false => "1.0.0",
            };
            assert!(
                arms.iter().all(|arm| arm == expected),
                "{percent} {user}: {arms:?}"
            );
        }
    }
    names_who_is_behind(&nodes, &desk);
}

fn names_who_is_behind(nodes: &[Node], desk: &Desk) {
    let three = Pid::from_raw(nodes[2].pid() as i32).unwrap();
    kill_process(three, Signal::STOP).unwrap();
    let file = desk.canary(20);
    let line = [
        "--json",
        "rules",
        "apply",
        file.to_str().unwrap(),
        "-m",
        "a test",
        "--wait",
        "--timeout",
        "1s",
    ];
    let output = nodes[0].run(&line);
    kill_process(three, Signal::CONT).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{error}");
    assert!(
        error.contains("rules_not_served") && error.contains("three does not answer"),
        "{error}"
    );
    assert!(!error.contains("two "), "{error}");
    nodes[0].wait("all go by it", |node| {
        let listed = node.json(&["rules", "list"]);
        let served = listed["served"].as_array().unwrap();
        served
            .iter()
            .all(|one| one["epoch"] == listed["epoch"])
            .then_some(())
    });
}
