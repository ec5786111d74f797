//! Watching what passes: `tap`, `top` and the access log.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::echo;
use crate::harness::{Node, Setup, pause};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "hunter2hunter2";

fn start() -> Node {
    let services = echo::table("api/echo", "one", 1);
    let mut node = Setup::node(&format!("{services}\n[telemetry]\naccess_log = 1\n")).start();
    node.wait_ready();
    node.wait("the echo is there", |node| {
        let ready = |one: &Value| one["state"] == "ready";
        node.instances("api/echo").iter().any(ready).then_some(())
    });
    node
}

fn get(to: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks again and again until the command has what it waits for, and gives its lines.
fn until_ended(mut command: Child, ask: impl Fn()) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    while command.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the command ends");
        ask();
        pause(Duration::from_millis(20));
    }
    let mut text = String::new();
    command
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text.lines().map(str::to_owned).collect()
}

fn tap(node: &Node, arguments: &[&str]) -> Child {
    let arguments = [&["tap"], arguments].concat();
    node.command(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn requests_are_seen_as_they_pass_without_their_secrets() {
    let node = start();
    let asked = format!("/api/echo/who?password={SECRET}&b=c");
    let json = tap(
        &node,
        &["--json", "-n", "2", "echo", "--path", "/api/echo/w"],
    );
    let lines = until_ended(json, || {
        get(node.public(), "/api/echo/elsewhere");
        assert!(get(node.public(), &asked).starts_with("HTTP/1.1 200"));
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    let told: Value = serde_json::from_str(&lines[0]).unwrap();
    let known = [
        ("method", "GET"),
        ("host", "shop.test"),
        ("protocol", "HTTP/1.1"),
        ("client", "127.0.0.1"),
        ("caller", "outside"),
        ("service", "api/echo"),
        ("version", "1.0.0"),
    ];
    for (name, value) in known {
        assert_eq!(told[name], value, "{told}");
    }
    assert_eq!(
        (&told["status"], &told["attempts"]),
        (&200.into(), &1.into())
    );
    assert_eq!(told["failure"], Value::Null);
    assert!(told["duration_us"].as_u64().unwrap() > 0, "{told}");
    let target = told["target"].as_str().unwrap();
    assert!(target.starts_with("/api/echo/who?password="), "{target}");
    assert!(
        target.ends_with("&b=c") && !target.contains(SECRET),
        "{target}"
    );

    let failed = tap(&node, &["-n", "1", "--failed"]);
    let lines = until_ended(failed, || {
        get(node.public(), &asked);
        assert!(get(node.public(), "/api/nobody/x").starts_with("HTTP/1.1 404"));
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let shown = [
        "404",
        "GET /api/nobody/x",
        "for outside",
        "no_such_service: ",
    ];
    assert!(
        shown.iter().all(|part| lines[0].contains(part)),
        "{lines:?}"
    );

    let logged = node.wait("the access log has both", |node| {
        let errors = node.errors();
        let has = |part: &str| {
            errors
                .lines()
                .any(|line| line.contains("hydrant::access") && line.contains(part))
        };
        (has("/api/echo/who?password=") && has("no_such_service")).then_some(errors)
    });
    assert!(!logged.contains(SECRET), "{logged}");
}

#[test]
fn services_are_shown_as_they_are_now() {
    let node = start();
    for _ in 0..20 {
        get(node.public(), "/api/echo/who");
    }
    let output = node.run(&["top", "-n", "2", "--every", "300ms", "api/echo"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let (first, second) = text.split_once("\n\n").expect("two tables");
    for (table, errors) in [(first, "-"), (second, "0.0")] {
        let rows: Vec<Vec<_>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let [header, service, instance] = &rows[..] else {
            panic!("{table}");
        };
        assert_eq!(header[..3], ["SERVICE", "VERSION", "SERVER"]);
        assert_eq!(service[..2], ["api/echo", "1.0.0"]);
        assert_eq!(service[service.len() - 2..], ["1", "in"]);
        assert!(service[2].parse::<f64>().unwrap() > 0.0, "{table}");
        assert!(
            instance[0].starts_with("echo-") && instance.ends_with(&["0", "in"]),
            "{table}"
        );
        assert_eq!(instance[4], errors, "{table}");
    }
}
