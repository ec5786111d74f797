//! The mobile service: one answer out of many sources, one process that asks them, and no error
//! when that process, or a source, goes away.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{Node, Setup, kill, pause};
use crate::load::Load;

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";

/// How often the catalogue is asked for, in the tests.
const INTERVAL: Duration = Duration::from_millis(500);

/// The demo's sources, asked more often than in the demo.
const SOURCES: &str = r#"
[[source]]
name = "configuration"
file = "configuration.json"
interval = "200ms"

[[source]]
name = "content"
file = "content.json"
interval = "200ms"

[[source]]
name = "catalog"
url = "${HYDRANT_PUBLIC_URL}/api/demo-upstream/v1/catalog"
interval = "500ms"
timeout = "2s"
"#;

#[test]
fn an_app_gets_one_answer_and_then_only_what_is_new() {
    let app = App::start();
    let first = app.init(None);
    assert_eq!(first.status, StatusCode::OK);
    for name in ["configuration", "content", "catalog"] {
        let source = &first.body["sources"][name];
        assert!(source["value"].is_object(), "{name}: {}", first.body);
        assert_eq!(source["stale"], false, "{name}: {}", first.body);
    }
    assert_eq!(first.body["platform"], "ios");
    app.write("content.json", r#"{"greeting": "one"}"#);
    app.wait_for("the new content", |answer| greeting(answer) == "one");
    let answer = app.settled();
    let again = app.init(Some(&answer.etag));
    assert_eq!(
        (again.status, &again.etag),
        (StatusCode::NOT_MODIFIED, &answer.etag)
    );
    assert_ne!(first.etag, answer.etag);
    assert_eq!(app.init(Some(&first.etag)).status, StatusCode::OK);
    let wrong = app.get(
        "/api/mobile/v1/init?platform=ios&version=seven&locale=en-US",
        None,
    );
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[test]
fn leaders_are_killed_and_nobody_sees_an_error() {
    let app = App::start();
    let load = {
        let _inside = app.runtime.enter();
        Load::start(app.node.public(), INIT, 16, Duration::from_millis(10))
    };
    let mut polls = Polls::default();
    let mut epoch = app.init(None).epoch;
    for round in 0..3 {
        app.node.wait("two can lead", |node| {
            (ready(node).len() == 2).then_some(())
        });
        let leader = app.leader(&mut polls);
        kill(app.pid(&leader), Signal::KILL);
        let killed = Instant::now();
        let next = app.wait("somebody else polls", || {
            let next = app.leader(&mut polls);
            (next != leader).then_some(next)
        });
        let elected = killed.elapsed();
        let text = format!("round {round}");
        app.write("content.json", &format!(r#"{{"greeting": "{text}"}}"#));
        let answer = app.wait_for("the new content", |answer| greeting(answer) == text);
        println!(
            "killed {leader}: {next} polls after {elected:?}, new content after {:?}",
            killed.elapsed()
        );
        assert!(elected < Duration::from_secs(10), "{elected:?}");
        assert!(answer.epoch > epoch, "{} after {epoch}", answer.epoch);
        epoch = answer.epoch;
    }
    let outcome = app.runtime.block_on(load.finish());
    println!("{} answers", outcome.good);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert!(outcome.good > 500, "there was load: {}", outcome.good);
    assert_eq!(
        polls.terms.len(),
        4,
        "one after the other: {:?}",
        polls.terms
    );
}

#[test]
fn a_leader_that_was_stopped_does_not_poll_any_more() {
    let app = App::start();
    app.node.wait("two can lead", |node| {
        (ready(node).len() == 2).then_some(())
    });
    let mut polls = Polls::default();
    let leader = app.leader(&mut polls);
    let pid = app.pid(&leader);
    kill(pid, Signal::STOP);
    let stopped = Instant::now();
    let next = app.wait("somebody else polls", || {
        let next = app.leader(&mut polls);
        (next != leader).then_some(next)
    });
    println!(
        "{leader} stopped: {next} polls after {:?}",
        stopped.elapsed()
    );
    kill(pid, Signal::CONT);
    let went_on = Instant::now();
    while went_on.elapsed() < 4 * INTERVAL {
        assert_eq!(app.leader(&mut polls), next, "{:?}", polls.terms);
        pause(Duration::from_millis(20));
    }
    assert_eq!(polls.terms, [leader, next], "one after the other");
}

#[test]
fn one_process_polls_however_many_there_are() {
    let app = App::start();
    let period = Duration::from_secs(4);
    for instances in [2, 4, 1] {
        app.node
            .json(&["scale", "service/mobile", &instances.to_string()]);
        app.node.wait("all are ready", |node| {
            (ready(node).len() == instances).then_some(())
        });
        let mut polls = Polls::default();
        app.leader(&mut polls);
        let (before, began) = (app.count(), Instant::now());
        while began.elapsed() < period {
            app.leader(&mut polls);
            pause(Duration::from_millis(100));
        }
        let (after, took) = (app.count(), began.elapsed());
        let growth = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
        let (seen, unchanged) = (growth("polls"), growth("notModified"));
        let expected = took.as_millis() as u64 / INTERVAL.as_millis() as u64;
        println!(
            "{instances} processes: {seen} polls, one per interval are {expected}; \
             {unchanged} were answered with 304"
        );
        // Where a leader was stopped for too long, another one follows, and asks at once.
        assert!(
            (expected / 2..=expected + 3).contains(&seen),
            "{seen}: {after}"
        );
        assert!(
            polls.terms.len() <= 2,
            "one after the other: {:?}",
            polls.terms
        );
        assert!(unchanged + 3 >= seen, "it asks for what is new: {after}");
    }
}

#[test]
fn a_source_that_fails_keeps_its_last_good_value() {
    let app = App::start();
    app.write("content.json", r#"{"greeting": "good"}"#);
    app.wait_for("the new content", |answer| greeting(answer) == "good");
    app.write("content.json", "garbage");
    let answer = app.wait_for("stale content", |answer| answer.is_stale("content"));
    assert_eq!((answer.status, greeting(&answer)), (StatusCode::OK, "good"));
    assert!(answer.body["sources"]["content"]["staleSince"].is_string());
    assert!(answer.stale.starts_with("content;age="), "{}", answer.stale);
    app.write("content.json", r#"{"greeting": "mended"}"#);
    let answer = app.wait_for("mended content", |answer| greeting(answer) == "mended");
    assert!(!answer.is_stale("content"));

    let scale = |to: &str| {
        app.node.json(&["scale", "api/demo-upstream", to]);
    };
    app.fails_and_recovers("catalog", || scale("0"), || scale("1"));
    let post = |path: &str| assert_eq!(app.post(path), StatusCode::NO_CONTENT);
    let (fail, mend) = ("/api/demo-upstream/v1/break", "/api/demo-upstream/v1/mend");
    app.fails_and_recovers("catalog", || post(fail), || post(mend));
}

/// A node with the demo, as an app and as its operator see it.
struct App {
    node: Node,
    runtime: Runtime,
    client: reqwest::Client,
}

/// An answer to an app.
struct Answer {
    status: StatusCode,
    etag: String,
    epoch: u64,
    /// The header that names what is stale.
    stale: String,
    body: Value,
}

impl Answer {
    fn is_stale(&self, source: &str) -> bool {
        self.body["sources"][source]["stale"] != false
    }

    fn value(&self, source: &str) -> &Value {
        &self.body["sources"][source]["value"]
    }
}

/// Who has polled, in order: each is here once for a time without a break.
#[derive(Default)]
struct Polls {
    counts: BTreeMap<String, u64>,
    terms: Vec<String>,
}

impl App {
    fn start() -> Self {
        let setup = Setup::up();
        let demo = setup.data().join("demo");
        fs::create_dir_all(&demo).unwrap();
        fs::write(demo.join("sources.toml"), SOURCES).unwrap();
        let app = Self {
            node: setup.start(),
            runtime: hydrant_harness::runtime(),
            client: reqwest::Client::new(),
        };
        app.settled();
        app
    }

    /// Waits until each source has been read once.
    fn settled(&self) -> Answer {
        self.wait_for("all sources", |answer| {
            let sources = answer.body["sources"].as_object();
            sources.is_some_and(|all| all.len() == 3 && all.keys().all(|one| !answer.is_stale(one)))
        })
    }

    fn init(&self, known: Option<&str>) -> Answer {
        self.get(INIT, known)
    }

    fn get(&self, path: &str, known: Option<&str>) -> Answer {
        let mut request = self
            .client
            .get(format!("http://{}{path}", self.node.public()));
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let header = |name: &str| {
                let value = answer
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap());
                value.unwrap_or_default().to_owned()
            };
            Answer {
                status: answer.status(),
                etag: header("etag"),
                epoch: header("hydrant-snapshot-epoch").parse().unwrap_or(0),
                stale: header("hydrant-stale"),
                body: serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
            }
        })
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        self.node.wait(what, |_| found())
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Answer) -> bool) -> Answer {
        self.wait(what, || {
            Some(self.init(None)).filter(|answer| condition(answer))
        })
    }

    /// Writes a file of the demo at once, as an editor does.
    fn write(&self, name: &str, text: &str) {
        let path = |name: &str| -> PathBuf { self.node.data().join("demo").join(name) };
        fs::write(path("new"), text).unwrap();
        fs::rename(path("new"), path(name)).unwrap();
    }

    /// What the upstream has seen.
    fn count(&self) -> Value {
        self.get("/api/demo-upstream/v1/count", None).body
    }

    /// Who polled last, by the upstream's own count.
    fn leader(&self, polls: &mut Polls) -> String {
        self.wait("somebody polls", || {
            polls.add(&self.count()["pollers"]);
            polls.terms.last().cloned()
        })
    }

    /// The source's last good value is served while it fails.
    fn fails_and_recovers(&self, source: &str, fail: impl Fn(), mend: impl Fn()) {
        fail();
        let began = Instant::now();
        let answer = self.wait_for("a stale value", |answer| answer.is_stale(source));
        let stale = began.elapsed();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.value(source).is_object(), "{}", answer.body);
        assert!(answer.stale.starts_with(source), "{}", answer.stale);
        mend();
        let began = Instant::now();
        self.wait_for("a fresh value", |answer| !answer.is_stale(source));
        println!(
            "{source}: stale after {stale:?}, fresh again after {:?}",
            began.elapsed()
        );
    }

    fn post(&self, path: &str) -> StatusCode {
        let request = self
            .client
            .post(format!("http://{}{path}", self.node.public()));
        self.runtime
            .block_on(async { request.send().await.unwrap().status() })
    }

    fn pid(&self, instance: &str) -> u32 {
        let instances = self.node.instances("service/mobile");
        let found = instances.iter().find(|one| one["instance"] == instance);
        found.expect("it is listed")["pid"].as_u64().unwrap() as u32
    }
}

impl Polls {
    /// Takes in a count. What was counted before the first one is nobody's.
    fn add(&mut self, pollers: &Value) {
        let is_first = self.counts.is_empty();
        let mut grown = Vec::new();
        for (poller, count) in pollers.as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap();
            let before = self.counts.insert(poller.clone(), count).unwrap_or(0);
            if count > before && !is_first {
                grown.push(poller.clone());
            }
        }
        // Between two looks the old one may have polled before the new one did.
        grown.sort_by_key(|poller| Some(poller) != self.terms.last());
        self.terms.extend(grown);
        self.terms.dedup();
    }
}

fn ready(node: &Node) -> Vec<Value> {
    let mut instances = node.instances("service/mobile");
    instances.retain(|one| one["state"] == "ready");
    instances
}

fn greeting(answer: &Answer) -> &str {
    answer.value("content")["greeting"]
        .as_str()
        .unwrap_or_default()
}
