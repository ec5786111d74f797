//! The page of `hydrant audit explore` in a real browser.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::foreign;
use crate::harness::{Node, Setup, pause};
use crate::ofrep::stage::Client;

const CHROMIUM: &str = "/usr/bin/chromium";
const PATIENCE: Duration = Duration::from_secs(60);
const MARKUP: &str = "<script>alert(1)</script>";

#[test]
fn who_does_not_know_yet_what_to_ask_finds_it_by_looking_around() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    for name in ["Ada", "Grace", "Edsger"] {
        stage.send("4711", name);
    }
    let odd = stage.send(MARKUP, "Bob");
    stage.delivered(&odd);
    let url = stage.explore();
    stage.ask(json!({ "do": "open", "url": url }));
    let all = stage.until("all is counted", |shown| {
        shown["facets"]["kind"]["accepted"] == "4"
    });
    let of_store = all["facets"]["store"]["4711"].as_str();
    let of_store: u64 = of_store.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(of_store >= 6, "each was accepted and submitted: {all}");
    assert!(
        all["bars"]
            .as_u64()
            .is_some_and(|bars| (1..=2).contains(&bars)),
        "{all}"
    );
    stage.shot("all");

    stage.ask(json!({ "do": "click", "name": MARKUP }));
    let narrowed = stage.shown();
    assert_eq!(narrowed["chips"], json!([MARKUP]), "{narrowed}");
    stage.ask(json!({ "do": "keys", "name": "accepted" }));
    let narrowed = stage.shown();
    assert_eq!(narrowed["chips"], json!(["accepted", MARKUP]), "{narrowed}");
    assert_eq!(
        narrowed["rows"].as_array().map(Vec::len),
        Some(1),
        "{narrowed}"
    );
    assert_eq!(narrowed["rows"][0]["Submission"], odd, "{narrowed}");
    assert!(
        narrowed["sum"]
            .as_str()
            .is_some_and(|sum| sum.starts_with("1 events, 0 failed"))
    );
    stage.shot("narrowed");

    // A link shows the same again.
    let link = narrowed["url"].clone();
    stage.ask(json!({ "do": "click", "name": odd }));
    let story = stage.shown();
    let text = story["text"].as_str().unwrap_or_default();
    for part in [
        "delivered",
        "Reference",
        "Receipt",
        "Deliveries",
        "demo-consumer",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    stage.shot("story");
    stage.ask(json!({ "do": "go", "url": link }));
    assert_eq!(stage.shown()["rows"], narrowed["rows"]);

    let link = link.as_str().expect("a URL");
    let csv = stage.ask(json!({ "do": "status", "url": link.replace("/?", "/events.csv?") }));
    let lines: Vec<_> = csv["body"].as_str().unwrap_or_default().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[1].contains(",accepted,ok,") && lines[1].contains(MARKUP),
        "{lines:?}"
    );
    stage.fits_all_sizes(link);
    assert_eq!(stage.ask(json!({ "do": "violations" })), json!([]));
}

#[test]
fn the_page_opens_once_and_for_this_machine_alone() {
    let Some(mut stage) = Stage::start() else {
        return;
    };
    let url = stage.explore();
    let base = url.split_once("?").expect("a key").0.to_owned();
    let before = stage.ask(json!({ "do": "status", "url": base }));
    assert_eq!(
        (before["ours"].as_u64(), before["theirs"].as_u64()),
        (Some(403), Some(403))
    );
    let opened = stage.ask(json!({ "do": "open", "url": url }));
    assert_eq!(opened["status"], 200);
    for path in [
        "",
        "events.csv?from=2026-01-01&until=2026-01-02",
        "style.css",
    ] {
        let asked = stage.ask(json!({ "do": "status", "url": format!("{base}{path}") }));
        assert_eq!(asked["theirs"], 403, "{path}: {asked}");
        let policy = asked["headers"]["content-security-policy"]
            .as_str()
            .unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
    }
    let again = stage.ask(json!({ "do": "status", "url": url }));
    assert_eq!(
        (again["ours"].as_u64(), again["theirs"].as_u64()),
        (Some(303), Some(403))
    );
    let ask = |header: &str, value: &str| {
        let request = reqwest::Client::new().get(&url).header(header, value);
        let answer = hydrant_harness::runtime()
            .block_on(request.send())
            .expect("an answer");
        answer.status().as_u16()
    };
    assert_eq!(ask("host", "evil.example"), 403);
    assert_eq!(ask("sec-fetch-site", "cross-site"), 403);
    let port = base.rsplit(':').next().expect("a port").trim_matches('/');
    let port: u16 = port.parse().expect("a port");
    let other = std::net::TcpListener::bind(("127.0.0.2", port));
    assert!(other.is_ok(), "only 127.0.0.1 is taken");
    assert!(base.starts_with("http://127.0.0.1:"), "{base}");
}

