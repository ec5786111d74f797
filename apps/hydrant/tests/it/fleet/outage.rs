//! The shared state goes away under load, and comes back: apps get answers all the time, are told
//! when these may be old, and nothing stays wrong afterwards.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hydrant_harness::node::Node;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::engines::{Engines, program};
use crate::harness::pause;
use crate::load::Load;

const SESSION: Duration = Duration::from_secs(4);
const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";
/// How long all servers of the state are away.
const AWAY: Duration = Duration::from_secs(8);

const SOURCES: &str =
    "[[source]]\nname = \"content\"\nfile = \"content.json\"\ninterval = \"200ms\"\n";

#[test]
fn mobile_goes_on_while_redis_is_failed_over_and_away() {
    let Some(engines) = Engines::with_sentinel() else {
        return;
    };
    let apps = Apps::start(&engines);
    let loads = apps.loads();

    let master = engines.redis.master().expect("there is a master");
    let killed = Instant::now();
    engines.redis.kill(master);
    apps.write("failed over");
    apps.all_show("failed over");
    println!(
        "new content {:?} after the master was killed",
        killed.elapsed()
    );
    engines.redis.restart(master);
    apps.write("with a replica again");
    apps.all_show("with a replica again");

    let killed = Instant::now();
    engines.redis.kill_all();
    apps.write("not to be written yet");
    for node in &apps.nodes {
        node.wait("answers say that they may be old", |node| {
            apps.init(node).1.starts_with("*;age=").then_some(())
        });
    }
    println!(
        "apps are told {:?} after all of Redis was killed",
        killed.elapsed()
    );
    pause(AWAY.saturating_sub(killed.elapsed()));
    for node in &apps.nodes {
        assert_eq!(
            apps.init(node).0,
            "with a replica again",
            "the last good one"
        );
    }
    apps.write("all is back");
    let back = Instant::now();
    engines.redis.restart_all();
    apps.all_show("all is back");
    println!(
        "new content {:?} after all of Redis was started",
        back.elapsed()
    );
    stays_right(&apps);
    for load in loads {
        let outcome = apps.runtime.block_on(load.finish());
        println!("{} answers, none failed", outcome.good);
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(outcome.good > 500, "there was load: {}", outcome.good);
    }
}

/// What comes next is shown, and what was, does not come back.
fn stays_right(apps: &Apps) {
    for round in 0..10 {
        let text = format!("round {round}");
        apps.write(&text);
        apps.all_show(&text);
        for node in &apps.nodes {
            let (shown, stale) = apps.init(node);
            assert_eq!((shown, stale.as_str()), (text.clone(), ""));
        }
    }
}

/// Two servers with the mobile service, and one document that it asks for.
struct Apps {
    nodes: Vec<Node>,
    folder: TempDir,
    runtime: Runtime,
    client: reqwest::Client,
}

impl Apps {
    fn start(engines: &Engines) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sources.toml"), SOURCES).unwrap();
        let fleet = engines.fleet(SESSION);
        let services = services(&folder.path().join("sources.toml"));
        let spawn = |server| fleet.server(server, "a", &services).spawn();
        let mut apps = Self {
            nodes: ["one", "two"].map(spawn).into(),
            folder,
            runtime: hydrant_harness::runtime(),
            client: reqwest::Client::new(),
        };
        apps.write("at the begin");
        for node in &mut apps.nodes {
            node.wait_ready();
        }
        for node in &apps.nodes {
            node.wait("all four are there", |node| {
                let mut all = node.instances("mobile");
                all.retain(|one| one["state"] == "ready");
                (all.len() == 4).then_some(())
            });
        }
        apps.all_show("at the begin");
        apps
    }

    fn loads(&self) -> Vec<Load> {
        let _inside = self.runtime.enter();
        let pause = Duration::from_millis(10);
        let start = |node: &Node| Load::start(node.public(), INIT, 4, pause);
        self.nodes.iter().map(start).collect()
    }

    /// Writes the document at once, as an editor does.
    fn write(&self, text: &str) {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        fs::write(path("new"), format!(r#"{{"greeting": "{text}"}}"#)).unwrap();
        fs::rename(path("new"), path("content.json")).unwrap();
    }

    /// The greeting that an app is given, and which of it is stale.
    fn init(&self, node: &Node) -> (String, String) {
        let url = format!("http://{}{INIT}", node.public());
        self.runtime.block_on(async {
            let answer = self.client.get(url).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let stale = answer.headers().get("hydrant-stale");
            let stale = stale.map_or("", |value| value.to_str().unwrap()).to_owned();
            let body: Value = answer.json().await.unwrap();
            let shown = &body["sources"]["content"]["value"]["greeting"];
            (shown.as_str().unwrap_or_default().to_owned(), stale)
        })
    }

    /// Each node has its own instance of `api/mobile`, and may ask the other one's.
    fn all_show(&self, text: &str) {
        for node in &self.nodes {
            node.wait(text, |node| {
                let shown = (0..8).map(|_| self.init(node));
                shown
                    .into_iter()
                    .all(|(shown, stale)| shown == text && stale.is_empty())
                    .then_some(())
            });
        }
    }
}

/// The mobile service as tables of a configuration file.
pub fn services(sources: &std::path::Path) -> String {
    let table = |tier: &str, command: &str| {
        format!(
            "[[service]]\nname = \"mobile\"\ntier = \"{tier}\"\nversion = \"1.0.0\"\nsdk = true\n\
             command = [\"sh\", \"-c\", {command:?}]\n\n"
        )
    };
    let (program, sources) = (program().display(), sources.display());
    let service = format!("HYDRANT_MOBILE_SOURCES={sources} exec {program} builtin service-mobile");
    table("service", &service) + &table("api", &format!("exec {program} builtin api-mobile"))
}
