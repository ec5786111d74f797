//! A request with a key counts once, also when the process that works on it is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Node, Setup, is_there, kill, pause};

const PROGRAM: &str = "hydrant-example-registration";
const SIGN_UP: &str = "/api/registration/registration.v1.Registration/SignUp";
const PATIENCE: Duration = Duration::from_secs(90);

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }
}

async fn sign_up(url: String, key: String, name: &'static str) -> reqwest::Result<Answer> {
    let body = json!({ "name": name, "email": "ada@example.com" });
    let request = reqwest::Client::new().post(url).json(&body);
    let answer = request.header("idempotency-key", key).send().await?;
    Ok(Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.json().await.unwrap_or_default(),
    })
}

/// Creates a customer, as soon as it may.
const ONBOARDING: &str = r#"
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer("text/plain", b"well")
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        with open("ran", "a") as file:
            file.write("ran\n")
        while os.path.exists("hold"):
            time.sleep(0.05)
        self.answer(self.headers["content-type"], b"\x0a\x03c-1\x10\x01")
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
os.chdir(sys.argv[2])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// `api/registration` of the example, over a flow that the test holds up.
struct Stage {
    node: Node,
    folder: tempfile::TempDir,
}

impl Stage {
    /// When the example is not built, that is said aloud.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_hydrant")).with_file_name(PROGRAM);
        if !program.is_file() || !is_there("python3") {
            hydrant_harness::skipped(format!("{} or python3 is not here", program.display()));
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = folder.path().join("onboarding.py");
        std::fs::write(&script, ONBOARDING).expect("the folder can be written");
        let text = format!(
            "[[service]]\nname = \"registration\"\ntier = \"api\"\nversion = \"1.0.0\"\n\
             command = [{program:?}, \"registration\"]\nsdk = true\ninstances = 2\n\
             [[service]]\nname = \"onboarding\"\ntier = \"orchestration\"\nversion = \"1.0.0\"\n\
             command = [\"python3\", {script:?}, \"$PORT\", {:?}]\n",
            folder.path()
        );
        let node = Setup::node(&text).start();
        node.wait("all is ready", |node| {
            let instances = node.instances("*");
            let ready = instances.iter().filter(|one| one["state"] == "ready");
            (ready.count() == 3).then_some(())
        });
        Some(Self { node, folder })
    }

    fn hold(&self, is_held: bool) {
        let path = self.folder.path().join("hold");
        match is_held {
            true => std::fs::write(path, "").expect("the folder can be written"),
            false => std::fs::remove_file(path).expect("it is held"),
        }
    }

    /// How often the handler has done what it does.
    fn ran(&self) -> usize {
        let told = std::fs::read_to_string(self.folder.path().join("ran"));
        told.unwrap_or_default().lines().count()
    }

    fn url(&self) -> String {
        format!("http://{}{SIGN_UP}", self.node.public())
    }

    fn kill_the_registration(&self) {
        for instance in self.node.instances("registration") {
            let pid = instance["pid"].as_u64().expect("a process");
            kill(pid as u32, Signal::KILL);
        }
    }
}

#[test]
fn a_process_is_killed_in_the_handler_and_the_retry_takes_over() {
    let Some(stage) = Stage::start() else { return };
    let runtime = hydrant_harness::runtime();
    let key = uuid::Uuid::new_v4().to_string();
    let ask = |name| runtime.block_on(sign_up(stage.url(), key.clone(), name));
    stage.hold(true);
    let first = runtime.spawn(sign_up(stage.url(), key.clone(), "Ada"));
    until(|| (stage.ran() == 1).then_some(()));
    let told = ask("Ada").expect("an answer");
    assert_eq!(told.status, 409);
    assert_eq!(told.headers["retry-after"], "1");
    assert!(told.headers.contains_key("idempotency-lease"));
    assert_eq!(ask("Bob").expect("an answer").status, 422);
    stage.kill_the_registration();
    let began = Instant::now();
    let first = runtime.block_on(first).expect("it ends");
    assert!(first.is_err() || first.is_ok_and(|answer| answer.status >= 500));
    stage.hold(false);
    let taken = until(|| ask("Ada").ok().filter(|answer| answer.status == 200));
    println!(
        "taken over {:?} after the process was killed",
        began.elapsed()
    );
    assert!(!taken.is_replayed(), "it ran again: {}", taken.body);
    let again = ask("Ada").expect("an answer");
    assert!(again.is_replayed() && again.headers.contains_key("idempotency-remembered"));
    assert_eq!((again.status, &again.body), (200, &taken.body));
    assert_eq!(again.body["customerId"], "c-1", "{}", again.body);
    assert_eq!(ask("Bob").expect("an answer").status, 422);
    assert_eq!(
        stage.ran(),
        2,
        "once before the process died, and once after"
    );
}

#[test]
fn of_many_at_once_one_runs_and_all_learn_its_outcome() {
    let Some(stage) = Stage::start() else { return };
    let runtime = hydrant_harness::runtime();
    let url = stage.url();
    let key = uuid::Uuid::new_v4().to_string();
    let all = (0..20).map(|_| runtime.spawn(sign_up(url.clone(), key.clone(), "Ada")));
    let all: Vec<_> = all.collect();
    let mut ran = 0;
    for request in all {
        let answer = runtime.block_on(request).expect("it ends");
        let answer = answer.expect("an answer");
        assert!([200, 409].contains(&answer.status), "{}", answer.body);
        ran += usize::from(answer.status == 200 && !answer.is_replayed());
    }
    assert_eq!(ran, 1);
    let late = runtime
        .block_on(sign_up(url, key, "Ada"))
        .expect("an answer");
    assert!(
        late.is_replayed() && late.body["isNew"] == true,
        "{}",
        late.body
    );
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it happens in time");
        pause(Duration::from_millis(300));
    }
}
