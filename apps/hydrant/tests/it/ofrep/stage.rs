//! A node with flags of every type and keys, and a client that is asked line by line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, Setup};

/// How long after a change all instances may answer as before, and long enough on a slow machine.
const LIVE: Duration = Duration::from_secs(30);

/// `hydrant up`, with what the tests evaluate.
pub struct Stage {
    pub node: Node,
    /// A key of the role client.
    pub key: String,
    /// One that may be used twice, and then once in two seconds.
    pub slow: String,
}

impl Stage {
    pub fn start() -> Self {
        let node = Setup::up().start();
        node.wait("changes are taken", |node| {
            let listed = node.run(&["mobile", "list", "flags"]);
            listed.status.success().then_some(())
        });
        let make = |name: &str, more: &[&str]| {
            let words = [
                "mobile", "key", "create", name, "--role", "client", "-m", "test",
            ];
            let made = node.json(&[&words[..], more].concat());
            made["key"].as_str().expect("a key").to_owned()
        };
        let key = make("app", &[]);
        let slow = make("slow", &["--rate", "0.5/s", "--burst", "2"]);
        let stage = Self { node, key, slow };
        stage.flags("Hello");
        stage
    }

    /// The base URL that clients are given.
    pub fn base(&self) -> String {
        format!("http://{}/api/mobile", self.node.public())
    }

    /// Puts the flags of the tests, with a greeting, and waits until it is live.
    pub fn flags(&self, greeting: &str) {
        let revision = self.put("flags", "tests", &flags(greeting));
        self.live(revision);
    }

    /// Puts a document; the revision.
    pub fn put(&self, kind: &str, name: &str, body: &Value) -> u64 {
        let change = json!({ "id": { "kind": kind, "name": name }, "body": body.to_string() });
        let request = json!({ "author": "test", "reason": "a test", "changes": [change] });
        let endpoint = "/service/mobile/hydrant.mobile.v1.Documents/Apply";
        let answer = self.node.json(&["call", endpoint, &request.to_string()]);
        let revision = &answer["revision"];
        let text = revision.as_str().map(str::to_owned);
        text.unwrap_or_else(|| revision.to_string())
            .parse()
            .unwrap_or_else(|_| panic!("a revision: {answer}"))
    }

    /// Waits until every instance answers from a revision, as far as many requests can tell.
    pub fn live(&self, revision: u64) {
        let (began, mut in_a_row) = (Instant::now(), 0);
        while in_a_row < 3 {
            let seen = self.oldest();
            in_a_row = match seen >= revision {
                true => in_a_row + 1,
                false => 0,
            };
            let waited = began.elapsed();
            assert!(waited < LIVE, "revision {revision} is not live: {seen}");
        }
        println!("revision {revision} was live after {:?}", began.elapsed());
    }

    /// The oldest revision that one of some requests is answered from, which come at once and so to all
    /// instances.
    fn oldest(&self) -> u64 {
        let ask = || self.post("/ofrep/v1/evaluate/flags", &[]).revision;
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
            let seen = asked.into_iter().map(|one| one.join().expect("an answer"));
            seen.min().unwrap_or_default()
        })
    }

    /// Asks as nobody, or with headers.
    pub fn post(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let runtime = hydrant_harness::runtime();
        let url = format!("{}{path}", self.base());
        let request = reqwest::Client::new().post(url).body("{}");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let header = |name: &str| {
                let value = answer.headers().get(name);
                value.map(|value| value.to_str().expect("text").to_owned())
            };
            Answer {
                status: answer.status().as_u16(),
                etag: header("etag").unwrap_or_default(),
                retry_after: header("retry-after"),
                revision: header("hydrant-revision").map_or(0, |text| text.parse().unwrap_or(0)),
                body: answer.json().await.unwrap_or_default(),
            }
        })
    }
}

pub struct Answer {
    pub status: u16,
    pub etag: String,
    pub retry_after: Option<String>,
    pub revision: u64,
    pub body: Value,
}

fn flags(greeting: &str) -> Value {
    let public = json!({ "public": true });
    json!({
        "flags": {
            "test-greeting": {
                "state": "ENABLED", "metadata": public,
                "variants": { "en": greeting, "de": "Hallo" }, "defaultVariant": "en",
                "targeting": { "if": [{ "==": [{ "var": "language" }, "de"] }, "de"] },
            },
            "test-switch": {
                "state": "ENABLED", "metadata": { "public": true, "owner": "ada" },
                "variants": { "on": true, "off": false }, "defaultVariant": "on",
            },
            "test-count": {
                "state": "ENABLED", "metadata": public,
                "variants": { "many": 42 }, "defaultVariant": "many",
            },
            "test-share": {
                "state": "ENABLED", "metadata": public,
                "variants": { "half": 0.5 }, "defaultVariant": "half",
            },
            "test-layout": {
                "state": "ENABLED", "metadata": public,
                "variants": { "wide": { "columns": 3 } }, "defaultVariant": "wide",
            },
            "test-hidden": {
                "state": "ENABLED",
                "variants": { "on": "for you" }, "defaultVariant": "on",
            },
        },
    })
}

/// A process that answers a line for each line.
pub struct Client {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        Self {
            questions: child.stdin.take().expect("a pipe"),
            answers: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    pub fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.questions, "{question}").expect("the client runs");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("the client runs");
        let answer = serde_json::from_str(&answer);
        answer.unwrap_or_else(|_| panic!("no answer to {question}"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
