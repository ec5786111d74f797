//! Alarms rise when a real server is gone, say how to mend it, and go when it is back. Apps are
//! answered all the time, and nothing is lost.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Operator, Town, addresses, answer_of, public, revision, runtime, wait_long};
use crate::fleet::engines::state;
use crate::harness::{Node, Setup};

/// Waits for an alarm: `hydrant mobile status --check` exits with 5, and says how to mend it.
pub fn rises(node: &Node, name: &str) -> Value {
    wait_long(name, || {
        let output = node.run(&["--json", "mobile", "status", "--check"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let alarms = status["alarms"].as_array()?;
        let alarm = alarms.iter().find(|one| one["name"] == name)?;
        assert_eq!(output.status.code(), Some(5));
        let mend = alarm["mend"].as_str().unwrap_or_default();
        assert!(!mend.is_empty(), "{alarm}");
        Some(alarm.clone())
    })
}

/// Waits until there is no such alarm any more.
pub fn falls(node: &Node, name: &str) {
    wait_long(&format!("no {name}"), || {
        let output = node.run(&["--json", "mobile", "status"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let alarms = status["alarms"].as_array()?;
        alarms.iter().all(|one| one["name"] != name).then_some(())
    });
}

fn well(node: &Node) {
    wait_long("all is well", || {
        let output = node.run(&["mobile", "status", "--check"]);
        (output.status.code() == Some(0)).then_some(())
    });
}

/// Asks for the flag `answer` all the time, over every node; what was not right.
struct Apps {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(usize, Vec<String>)>>,
}

impl Apps {
    fn start(runtime: &tokio::runtime::Runtime, nodes: &[Node]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |node: &Node| {
            let (stop, base) = (Arc::clone(&stop), public(node));
            runtime.spawn(async move { ask_until(&stop, &base).await })
        };
        Self {
            tasks: nodes.iter().map(ask).collect(),
            stop,
        }
    }

    fn finish(self, runtime: &tokio::runtime::Runtime) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let (good, failures) = runtime.block_on(task).expect("a task does not panic");
            println!("{good} answers");
            assert!(good > 50 && failures.is_empty(), "{good}: {failures:#?}");
        }
    }
}

/// An app sees values that only grow, and no error.
async fn ask_until(stop: &AtomicBool, base: &str) -> (usize, Vec<String>) {
    let http = reqwest::Client::new();
    let (mut good, mut failures) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
        match answer_of(&http, base, None).await {
            Ok(_) => good += 1,
            Err(failure) => failures.push(failure),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    (good, failures)
}

#[test]
fn a_database_and_a_state_that_are_gone_are_alarms_and_go_again() {
    let Some(town) = Town::start(1, |engines| state(&engines.redis.addresses())) else {
        return;
    };
    let runtime = runtime();
    let node = &town.nodes[0];
    let operator = Operator::of(node);
    let put = |value| runtime.block_on(operator.put(value));
    assert_eq!(put(1).expect("it is taken")["published"], true);
    well(node);
    let apps = Apps::start(&runtime, &town.nodes);

    // Frozen: its connections stay open, and it answers nothing.
    town.tables.pause();
    told("database, frozen", || rises(node, "database"));
    let refused = put(2).expect_err("nothing can be changed");
    println!("a change: {refused}");
    town.tables.resume();
    told("database, back", || falls(node, "database"));

    town.tables
        .sql("SET GLOBAL read_only = 1")
        .expect("it answers");
    told("database, read-only", || {
        wait_long("the alarm says why", || {
            let alarm = rises(node, "database");
            let message = alarm["message"].as_str()?.to_owned();
            message.contains("read-only").then_some(message)
        })
    });
    println!("a change: {}", put(2).expect_err("nothing can be changed"));
    town.tables
        .sql("SET GLOBAL read_only = 0")
        .expect("it answers");
    told("database, writable", || falls(node, "database"));
    let done = wait_long("a change is taken again", || put(2).ok());
    assert_eq!(done["published"], true, "{done}");

    town.engines.redis.pause(0);
    told("state, frozen", || rises(node, "state"));
    let kept = put(3).expect("the tables take it");
    assert_ne!(kept["published"], true, "{kept}");
    told("publishing", || rises(node, "publishing"));
    town.engines.redis.resume(0);
    for name in ["state", "publishing"] {
        told(name, || falls(node, name));
    }
    for address in addresses(node) {
        let http = reqwest::Client::new();
        wait_long("what was kept is published", || {
            let answer = runtime.block_on(answer_of(&http, &address, None));
            (answer == Ok(3)).then_some(())
        });
    }
    apps.finish(&runtime);
    let last = put(4).expect("it is taken");
    assert_eq!(
        revision(&last),
        revision(&kept) + 1,
        "nothing lost, nothing twice"
    );
    well(node);
}

fn told<T: std::fmt::Debug>(what: &str, done: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = done();
    println!("{what} after {:?}: {done:?}", began.elapsed());
    done
}

#[test]
fn an_instance_that_refuses_a_revision_is_an_alarm_until_a_good_one_comes() {
    let node = Setup::up().start();
    let runtime = runtime();
    let operator = Operator::of(&node);
    let answered = runtime.block_on(operator.put(7)).expect("it is taken");
    let http = reqwest::Client::new();
    // The leader writes the right one again within moments: so it is broken again and again.
    let alarm = wait_long("an alarm", || {
        let broken = [
            "state",
            "--namespace",
            "service/mobile",
            "put",
            "bundle",
            "garbage",
        ];
        assert!(node.run(&broken).status.success());
        let answer = runtime.block_on(answer_of(&http, &public(&node), None));
        assert_eq!(answer, Ok(7), "the last good one is served");
        let output = node.run(&["--json", "mobile", "status", "--check"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let found = status["alarms"]
            .as_array()?
            .iter()
            .find(|one| one["name"] == "revision");
        found.map(|alarm| (alarm.clone(), output.status.code()))
    });
    println!("{alarm:?} at revision {}", revision(&answered));
    assert_eq!(alarm.1, Some(5));
    falls(&node, "revision");
    well(&node);
}

#[test]
fn a_state_that_is_emptied_gets_its_revision_again_and_no_app_notices() {
    let Some(town) = Town::start(1, |engines| state(&engines.redis.addresses())) else {
        return;
    };
    let runtime = runtime();
    let node = &town.nodes[0];
    let operator = Operator::of(node);
    let done = runtime.block_on(operator.put(5)).expect("it is taken");
    assert_eq!(done["published"], true, "{done}");
    let apps = Apps::start(&runtime, &town.nodes);
    let bundle = ["state", "--namespace", "service/mobile", "get", "bundle"];
    for round in 0..3 {
        town.engines
            .redis
            .cli(0, &["FLUSHALL"])
            .expect("it answers");
        let began = Instant::now();
        wait_long("it is published again", || {
            node.run(&bundle).status.success().then_some(())
        });
        println!("round {round}: there again after {:?}", began.elapsed());
        for address in addresses(node) {
            let http = reqwest::Client::new();
            assert_eq!(runtime.block_on(answer_of(&http, &address, None)), Ok(5));
        }
    }
    apps.finish(&runtime);
    let next = wait_long("a change is taken", || {
        let next = runtime.block_on(operator.put(6)).ok()?;
        (next["published"] == true).then_some(next)
    });
    assert_eq!(revision(&next), revision(&done) + 1);
}

/// As a server of the state that was restored from an old file shows it.
#[test]
fn an_older_revision_that_comes_back_in_the_state_is_not_served() {
    let node = Setup::up().start();
    let runtime = runtime();
    let operator = Operator::of(&node);
    let bundle = ["state", "--namespace", "service/mobile", "get", "bundle"];
    runtime.block_on(operator.put(1)).expect("it is taken");
    let old = node.run(&bundle).stdout;
    let done = runtime.block_on(operator.put(2)).expect("it is taken");
    assert_eq!(done["published"], true, "{done}");
    let http = reqwest::Client::new();
    for round in 0..3 {
        let put = [
            "state",
            "--namespace",
            "service/mobile",
            "put",
            "bundle",
            "-",
        ];
        let mut put = node.command(&put).stdin(Stdio::piped()).spawn().unwrap();
        put.stdin.take().expect("a pipe").write_all(&old).unwrap();
        assert!(put.wait().unwrap().success());
        let began = Instant::now();
        wait_long("the newest is published again", || {
            for address in addresses(&node) {
                let answer = runtime.block_on(answer_of(&http, &address, None));
                assert_eq!(answer, Ok(2), "round {round}");
            }
            (node.run(&bundle).stdout != old).then_some(())
        });
        println!(
            "round {round}: the newest again after {:?}",
            began.elapsed()
        );
    }
}
