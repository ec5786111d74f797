//! A node gives its server over to a new process, while it works.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::echo;
use crate::fleet::engines::Engines;
use crate::harness::{Node, Setup, is_soak, kill, pause};
use crate::load::Load;

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";

/// The process that node.json names.
fn serving(node: &Node) -> u32 {
    let text = std::fs::read_to_string(node.data().join("node.json")).expect("it is there");
    let told: Value = serde_json::from_str(&text).expect("it is JSON");
    told["pid"].as_u64().expect("a number") as u32
}

/// The supervised processes, and that all of them run.
fn processes(node: &Node) -> Vec<u64> {
    let health = node.json(&["health"]);
    let services = health["services"].as_array().expect("a list").iter();
    let processes = services.flat_map(|service| service["processes"].as_array().expect("a list"));
    let mut pids: Vec<_> = processes
        .map(|process| process["pid"].as_u64().expect("it runs"))
        .collect();
    pids.sort_unstable();
    pids
}

fn loads(node: &Node, runtime: &tokio::runtime::Runtime) -> [Load; 2] {
    let _inside = runtime.enter();
    let pause = Duration::from_millis(10);
    let loads = [
        Load::start(node.public(), INIT, 8, pause),
        Load::fresh(node.public(), INIT, 8, pause),
    ];
    for load in &loads {
        node.wait("the load has begun", |_| (load.good() > 50).then_some(()));
    }
    loads
}

fn no_failure(runtime: &tokio::runtime::Runtime, loads: impl IntoIterator<Item = Load>) {
    for load in loads {
        let outcome = runtime.block_on(load.finish());
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        println!("{} requests, none failed", outcome.good);
    }
}

#[test]
fn new_processes_follow_each_other_and_no_request_fails() {
    let restarts = if is_soak() { 50 } else { 5 };
    let mut node = Setup::up().start();
    let runtime = hydrant_harness::runtime();
    let before = processes(&node);
    let loads = loads(&node, &runtime);
    let mut all = vec![serving(&node)];
    for _ in 0..restarts {
        let told = node.json(&["restart"]);
        let now = serving(&node);
        assert_eq!(told["before"], all[all.len() - 1], "{told}");
        assert_eq!(told["now"], now, "{told}");
        all.push(now);
        pause(Duration::from_millis(500));
    }
    no_failure(&runtime, loads);
    assert_eq!(processes(&node), before, "the services ran on");
    assert!(node.wait_ended().success(), "the first has ended");
    let last = all.pop().expect("there is one");
    for old in all {
        node.wait("all before the last end", |node| {
            (!node.started().contains(&old)).then_some(())
        });
    }
    kill(last, Signal::TERM);
    node.wait("it ends with all that it started", |node| {
        node.started().is_empty().then_some(())
    });
}

