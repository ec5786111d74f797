//! What the commands print: help, tables, JSON and errors.

mod mobile;
mod rules;
mod submissions;

use crate::fake_node;
use crate::golden::Transcript;

const COMMANDS: &[&str] = &[
    "up",
    "node",
    "run",
    "call",
    "list",
    "stats",
    "explain",
    "health",
    "logs",
    "scale",
    "token",
    "state",
    "completions",
];

#[test]
fn help() {
    let mut transcript = Transcript::default();
    transcript.run(&[], &["--help"]);
    for command in COMMANDS {
        transcript.run(&[], &[command, "--help"]);
    }
    for command in ["get", "put", "list", "watch", "delete"] {
        transcript.run(&[], &["state", command, "--help"]);
    }
    transcript.check("help.txt");
}

#[test]
fn mistakes_have_one_clear_line_and_their_exit_code() {
    let mut transcript = Transcript::default();
    for line in [
        &["list"][..],
        &["--json", "list"],
        &["--data", "/nonexistent/data", "health"],
        &["--url", "http://127.0.0.1:1", "list"],
        &["--url", "127.0.0.1:8081", "list"],
        &["call", "greeter"],
        &["call", "greet.v1.Greet/Hello", "{name: Ann}"],
        &["explain", "GET", "/", "-H", "accept"],
        &["token", "greeter"],
        &["state", "get", "key"],
        &["state", "--namespace", "mobile", "get", "key"],
        &["scale", "mobile", "many"],
        &["logs", "--tail", "0"],
        &["up", "--public", "8080"],
        &["node", "--config", "/nonexistent/hydrant.toml"],
        &["lost"],
    ] {
        transcript.run(&[], line);
    }
    transcript.check("mistakes.txt");
}

#[test]
fn tables() {
    let url = fake_url();
    let mut transcript = Transcript::default();
    for line in [
        &["list"][..],
        &["list", "api/*"],
        &["health"],
        &["stats"],
        &["stats", "mobile-7f3a"],
        &["explain", "GET", "/api/mobile/v1/init"],
        &["logs", "mobile"],
        &["scale", "api/mobile", "2"],
        &["scale", "api/files", "2", "--timeout", "300ms"],
        &["token", "service/greeter"],
        &["state", "--namespace", "service/mobile", "get", "snapshot"],
        &[
            "state",
            "--namespace",
            "service/mobile",
            "put",
            "snapshot",
            "{}",
        ],
        &["state", "--namespace", "service/mobile", "list"],
        &["state", "--namespace", "service/mobile", "watch"],
        &[
            "state",
            "--namespace",
            "service/mobile",
            "delete",
            "snapshot",
        ],
        &["call", "hydrant.v1.Node/Scale", "{}"],
        &["call", "/service/mobile/mobile.v1.Mobile/Refresh"],
    ] {
        transcript.run(&["--url", &url.0], line);
    }
    transcript.check_without(&url.0, "tables.txt");
}

#[test]
fn json() {
    let url = fake_url();
    let mut transcript = Transcript::default();
    for line in [
        &["--json", "list"][..],
        &["--json", "health"],
        &["--json", "stats"],
        &["--json", "explain", "GET", "/api/mobile/v1/init"],
        &["--json", "logs"],
        &["--json", "scale", "api/mobile", "2"],
        &["--json", "token", "service/greeter"],
        &[
            "--json",
            "state",
            "--namespace",
            "service/mobile",
            "get",
            "snapshot",
        ],
        &[
            "--json",
            "state",
            "--namespace",
            "service/mobile",
            "put",
            "snapshot",
            "{}",
        ],
        &["--json", "state", "--namespace", "service/mobile", "list"],
        &["--json", "state", "--namespace", "service/mobile", "watch"],
        &[
            "--json",
            "state",
            "--namespace",
            "service/mobile",
            "delete",
            "snapshot",
        ],
        &["--json", "call", "hydrant.v1.Node/Scale"],
        &["--json", "call", "/service/mobile/mobile.v1.Mobile/Refresh"],
    ] {
        transcript.run(&["--url", &url.0], line);
    }
    transcript.check_without(&url.0, "json.txt");
}

/// What a fleet adds: servers beside each other, and one that does not answer.
#[test]
fn fleet() {
    let url = fake_url_of(true);
    let mut transcript = Transcript::default();
    for line in [
        &["list"][..],
        &["list", "--server", "desk"],
        &["health"],
        &["health", "--server", "desk"],
        &["health", "--server", "shed"],
        &["health", "--server", "attic"],
        &["stats"],
        &["stats", "--server", "desk"],
        &["logs", "-n", "3"],
        &["explain", "--server", "desk", "GET", "/api/mobile/v1/init"],
        &["--json", "health"],
        &["--json", "stats"],
        &["--json", "logs", "-n", "3"],
    ] {
        transcript.run(&["--url", &url.0], line);
    }
    transcript.check_without(&url.0, "fleet.txt");
}

/// The URL of a fake node, which lives as long as this does.
struct FakeUrl(
    String,
    #[expect(dead_code, reason = "its end ends the node")] tokio::runtime::Runtime,
);

fn fake_url() -> FakeUrl {
    fake_url_of(false)
}

fn fake_url_of(fleet: bool) -> FakeUrl {
    match fleet {
        true => FakeUrl::of(fake_node::start_fleet()),
        false => FakeUrl::of(fake_node::start()),
    }
}

impl FakeUrl {
    fn of(node: impl Future<Output = std::net::SocketAddr>) -> Self {
        let runtime = hydrant_harness::runtime();
        let address = runtime.block_on(node);
        Self(format!("http://{address}"), runtime)
    }
}
