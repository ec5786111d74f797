//! Web servers that know nothing of Hydrant, and who may call whom.

use std::process::{Child, Stdio};

use reqwest::StatusCode;
use rustix::process::Signal;

use crate::harness::{Node, Setup, is_there, kill};

#[test]
fn an_unmodified_python_server_runs_behind_the_host() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let node = Setup::up().start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "from python").unwrap();
    let command = [
        "python3",
        "-m",
        "http.server",
        "$PORT",
        "--bind",
        "127.0.0.1",
    ];
    let mut server = Shim::start(&node, folder.path(), &command);
    let (status, text) = get(&node, "/api/web/a.txt", &[]);
    assert_eq!((status, text.as_str()), (StatusCode::OK, "from python"));
    server.stop();
    let listed = node.instances("web");
    let takes_requests = listed.iter().any(|one| one["state"] == "ready");
    assert!(!takes_requests, "it left before it ended: {listed:?}");
    node.wait("it is gone", |node| {
        node.instances("web").is_empty().then_some(())
    });
    let (status, text) = get(&node, "/api/web/a.txt", &[]);
    assert!(
        status.is_client_error() || status.is_server_error(),
        "{status} {text}"
    );
}

#[test]
fn an_unmodified_node_server_runs_behind_the_host() {
    if !is_there("node") {
        println!("SKIPPED: node is not here");
        return;
    }
    let node = Setup::up().start();
    let folder = tempfile::tempdir().unwrap();
    let program = "require('http').createServer((request, answer) => answer.end(request.url))\
                   .listen(process.env.PORT, '127.0.0.1')";
    let mut server = Shim::start(&node, folder.path(), &["node", "-e", program]);
    let (status, text) = get(&node, "/api/web/some/path?a=b", &[]);
    assert_eq!((status, text.as_str()), (StatusCode::OK, "/some/path?a=b"));
    server.stop();
}

#[test]
fn tiers_are_kept_and_identity_is_not_claimed() {
    let node = Setup::up().start();
    let token = |service: &str| {
        node.json(&["token", service])["token"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let method = "/service/mobile/x";
    let from = |token: &str| local(&node, method, &[("hydrant-token", token)]);
    let (status, body) = from(&token("service/other"));
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    assert!(body.contains("tier_refused"), "{body}");
    for caller in ["api/other", "orchestration/other"] {
        assert_ne!(from(&token(caller)).0, StatusCode::FORBIDDEN, "{caller}");
    }
    assert_eq!(from("h1.operator.forged").0, StatusCode::UNAUTHORIZED);
    let claims = [
        ("hydrant-caller", "operator"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    assert_eq!(local(&node, method, &claims).0, StatusCode::FORBIDDEN);
    assert_eq!(get(&node, method, &claims).0, StatusCode::FORBIDDEN);
}

/// `hydrant run` as a person starts it, as the service api/web.
pub struct Shim(Child);

impl Shim {
    pub fn start(node: &Node, folder: &std::path::Path, server: &[&str]) -> Self {
        let arguments = ["run", "--service", "web", "--version", "1.0.0", "--"];
        let child = node
            .command(&[&arguments, server].concat())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let shim = Self(child);
        node.wait("the server is ready", |node| {
            let instances = node.instances("web");
            instances
                .iter()
                .any(|one| one["state"] == "ready")
                .then_some(())
        });
        shim
    }

    pub fn stop(&mut self) {
        kill(self.0.id(), Signal::TERM);
        assert!(self.0.wait().expect("it can be awaited").success());
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // The server dies with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(node: &Node, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    request(&format!("http://{}{path}", node.public()), headers)
}

fn local(node: &Node, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    request(&format!("http://{}{path}", node.local()), headers)
}

fn request(url: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let runtime = hydrant_harness::runtime();
    runtime.block_on(async {
        let mut request = reqwest::Client::new().get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    })
}
