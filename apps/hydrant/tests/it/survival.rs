//! What must not be lost when processes die.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Node, Setup, is_soak, kill};
use crate::load::Load;

/// So many at a time are never more than an instance may have: a machine that is busy with other things does not
/// make it look like too many.
const CLIENTS: usize = 16;

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";

#[test]
fn killing_instances_under_load_fails_no_request() {
    let kills = if is_soak() { 20 } else { 4 };
    let node = Setup::up().start();
    let runtime = hydrant_harness::runtime();
    let begun = Instant::now();
    let load = {
        let _inside = runtime.enter();
        Load::start(node.public(), INIT, CLIENTS, Duration::from_millis(20))
    };
    node.wait("the load has begun", |_| (load.good() > 100).then_some(()));
    for round in 0..kills {
        runtime.block_on(async { tokio::time::sleep(Duration::from_secs(3)).await });
        // However often it was killed before, it is back by now.
        let ready = two_ready(&node, "api/mobile").expect("two instances are ready");
        kill(pid(&ready[round % 2]), Signal::KILL);
    }
    node.wait("the last one is back", |node| two_ready(node, "api/mobile"));
    let outcome = runtime.block_on(load.finish());
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    let rate = outcome.good as f64 / begun.elapsed().as_secs_f64();
    assert!(rate > 50.0, "there was load: {rate} a second");
}

#[test]
fn a_new_node_takes_over_what_a_killed_one_left() {
    let node = Setup::up().start();
    let put = [
        "state",
        "--namespace",
        "service/notes",
        "put",
        "kept",
        "yes",
    ];
    assert!(node.run(&put).status.success());
    node.json(&["scale", "api/mobile", "3"]);
    let before = processes(&node);
    assert_eq!(before.len(), 13, "{before:?}");

    let mut node = node.kill().start();
    let after = node.wait("all are listed again", |node| {
        let after = processes(node);
        (after.len() >= before.len()).then_some(after)
    });
    assert_eq!(after, before, "the same processes, none twice");
    let health = node.json(&["health"]);
    let services = health["services"].as_array().unwrap();
    let supervised = services
        .iter()
        .flat_map(|service| service["processes"].as_array().unwrap());
    for process in supervised {
        assert_eq!(process["adopted"], true, "{process}");
    }
    let get = ["state", "--namespace", "service/notes", "get", "kept"];
    assert_eq!(node.run(&get).stdout, b"yes");

    node.signal(Signal::TERM);
    assert!(node.wait_ended().success());
    assert_eq!(
        node.started(),
        Vec::<u32>::new(),
        "adopted ones are stopped too"
    );
}

#[test]
fn services_end_by_themselves_when_no_node_comes() {
    let setup = Setup::up().config("[node]\ngrace = \"2s\"\n");
    let node = setup.start();
    assert!(node.started().len() >= 5);
    let setup = node.kill();
    let (runtime, end) = (
        hydrant_harness::runtime(),
        Instant::now() + Duration::from_secs(20),
    );
    while !setup.left().is_empty() {
        assert!(Instant::now() < end, "still there: {:?}", setup.left());
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    }
}

#[test]
fn a_crash_loop_is_shown() {
    let service = "[[service]]\nname = \"broken\"\ntier = \"api\"\nversion = \"1.0.0\"\n\
                   command = [\"sh\", \"-c\", \"echo I am broken >&2; exit 7\"]\nsdk = true\n";
    let node = Setup::node(service).start();
    node.wait("health tells it", |node| {
        let output = node.run(&["health"]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code() == Some(5) && text.contains("exited with 7")).then_some(())
    });
    // Also while it is being tried again.
    for _ in 0..20 {
        let listed = String::from_utf8(node.run(&["list"]).stdout).unwrap();
        assert!(listed.contains("api/broken"), "{listed}");
    }
    node.wait("its words are in the logs", |node| {
        let logs = String::from_utf8(node.run(&["logs", "broken"]).stdout).unwrap();
        logs.contains("I am broken").then_some(())
    });
}

fn two_ready(node: &Node, pattern: &str) -> Option<Vec<Value>> {
    let mut instances = node.instances(pattern);
    instances.retain(|one| one["state"] == "ready");
    (instances.len() == 2).then_some(instances)
}

/// The instances that are ready, with their processes.
fn processes(node: &Node) -> Vec<(String, u32)> {
    let mut ready = node.instances("");
    ready.retain(|one| one["state"] == "ready");
    let name = |one: &Value| one["instance"].as_str().unwrap().to_owned();
    ready.iter().map(|one| (name(one), pid(one))).collect()
}

fn pid(instance: &Value) -> u32 {
    instance["pid"].as_u64().unwrap() as u32
}
