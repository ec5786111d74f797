//! Sources that go wrong in every way: the app's answer stays right, and the alarm names the source.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Setup, pause};

const INIT: &str = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";
const GOOD: &str = r#"{"data": {"apples": 3}}"#;

fn sources(upstream: SocketAddr) -> String {
    format!(
        r#"
[[source]]
name = "shop"
url = "http://{upstream}/shop"
interval = "300ms"
timeout = "400ms"
max_size = "10KB"
pointer = "/data"
schema = "shop.schema.json"
bearer = {{ file = "shop.token" }}

[[source]]
name = "quiet"
file = "quiet.json"
interval = "1s"
"#
    )
}

const SCHEMA: &str = r#"{"type": "object", "required": ["apples"]}"#;

/// What an upstream does wrong, and what the alarm says.
const FAULTS: [(&str, &str); 10] = [
    ("down", ""),
    ("slow", "no answer in 400 ms"),
    ("drips", "no answer in 400 ms"),
    ("promises more", "end of file"),
    ("promises less", "not JSON"),
    ("garbage", "not JSON"),
    ("bytes", ""),
    ("other", "does not fit the schema"),
    ("500", "500"),
    ("leads home", "private address"),
];

#[test]
fn whatever_an_upstream_does_the_answer_stays_right_and_the_alarm_names_the_source() {
    let (upstream, victim) = (Upstream::start(), Upstream::start());
    upstream.leads_to(victim.address);
    let setup = Setup::up();
    install(&setup, upstream.address);
    let node = setup.start();
    let init = Client::new(&node);
    init.wait("the good value", |shop| shop["stale"] == false);
    for (fault, part) in FAULTS {
        upstream.set(fault);
        let began = Instant::now();
        let status = node.wait(fault, |node| {
            let shop = init.shop();
            assert_eq!(shop["value"], json!({"apples": 3}), "{fault}: {shop}");
            let status = node.json(&["mobile", "status"]);
            let text = status["alarms"].to_string();
            (text.contains("`shop`") && text.contains(part)).then_some(status)
        });
        println!(
            "{fault}: {} after {:?}",
            status["alarms"][0]["message"],
            began.elapsed()
        );
        assert_eq!(init.shop()["stale"], true, "{fault}");
        assert_eq!(status["alarms"][0]["name"], "source/shop", "{fault}");
        assert!(!status["alarms"][0]["mend"].as_str().unwrap().is_empty());
        assert!(!status.to_string().contains("canary"), "{status}");
        let check = node.run(&["mobile", "status", "--check"]);
        assert_eq!(check.status.code(), Some(5), "{fault}");
        upstream.set("well");
        init.wait("well again", |shop| shop["stale"] == false);
    }
    assert_eq!(victim.requests(), 0, "nobody was led there");
    node.wait("no alarm", |node| {
        let status = node.run(&["mobile", "status", "--check"]);
        (status.status.code() == Some(0)).then_some(())
    });
    assert!(!node.errors().contains("canary"));
}

