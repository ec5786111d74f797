//! Receivers that work, that are away, and that stall: the node goes on in each case.

use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_harness::Carbon;

use super::collector::Collector;
use crate::foreign;
use crate::harness::{Node, Setup, is_there};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A web server that prints 400 bytes a line, as fast as it can, once it was asked to.
const NOISE: &str = r#"
import http.server, sys, threading
def noise():
    for number in range(120000):
        print("noise %d %s" % (number, "x" * 400))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("/noise"):
            threading.Thread(target=noise, daemon=True).start()
        self.send_response(200)
        self.end_headers()
    def log_message(self, *ignored):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn noisy(folder: &Path) -> String {
    let path = folder.join("noise.py");
    std::fs::write(&path, NOISE).unwrap();
    format!(
        "[[service]]\nname = \"noise\"\ntier = \"api\"\nversion = \"1.0.0\"\n\
         command = [\"python3\", {path:?}, \"$PORT\"]\n"
    )
}

fn wait(what: &str, mut found: impl FnMut() -> bool) {
    assert!(
        hydrant_harness::wait_until(PATIENCE, &mut found),
        "{what}: not in time"
    );
}

fn metric(node: &Node, name: &str) -> u64 {
    let url = format!("http://{}/metrics", node.local());
    let client = hydrant_harness::runtime();
    let text = client
        .block_on(async { reqwest::get(url).await?.text().await })
        .unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
}

/// What a process has in memory, in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
    kilobytes.unwrap() * 1024
}

#[test]
fn carbon_keeps_what_the_node_counts_also_while_it_was_away() {
    let Some(packages) = foreign::graphite() else {
        return;
    };
    let carbon = Carbon::start(&packages);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[node]\nserver = \"shop-1\"\n[telemetry]\n\
         graphite = {{ address = \"{}\", prefix = \"test.hydrant\", interval = \"1s\" }}\n{}",
        carbon.address(),
        noisy(folder.path())
    );
    let node = Setup::up().config(&text).start();
    let uptime = "test.hydrant.shop-1.node_uptime_seconds";
    wait("carbon has values", || carbon.values(uptime).len() > 2);
    wait("the service runs", || {
        let running = carbon.values("test.hydrant.shop-1.supervised_running.api_noise");
        running.last() == Some(&1.0)
    });
    let before = carbon.values(uptime);
    carbon.kill();
    wait("the node notices", || {
        node.errors().contains("telemetry is not taken")
    });
    carbon.restart();
    wait("what waited is there too", || {
        let values = carbon.values(uptime);
        let gaps = values.windows(2).map(|two| two[1] - two[0]);
        let largest = gaps.fold(0.0, f64::max);
        println!(
            "{} values, at most {largest:.1} s between two",
            values.len()
        );
        // What the killed daemon had read and not yet kept is lost there.
        values.len() > before.len() + 8 && largest < 8.0
    });
    assert_eq!(
        metric(&node, "hydrant_export_dropped_total{to=\"graphite\"}"),
        0
    );
    wait("the node notices", || {
        node.errors().contains("telemetry is taken again")
    });
}

#[test]
fn a_collector_that_stalls_stops_nobody() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let collector = Collector::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("splunk.token"), "canary-of-splunk\n").unwrap();
    let text = format!(
        "[node]\nserver = \"shop-1\"\n[telemetry]\n\
         splunk = {{ url = \"{}\", token_file = {:?} }}\n{}",
        collector.url(),
        folder.path().join("splunk.token"),
        noisy(folder.path())
    );
    let node = Setup::up().config(&text).start();
    let get = |path: &str| {
        let url = format!("http://{}{path}", node.public());
        let begun = Instant::now();
        let client = hydrant_harness::runtime();
        let status = client.block_on(async { reqwest::get(url).await.unwrap().status() });
        assert!(status.is_success(), "{path}: {status}");
        begun.elapsed()
    };
    let has = |source: &str, part: &str| {
        let events = collector.events();
        let mut events = events.iter().filter(|event| event["source"] == source);
        events.any(|event| {
            event["event"]["message"]
                .as_str()
                .is_some_and(|text| text.contains(part))
        })
    };
    wait("lines of services come", || has("api/mobile", "answering"));
    let first = collector.events().remove(0);
    assert_eq!(
        (&first["host"], &first["sourcetype"]),
        (&"shop-1".into(), &"hydrant".into())
    );
    assert!(first["time"].as_f64().unwrap() > 1.6e9, "{first}");
    assert!(
        collector
            .tokens()
            .iter()
            .all(|token| token == "Splunk canary-of-splunk")
    );

    collector.stall(true);
    let before = memory(node.pid());
    get("/api/noise/noise");
    let (mut most, mut slowest) = (0, Duration::ZERO);
    let dropped = || metric(&node, "hydrant_export_dropped_total{to=\"splunk\"}");
    wait("lines are left out", || {
        slowest = slowest.max(get(
            "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US",
        ));
        most = most.max(memory(node.pid()));
        dropped() > 50_000
    });
    let grown = most.saturating_sub(before) >> 20;
    println!(
        "{} lines left out, memory grew by {grown} MB, slowest request {slowest:?}",
        dropped()
    );
    assert!(grown < 200, "memory grew by {grown} MB");
    wait("it is told", || {
        node.errors()
            .contains("\"message\":\"telemetry is not taken\"")
    });

    collector.stall(false);
    wait("the newest lines come", || {
        has("api/noise", "noise 119999 ")
    });
    wait("lines of the node come too", || {
        has("node", "telemetry is taken again")
    });
    assert!(!node.errors().contains("canary-of-splunk"));
}