#[test]
fn what_is_under_way_ends_at_the_process_where_it_began() {
    let mut node = Setup::up().start();
    let body = r#"{"form":"demo","fields":{"name":"Ann"}}"#;
    let head = format!(
        "POST /api/submissions/v1/submissions HTTP/1.1\r\nhost: x\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\
         correlation-id: 0b0f8a3e-7d4c-4c9e-9d0f-2f6a1f0c5a11\r\n\r\n",
        body.len()
    );
    let mut under_way = TcpStream::connect(node.public()).expect("a connection");
    let (begin, rest) = body.split_at(10);
    under_way
        .write_all(format!("{head}{begin}").as_bytes())
        .unwrap();
    let mut idle = TcpStream::connect(node.public()).expect("a connection");
    pause(Duration::from_millis(300));
    node.json(&["restart"]);
    // Who has sent nothing yet may still do so for a while.
    idle.write_all(format!("GET {INIT} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .unwrap();
    let answer = until_closed(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"));
    under_way.write_all(rest.as_bytes()).unwrap();
    let answer = until_closed(&mut under_way);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(node.wait_ended().success());
}

fn until_closed(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("it is closed in good order");
    answer
}

/// Its own words for both: one that ends before anything has changed, and one that fails when it is its turn.
#[test]
fn a_process_that_cannot_serve_leaves_all_as_it_was() {
    let node = Setup::up().config("[node]\n").start();
    let file = node.data().with_file_name("hydrant.toml");
    let runtime = hydrant_harness::runtime();
    let before = (serving(&node), processes(&node));
    let loads = loads(&node, &runtime);
    let wrong = [
        "[node]\nsever = \"one\"\n",
        "[tls]\nlisten = \"127.0.0.1:0\"\n\n[[tls.certificate]]\n\
         certificate = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n",
    ];
    for text in wrong {
        std::fs::write(&file, text).unwrap();
        let output = node.run(&["restart"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{errors}");
        assert!(errors.contains("which goes on"), "{errors}");
        assert_eq!(before, (serving(&node), processes(&node)));
    }
    std::fs::write(&file, "[node]\n").unwrap();
    let told = node.json(&["restart"]);
    assert_eq!(told["before"], before.0);
    no_failure(&runtime, loads);
    assert_eq!(before.1, processes(&node));
}

/// Whichever of the two signals is seen first, no process is left that nobody knows of.
#[test]
fn who_asks_for_the_end_meanwhile_ends_the_new_process_too() {
    for _ in 0..4 {
        let mut node = Setup::node("").start();
        node.signal(Signal::USR2);
        node.signal(Signal::TERM);
        assert!(node.wait_ended().success());
        node.wait("nothing is left", |node| {
            node.started().is_empty().then_some(())
        });
    }
}

#[test]
fn nobody_is_asked_where_no_node_runs() {
    let node = Setup::up().start();
    let setup = node.kill();
    // The number may be anybody's by now: it is this process's, which lives on.
    let path = setup.data().join("node.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut told: Value = serde_json::from_str(&text).unwrap();
    told["pid"] = std::process::id().into();
    std::fs::write(&path, told.to_string()).unwrap();
    let mut command = hydrant_harness::node::command(env!("CARGO_BIN_EXE_hydrant").as_ref());
    let output = command
        .arg("--data")
        .arg(setup.data())
        .arg("restart")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no node runs"), "{errors}");
    drop(setup.start());
}

#[test]
fn systemd_is_told_which_process_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let told = || {
        let mut message = [0; 1024];
        let length = systemd.recv(&mut message).expect("it is told in time");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let ready = |pid: u32| format!("READY=1\nMAINPID={pid}\n");
    let setup = Setup::node("").env("NOTIFY_SOCKET", path.to_string_lossy().into());
    let node = setup.start();
    assert_eq!(told(), ready(serving(&node)));
    node.json(&["restart"]);
    assert_ne!(serving(&node), node.pid());
    assert_eq!(told(), ready(serving(&node)));
}

/// The instances of the server are there for the others all the while.
#[test]
fn the_fleet_sees_no_gap() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let fleet = engines.fleet(Duration::from_secs(10));
    let spawn = |server: &str, services: String| fleet.server(server, "a", &services).spawn();
    let mut one = spawn("one", String::new());
    let mut two = spawn("two", echo::table("api/echo", "two", 2));
    one.wait_ready();
    two.wait_ready();
    let there = |node: &Node| node.instances("api/echo").len();
    one.wait("both are there", |node| (there(node) == 2).then_some(()));
    let runtime = hydrant_harness::runtime();
    let load = {
        let _inside = runtime.enter();
        Load::start(one.public(), "/api/echo/who", 8, Duration::from_millis(5))
    };
    one.wait("the load has begun", |_| (load.good() > 50).then_some(()));
    for _ in 0..3 {
        two.json(&["restart"]);
        for _ in 0..10 {
            assert_eq!(there(&one), 2);
            pause(Duration::from_millis(50));
        }
    }
    no_failure(&runtime, [load]);
    let health = two.json(&["health"]);
    assert_eq!(health["healthy"], true, "{health}");
}