struct Stage {
    node: Node,
    page: Option<Child>,
    browser: Client,
}

impl Stage {
    fn start() -> Option<Self> {
        let scripts = foreign::npm()?;
        if !Path::new(CHROMIUM).exists() {
            hydrant_harness::skipped(format!("{CHROMIUM} is not here"));
            return None;
        }
        let mut command = Command::new("node");
        command.arg(scripts.join("audit-page.mjs"));
        let stage = Self {
            node: Setup::up().start(),
            page: None,
            browser: Client::start(command),
        };
        stage.node.wait("the service answers", |node| {
            let told = node.run(&["--json", "audit", "list"]);
            told.status.success().then_some(())
        });
        Some(stage)
    }

    /// Starts the page; its URL.
    fn explore(&mut self) -> String {
        let mut command = self.node.command(&["--json", "audit", "explore"]);
        let mut page = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let output = page.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line");
        self.page = Some(page);
        let told: Value = serde_json::from_str(&line).expect("a document");
        told["url"].as_str().expect("a URL").to_owned()
    }

    /// Sends a form and submits it; its id.
    fn send(&self, store: &str, name: &str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let base = format!(
            "http://{}/api/submissions/v1/submissions",
            self.node.public()
        );
        let body = json!({ "form": "demo", "fields": { "name": name } });
        let client = reqwest::Client::new();
        let post = |url: String| {
            let request = client.post(url).header("correlation-id", &id).json(&body);
            let request = request.header("x-store-id", store);
            let sent = hydrant_harness::runtime().block_on(request.send());
            sent.map_or(0, |answer| answer.status().as_u16())
        };
        self.node.wait("it is accepted", |_| {
            (post(base.clone()) == 201).then_some(())
        });
        self.node.wait("it is submitted", |_| {
            let status = post(format!("{base}/{id}/submit"));
            [200, 202].contains(&status).then_some(())
        });
        id
    }

    fn delivered(&self, id: &str) {
        self.node.wait("it is delivered", |node| {
            let told = node.json(&["submissions", "status", id]);
            (told["state"] == "delivered").then_some(())
        });
    }

    fn ask(&mut self, command: Value) -> Value {
        let answer = self.browser.ask(&command);
        assert!(answer.get("failed").is_none(), "{command}: {answer}");
        answer
    }

    fn shown(&mut self) -> Value {
        self.ask(json!({ "do": "shown" }))
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.shown();
            if is_so(&shown) {
                return shown;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not in time: {shown}");
            pause(Duration::from_millis(300));
            let url = shown["url"].clone();
            self.ask(json!({ "do": "go", "url": url }));
        }
    }

    /// Nothing is wider than the screen, on desks, tablets and phones, in light and dark.
    fn fits_all_sizes(&mut self, link: &str) {
        let all = link.split("&kind").next().unwrap_or(link).to_owned();
        for (width, height, scheme) in [
            (1440, 900, "light"),
            (1024, 768, "dark"),
            (768, 1024, "light"),
            (390, 844, "dark"),
        ] {
            self.ask(json!({ "do": "open", "url": all, "width": width, "height": height, "scheme": scheme }));
            let shown = self.shown();
            assert!(
                shown["beyond"].as_i64().is_some_and(|beyond| beyond <= 0),
                "{width}: {shown}"
            );
            self.shot(&format!("{width}x{height}-{scheme}"));
        }
    }

    /// A picture to look at, in the tests' folder of the target folder.
    fn shot(&mut self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("audit-page");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        self.ask(json!({ "do": "shot", "path": path }));
        println!("a picture: {}", path.display());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(page) = &mut self.page {
            let _ = page.kill();
            let _ = page.wait();
        }
    }
}
