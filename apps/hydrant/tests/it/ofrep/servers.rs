//! Providers for servers, which ask for one flag at a time.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::{Client, Stage};
use crate::foreign;

#[test]
fn the_provider_for_node_evaluates_each_type_and_takes_no_for_an_answer() {
    let Some(scripts) = foreign::npm() else {
        return;
    };
    let stage = Stage::start();
    talk(&stage, &|key| {
        let mut command = Command::new("node");
        command
            .arg(scripts.join("ofrep-node.mjs"))
            .arg(stage.base());
        command.args(key);
        Client::start(command)
    });
}

#[test]
fn the_provider_for_python_evaluates_each_type_and_takes_no_for_an_answer() {
    let Some(scripts) = foreign::pypi() else {
        return;
    };
    let stage = Stage::start();
    talk(&stage, &|key| {
        let mut command = Command::new("python3");
        command
            .arg(scripts.join("ofrep_client.py"))
            .arg(stage.base())
            .env("PYTHONPATH", &scripts);
        command.args(key);
        Client::start(command)
    });
}

type Start<'a> = &'a dyn Fn(Option<&str>) -> Client;

fn talk(stage: &Stage, start: Start<'_>) {
    let mut nobody = start(None);
    each_type_is_evaluated(&mut nobody);
    let mut holder = start(Some(&stage.key));
    what_is_hidden_needs_a_key(&mut nobody, &mut holder);
    a_change_is_seen(stage, &mut nobody);
    a_wrong_key_is_refused(start);
    a_limit_is_kept(stage, start);
}

fn question(flag: &str, kind: &str, fallback: &Value) -> Value {
    let context = json!({ "targetingKey": "ada", "language": "en" });
    json!({ "flag": flag, "type": kind, "default": fallback, "context": context })
}

fn each_type_is_evaluated(client: &mut Client) {
    for (flag, kind, fallback, value) in [
        ("test-switch", "boolean", json!(false), json!(true)),
        ("test-greeting", "string", json!("?"), json!("Hello")),
        ("test-count", "integer", json!(0), json!(42)),
        ("test-share", "float", json!(0.25), json!(0.5)),
        ("test-layout", "object", json!({}), json!({ "columns": 3 })),
    ] {
        let details = client.ask(&question(flag, kind, &fallback));
        assert_eq!(details["value"], value, "{flag}: {details}");
        assert_eq!(details["flagMetadata"]["public"], true, "{details}");
    }
    let mut german = question("test-greeting", "string", &json!("?"));
    german["context"]["language"] = "de".into();
    let details = client.ask(&german);
    assert_eq!(details["value"], "Hallo");
    assert_eq!(details["reason"], "TARGETING_MATCH");
    assert_eq!(details["variant"], "de");
    let missing = client.ask(&question("test-nothing", "string", &json!("?")));
    assert_eq!(missing["value"], "?");
    assert_eq!(missing["errorCode"], "FLAG_NOT_FOUND", "{missing}");
}

fn what_is_hidden_needs_a_key(nobody: &mut Client, holder: &mut Client) {
    let question = question("test-hidden", "string", &json!("?"));
    assert_eq!(holder.ask(&question)["value"], "for you");
    assert_eq!(nobody.ask(&question)["errorCode"], "FLAG_NOT_FOUND");
}

fn a_change_is_seen(stage: &Stage, client: &mut Client) {
    stage.flags("Good day");
    let details = client.ask(&question("test-greeting", "string", &json!("?")));
    assert_eq!(details["value"], "Good day", "{details}");
}

fn a_wrong_key_is_refused(start: Start<'_>) {
    let mut wrong = start(Some("hyk_wrong"));
    let details = wrong.ask(&question("test-switch", "boolean", &json!(false)));
    assert_eq!(details["value"], false);
    assert_eq!(details["reason"], "ERROR", "{details}");
    assert!(details["errorCode"].is_string(), "{details}");
}

/// The third request is one too many for each instance; the client keeps quiet until it may ask again.
fn a_limit_is_kept(stage: &Stage, start: Start<'_>) {
    let mut slow = start(Some(&stage.slow));
    let question = question("test-switch", "boolean", &json!(false));
    let began = Instant::now();
    let mut asked = 0;
    let refused = loop {
        let details = slow.ask(&question);
        if details["value"] == false {
            break details;
        }
        asked += 1;
        assert!(began.elapsed() < Duration::from_secs(20), "no limit");
    };
    println!("{asked} evaluations before the limit: {refused}");
    let paused = slow.ask(&question);
    assert_eq!(paused["value"], false, "it does not ask");
    let message = paused["errorMessage"].as_str().expect("a message");
    assert!(message.contains("TooManyRequests"), "{message}");
    loop {
        if slow.ask(&question)["value"] == true {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "it never asks again"
        );
        hydrant_harness::pause(Duration::from_millis(100));
    }
}
