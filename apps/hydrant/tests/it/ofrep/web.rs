//! The provider for browsers, in a real one: all flags at once, from a page of another origin.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::stage::{Client, Stage};
use crate::foreign;

const CHROMIUM: &str = "/usr/bin/chromium";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_page_in_a_browser_is_told_of_changes_and_asks_again() {
    let (Some(mut page), stage) = (Page::open(), Stage::start()) else {
        return;
    };
    let started = page.start(&stage, json!({ "key": null }));
    assert_eq!(started["status"], "READY");
    page.has("test-greeting", &json!("?"), &json!("Hello"));
    page.has("test-switch", &json!(false), &json!(true));
    page.has("test-count", &json!(0), &json!(42));
    page.has("test-share", &json!(0), &json!(0.5));
    page.has("test-layout", &json!({}), &json!({ "columns": 3 }));
    let hidden = page.flag("test-hidden", &json!("?"));
    assert_eq!(hidden["errorCode"], "FLAG_NOT_FOUND", "{hidden}");
    page.wait("a stream is open", |page| {
        page.seen("GET").iter().any(|one| one["status"] == 200)
    });
    let began = Instant::now();
    stage.flags("Good day");
    page.wait("the page shows the change", |page| {
        page.flag("test-greeting", &json!("?"))["value"] == "Good day"
    });
    println!("the page showed a change after {:?}", began.elapsed());
    let told = page.client.ask(&json!({ "do": "told" }));
    let events = told["events"].as_array().expect("a list");
    let changed = |one: &&Value| one["event"] == "PROVIDER_CONFIGURATION_CHANGED";
    let change = events.iter().find(changed).expect("it is told");
    assert_eq!(change["flagsChanged"], json!(["test-greeting"]));
    let asked = page.seen("POST");
    let again = asked.last().expect("it asked");
    let url = again["url"].as_str().expect("a URL");
    assert!(url.contains("flagConfigEtag="), "{url}");
    page.german();
}

#[test]
fn a_page_that_polls_is_answered_with_304_until_there_is_something_new() {
    let (Some(mut page), stage) = (Page::open(), Stage::start()) else {
        return;
    };
    let more = json!({ "key": stage.key, "poll": 200, "detect": "polling" });
    assert_eq!(page.start(&stage, more)["status"], "READY");
    page.has("test-hidden", &json!("?"), &json!("for you"));
    page.wait("an answer is 304", |page| {
        let asked = page.seen("POST");
        let same = asked.iter().find(|one| one["status"] == 304);
        same.inspect(|one| {
            let first = &asked[0]["headers"]["etag"];
            assert_eq!(&one["sent"]["if-none-match"], first);
        })
        .is_some()
    });
    assert!(page.seen("GET").is_empty(), "it opens no stream");
    stage.flags("Good day");
    page.wait("the page shows the change", |page| {
        page.flag("test-greeting", &json!("?"))["value"] == "Good day"
    });
}

#[test]
fn a_page_with_a_key_has_a_stream_and_a_wrong_key_ends_it() {
    let (Some(mut page), stage) = (Page::open(), Stage::start()) else {
        return;
    };
    assert_eq!(
        page.start(&stage, json!({ "key": stage.key }))["status"],
        "READY"
    );
    page.wait("a stream is open", |page| {
        let streams = page.seen("GET");
        streams.iter().any(|one| {
            let url = one["url"].as_str().unwrap_or_default();
            url.contains("?ticket=") && one["status"] == 200
        })
    });
    let revoke = ["mobile", "key", "revoke", "app", "-m", "it leaked"];
    let revoked = stage.node.json(&revoke);
    println!("revoked: {revoked}");
    page.wait("its stream is refused", |page| {
        page.seen("GET").iter().any(|one| one["status"] == 401)
    });
    page.reload();
    let refused = page.start(&stage, json!({ "key": "hyk_wrong" }));
    assert_eq!(refused["status"], "FATAL", "{refused}");
    page.wait("its request is refused", |page| {
        page.seen("POST")
            .iter()
            .any(|one| one["status"] == 401 && one["sent"]["authorization"] == "Bearer hyk_wrong")
    });
}

#[test]
fn a_page_that_asks_too_often_waits_as_long_as_it_is_told() {
    let (Some(mut page), stage) = (Page::open(), Stage::start()) else {
        return;
    };
    let more = json!({ "key": stage.slow, "poll": 100, "detect": "polling" });
    page.start(&stage, more);
    page.wait("a request is refused", |page| {
        page.seen("POST").iter().any(|one| one["status"] == 429)
    });
    let asked = page.seen("POST");
    let refused = asked.iter().find(|one| one["status"] == 429);
    let wait = &refused.expect("it is there")["headers"]["retry-after"];
    assert!(["1", "2"].map(Value::from).contains(wait), "{wait}");
    let before = asked.len();
    hydrant_harness::pause(Duration::from_millis(700));
    let meanwhile = page.seen("POST").len() - before;
    assert!(meanwhile <= 1, "{meanwhile} requests while it was to wait");
    page.wait("it asks again", |page| page.seen("POST").len() > before + 1);
}

/// A page in a browser.
struct Page {
    client: Client,
    _profile: TempDir,
}

impl Page {
    fn open() -> Option<Self> {
        let scripts = foreign::npm()?;
        if !Path::new(CHROMIUM).exists() {
            println!("SKIPPED: {CHROMIUM} is not here");
            return None;
        }
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command
            .arg(scripts.join("ofrep-web.mjs"))
            .arg(profile.path());
        Some(Self {
            client: Client::start(command),
            _profile: profile,
        })
    }

    fn start(&mut self, stage: &Stage, more: Value) -> Value {
        let mut command = json!({
            "do": "start",
            "base": stage.base(),
            "context": { "targetingKey": "ada", "language": "en" },
        });
        let more = more.as_object().expect("an object").clone();
        command.as_object_mut().expect("an object").extend(more);
        self.client.ask(&command)
    }

    fn reload(&mut self) {
        self.client.ask(&json!({ "do": "reload" }));
    }

    fn flag(&mut self, flag: &str, fallback: &Value) -> Value {
        let command = json!({ "do": "flag", "flag": flag, "default": fallback });
        self.client.ask(&command)
    }

    fn has(&mut self, flag: &str, fallback: &Value, value: &Value) {
        let details = self.flag(flag, fallback);
        assert_eq!(&details["value"], value, "{flag}: {details}");
    }

    /// Another context is another answer.
    fn german(&mut self) {
        let context = json!({ "do": "context", "targetingKey": "ada", "language": "de" });
        self.client.ask(&context);
        let details = self.flag("test-greeting", &json!("?"));
        assert_eq!(details["value"], "Hallo");
        assert_eq!(details["reason"], "TARGETING_MATCH");
    }

    /// The requests so far that had an answer, with a method.
    fn seen(&mut self, method: &str) -> Vec<Value> {
        let seen = self.client.ask(&json!({ "do": "seen" }));
        let mut seen = seen.as_array().expect("a list").clone();
        seen.retain(|one| one["method"] == method);
        seen
    }

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: not in time: {:?}",
                self.seen("POST")
            );
            hydrant_harness::pause(Duration::from_millis(50));
        }
    }
}
