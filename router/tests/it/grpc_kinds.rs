//! gRPC of all four kinds, with a client and a server that nobody here wrote.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hydrant_contracts::Method;
use hydrant_harness::foreign;
use hydrant_router::Table;
use serde_json::Value;

use crate::http2::{instance, router};

const KINDS: [&str; 4] = [
    "Unary",
    "ServerStreaming",
    "ClientStreaming",
    "BothStreaming",
];

/// A server of grpcio, until it is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(scripts: &Path) -> Self {
        let mut process = script(scripts, "serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("its port");
        Self {
            process,
            address: ([127, 0, 0, 1], port).into(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn script(scripts: &Path, mode: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(scripts.join("grpc_kinds.py"))
        .arg(mode)
        .env("PYTHONPATH", scripts);
    command
}

#[test]
fn all_kinds_of_grpc_pass_between_a_client_and_a_server_that_nobody_here_wrote() {
    let Some(scripts) = foreign::pypi(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let server = Server::start(&scripts);
    let mut kinds = instance(1, server.address, true);
    kinds.methods = KINDS
        .map(|name| Method {
            path: format!("kinds.v1.Kinds/{name}").parse().unwrap(),
            idempotent: false,
        })
        .into();
    let router = router(&[]);
    router.publish(&Table::of_one_server(&[kinds]));
    let address = router.public_addr().to_string();
    let output = script(&scripts, "call").arg(address).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let cases: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(cases.len(), 15, "{complaint}");
    for case in cases {
        assert_eq!(case["ok"], true, "{case}");
    }
}
