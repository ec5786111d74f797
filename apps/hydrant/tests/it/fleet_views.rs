//! Every node shows the whole fleet.

use std::time::{Duration, Instant};

use hydrant_harness::node::Node;
use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::echo;
use crate::fleet::engines::Engines;

/// Long enough that a node which does not answer is known for a while.
const SESSION: Duration = Duration::from_secs(30);

#[test]
fn every_node_shows_the_whole_fleet() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let fleet = engines.fleet(SESSION);
    let spawn = |(server, zone): (&str, &str)| {
        let services = echo::table("api/door", server, 1)
            + &echo::table(&format!("api/only-{server}"), server, 1);
        fleet.server(server, zone, &services).spawn()
    };
    let mut nodes = [("one", "a"), ("two", "b")].map(spawn);
    for node in &mut nodes {
        node.wait_ready();
    }
    for node in &nodes {
        node.wait("all is listed", |node| {
            let ready = node.instances("");
            let ready = ready.iter().filter(|one| one["state"] == "ready");
            (ready.count() == 4).then_some(())
        });
    }
    counts_are_those_of_all_routers(&nodes);
    health_is_that_of_all_servers(&nodes);
    logs_come_from_all_servers(&nodes);
    a_decision_is_explained_as_each_router_makes_it(&nodes);
    one_that_does_not_answer_holds_up_nobody(&nodes);
}

fn counts_are_those_of_all_routers(nodes: &[Node; 2]) {
    let runtime = hydrant_harness::runtime();
    for (node, requests) in nodes.iter().zip([12, 5]) {
        let url = format!("http://{}/api/only-two/who", node.public());
        for _ in 0..requests {
            let answer = runtime.block_on(async { reqwest::get(&url).await.unwrap().text().await });
            assert_eq!(answer.unwrap(), "two");
        }
    }
    for node in nodes {
        let stats = node.json(&["stats", "only-two"]);
        let counts = &stats["instances"][0];
        assert_eq!(counts["requests"], 17, "each is counted once: {stats}");
        let by_server = counts["by_server"].as_array().unwrap().iter();
        let by_server: Vec<_> = by_server
            .map(|router| {
                (
                    router["server"].as_str().unwrap(),
                    router["requests"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(by_server, [("one", 12), ("two", 17)]);
        assert_eq!(stats["unanswered"], Value::Array(Vec::new()));
        let of_one = node.json(&["stats", "--server", "one", "only-two"]);
        assert_eq!(of_one["instances"][0]["requests"], 12);
    }
}

fn health_is_that_of_all_servers(nodes: &[Node; 2]) {
    for (node, own) in nodes.iter().zip(["one", "two"]) {
        let health = node.json(&["health"]);
        assert_eq!(health["server"], own);
        let servers = health["servers"].as_array().unwrap().iter();
        let servers: Vec<_> = servers
            .map(|server| {
                let instances = server["instances"].as_array().unwrap().len();
                (
                    server["server"].as_str().unwrap(),
                    server["zone"].as_str().unwrap(),
                    instances,
                )
            })
            .collect();
        assert_eq!(servers, [("one", "a", 2), ("two", "b", 2)]);
        assert_eq!(node.json(&["health", "--server", "two"])["server"], "two");
        let listed = node.json(&["list", "--server", "two"]);
        assert_eq!(listed["instances"].as_array().unwrap().len(), 2);
    }
    let unknown = nodes[0].run(&["health", "--server", "nine"]);
    assert_eq!(unknown.status.code(), Some(3));
}

fn logs_come_from_all_servers(nodes: &[Node; 2]) {
    for node in nodes {
        let printed = node.run(&["--json", "logs", "door"]);
        let printed = String::from_utf8(printed.stdout).unwrap();
        let lines: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for server in ["one", "two"] {
            assert!(
                lines.iter().any(|line| line["server"] == server),
                "{printed}"
            );
        }
        let times: Vec<_> = lines
            .iter()
            .map(|line| line["time"].as_str().unwrap())
            .collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}

fn a_decision_is_explained_as_each_router_makes_it(nodes: &[Node; 2]) {
    let nearness = |server: &str| {
        let explained = nodes[0].json(&["explain", "--server", server, "GET", "/api/door/who"]);
        let candidates = explained["candidates"].as_array().unwrap().iter();
        let mut told: Vec<_> = candidates
            .map(|candidate| {
                let text = |name: &str| candidate[name].as_str().unwrap().to_owned();
                (text("server"), text("zone"), text("nearness"))
            })
            .collect();
        told.sort();
        told
    };
    let row =
        |server: &str, zone: &str, nearness: &str| (server.into(), zone.into(), nearness.into());
    assert_eq!(
        nearness("one"),
        [
            row("one", "a", "this server"),
            row("two", "b", "another zone")
        ]
    );
    assert_eq!(
        nearness("two"),
        [
            row("one", "a", "another zone"),
            row("two", "b", "this server")
        ]
    );
}

fn one_that_does_not_answer_holds_up_nobody(nodes: &[Node; 2]) {
    nodes[1].signal(Signal::STOP);
    let start = Instant::now();
    let health = nodes[0].run(&["--json", "health"]);
    let stats = nodes[0].run(&["--json", "stats", "only-*"]);
    let listed = nodes[0].run(&["--json", "list"]);
    let took = start.elapsed();
    nodes[1].signal(Signal::CONT);
    eprintln!("three commands beside a frozen node took {took:?}");
    assert!(took < SESSION, "{took:?}");
    assert_eq!(health.status.code(), Some(5));
    let health: Value = serde_json::from_slice(&health.stdout).unwrap();
    assert_eq!(health["servers"][0]["error"], Value::Null);
    assert!(
        health["servers"][1]["error"]["message"].is_string(),
        "{health}"
    );
    assert!(stats.status.success() && listed.status.success());
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["unanswered"][0]["server"], "two");
    assert_eq!(stats["instances"][1]["requests"], 12, "{stats}");
}