#[test]
fn the_last_good_value_survives_a_restart_of_everything_and_the_loss_of_the_state() {
    let upstream = Upstream::start();
    let setup = Setup::up();
    install(&setup, upstream.address);
    let node = setup.start();
    Client::new(&node).wait("the good value", |shop| shop["stale"] == false);
    // What is kept is kept within moments.
    pause(Duration::from_secs(2));
    upstream.set("down");
    let mut setup = node.kill_server();
    for lost in ["nothing", "the state"] {
        if lost == "the state" {
            let path = setup.data().join("store.redb");
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let node = setup.start();
        let client = Client::new(&node);
        let shop = client.wait(lost, |shop| {
            shop["value"] == json!({"apples": 3}) && shop["stale"] == true
        });
        println!("lost {lost}: {shop}");
        assert_eq!(client.value("quiet"), json!([1]));
        setup = node.kill_server();
    }
}

#[test]
fn a_service_of_a_lower_tier_is_asked_by_a_courier() {
    let setup = Setup::up();
    let text = r#"
[[source]]
name = "shop"
service = "service/mobile/hydrant.mobile.v1.Operations/Status"
pointer = "/leader"
interval = "300ms"
"#;
    write(&setup, "sources.toml", text);
    let node = setup.start();
    let client = Client::new(&node);
    let shop = client.wait("the answer of the service", |shop| {
        shop["value"].is_string()
    });
    assert!(
        shop["value"].as_str().unwrap().starts_with("mobile-"),
        "{shop}"
    );
    node.json(&["scale", "api/mobile", "0"]);
    node.wait("nobody brings it", |node| {
        let status = node.json(&["mobile", "status"]);
        let reason = status["sources"][0]["reason"].as_str()?.to_owned();
        reason.contains("no process of api/mobile").then_some(())
    });
    node.json(&["scale", "api/mobile", "2"]);
    client.wait("it is brought again", |shop| shop["stale"] == false);
}

fn install(setup: &hydrant_harness::node::Setup, upstream: SocketAddr) {
    write(setup, "sources.toml", &sources(upstream));
    write(setup, "shop.schema.json", SCHEMA);
    write(setup, "shop.token", "canary-token\n");
    write(setup, "quiet.json", "[1]");
}

fn write(setup: &hydrant_harness::node::Setup, name: &str, text: &str) {
    let demo = setup.data().join("demo");
    fs::create_dir_all(&demo).unwrap();
    fs::write(demo.join(name), text).unwrap();
}

/// An app.
struct Client<'a> {
    node: &'a Node,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Client<'a> {
    fn new(node: &'a Node) -> Self {
        Self {
            node,
            http: reqwest::Client::new(),
            runtime: hydrant_harness::runtime(),
        }
    }

    fn sources(&self) -> Value {
        let url = format!("http://{}{INIT}", self.node.public());
        self.runtime.block_on(async {
            let answer = self.http.get(url).send().await.unwrap();
            let body: Value = answer.json().await.unwrap();
            body["sources"].clone()
        })
    }

    fn shop(&self) -> Value {
        self.sources()["shop"].clone()
    }

    fn value(&self, source: &str) -> Value {
        self.sources()[source]["value"].clone()
    }

    fn wait(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        self.node
            .wait(what, |_| Some(self.shop()).filter(|shop| found(shop)))
    }
}

/// A web server that does what a test says, also what no server may.
struct Upstream {
    address: SocketAddr,
    mode: Arc<Mutex<String>>,
    place: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(Mutex::new("well".into())),
            place: Arc::default(),
            requests: Arc::default(),
            ended: Arc::default(),
        };
        let (mode, place) = (Arc::clone(&upstream.mode), Arc::clone(&upstream.place));
        let (requests, ended) = (Arc::clone(&upstream.requests), Arc::clone(&upstream.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                requests.fetch_add(1, Ordering::Relaxed);
                let mode = mode.lock().unwrap().clone();
                let place = place.lock().unwrap().clone();
                std::thread::spawn(move || answer(stream, &mode, &place));
            }
        });
        upstream
    }

    fn set(&self, mode: &str) {
        *self.mode.lock().unwrap() = mode.to_owned();
    }

    fn leads_to(&self, address: SocketAddr) {
        *self.place.lock().unwrap() = format!("http://{address}/");
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request of a connection, and closes it.
fn answer(mut stream: TcpStream, mode: &str, place: &str) -> Option<()> {
    if mode == "down" {
        return None;
    }
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let with = |length: usize, body: &str| {
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let text = match mode {
        "slow" => {
            pause(Duration::from_secs(3));
            with(GOOD.len(), GOOD)
        }
        "drips" => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            for _ in 0..40 {
                write!(stream, " ").ok()?;
                pause(Duration::from_millis(50));
            }
            return None;
        }
        "promises more" => with(GOOD.len() + 100, GOOD),
        "promises less" => with(GOOD.len() - 1, GOOD),
        "garbage" => with(6, "<html>"),
        "bytes" => "\u{1}\u{2}\u{3}\r\n\r\n".into(),
        "other" => with(22, r#"{"data": {"pears": 3}}"#),
        "500" => "HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
        "leads home" => format!(
            "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        ),
        _ => with(GOOD.len(), GOOD),
    };
    stream.write_all(text.as_bytes()).ok()
}
