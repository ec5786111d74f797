//! What stays open: WebSockets and server-sent events, through the public listener.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::foreign;
use crate::harness::{Node, Setup};
use crate::web::Shim;

/// How long an event may take on a busy machine. One that waits for the next, or for the end of
/// the answer, does not come at all.
const BOUND: Duration = Duration::from_secs(5);

#[test]
fn messages_go_both_ways_over_a_websocket() {
    let Some(scripts) = foreign::npm() else {
        return;
    };
    let node = Setup::up().start();
    let mut server = Shim::start(&node, &scripts, &["node", "websocket.mjs", "serve"]);
    let began = Instant::now();
    let seen = echoed(&scripts, &node, "/api/web/some/path?a=b");
    println!(
        "100 messages, 328 KB, there and back in {:?}",
        began.elapsed()
    );
    assert_eq!(
        (&seen["echoed"], &seen["code"]),
        (&100.into(), &1000.into()),
        "{seen}"
    );
    // Where nothing answers, there is no WebSocket either.
    let seen = echoed(&scripts, &node, "/api/nobody/");
    assert_eq!(seen["error"], "Unexpected server response: 404", "{seen}");
    server.stop();
}

#[test]
fn an_event_arrives_when_it_is_sent() {
    let Some(scripts) = foreign::npm() else {
        return;
    };
    let node = Setup::up().start();
    let mut server = Shim::start(&node, &scripts, &["node", "events-server.mjs"]);
    let runtime = hydrant_harness::runtime();
    let slowest = runtime.block_on(slowest_event(&node, 50));
    println!("50 events, the slowest after {slowest:?}");
    server.stop();
}

/// Has events sent one after the other, each when the one before has arrived; gives the longest
/// time that one took.
async fn slowest_event(node: &Node, events: usize) -> Duration {
    let url = format!("http://{}/api/web", node.public());
    let client = reqwest::Client::new();
    let mut stream = client.get(format!("{url}/events")).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut slowest = Duration::ZERO;
    for number in 0..events {
        let (text, began) = (format!("event {number}"), Instant::now());
        let sent = client.post(format!("{url}/send")).body(text.clone()).send();
        assert_eq!(sent.await.unwrap().status(), 204);
        let event = tokio::time::timeout(BOUND, stream.chunk()).await;
        let event = event.unwrap_or_else(|_| panic!("{text} has not come within {BOUND:?}"));
        assert_eq!(event.unwrap().unwrap(), format!("data: {text}\n\n"));
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

/// Sends 100 messages over a WebSocket, each when the echo of the one before has come.
fn echoed(scripts: &Path, node: &Node, path: &str) -> Value {
    let url = format!("ws://{}{path}", node.public());
    let output = Command::new("node")
        .arg(scripts.join("websocket.mjs"))
        .arg(url)
        .output();
    let Output { stdout, stderr, .. } = output.expect("the client starts");
    serde_json::from_slice(&stdout)
        .unwrap_or_else(|_| panic!("no outcome: {}", String::from_utf8_lossy(&stderr)))
}
