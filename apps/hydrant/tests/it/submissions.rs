//! What comes in, good or bad, has its right answer; and nothing is half kept.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Node, Setup};

/// An answer: its status, its headers and its JSON.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn submissions(node: &Node) -> String {
    format!("http://{}/api/submissions/v1/submissions", node.public())
}

fn post(node: &Node, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
    let mut request = reqwest::Client::new().post(submissions(node)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    hydrant_harness::runtime().block_on(async {
        let answer = request.send().await.expect("an answer");
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.json().await.unwrap_or_default(),
        }
    })
}

fn good(name: &str) -> String {
    json!({ "form": "demo", "fields": { "name": name } }).to_string()
}

/// How many events there are of what was kept.
fn events(node: &Node) -> usize {
    let all = audit(node, &[]);
    all.iter().filter(|one| one["kind"] != "refused").count()
}

fn audit(node: &Node, narrow: &[&str]) -> Vec<Value> {
    let list = ["--json", "audit", "list", "--limit", "1000"];
    let output = node.run(&[&list, narrow].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect()
}

#[test]
fn each_bad_input_has_its_status_and_leaves_nothing() {
    let node = Setup::up().start();
    let id = new_id();
    let id = ("correlation-id", id.as_str());
    let long = "a".repeat(300_000);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let fields = |fields: &str| format!("{{\"form\": \"demo\", \"fields\": {fields}}}");
    for (what, headers, body, status, reason) in [
        ("nothing", &[id][..], String::new(), 400, "broken_json"),
        (
            "half",
            &[id],
            "{\"form\": \"demo\",\n \"fields\": {".into(),
            400,
            "broken_json",
        ),
        ("a list", &[id], "[]".into(), 400, "broken_json"),
        (
            "no fields",
            &[id],
            "{\"form\": \"demo\"}".into(),
            400,
            "broken_json",
        ),
        (
            "more than that",
            &[id],
            "{\"form\": \"demo\", \"fields\": {}, \"x\": 1}".into(),
            400,
            "broken_json",
        ),
        (
            "two forms",
            &[id],
            "{\"form\": \"demo\", \"form\": \"demo\", \"fields\": {}}".into(),
            400,
            "broken_json",
        ),
        (
            "no number",
            &[id],
            fields("{\"name\": 01}"),
            400,
            "broken_json",
        ),
        ("too deep", &[id], fields(&deep), 400, "broken_json"),
        ("no id", &[], good("Canary"), 400, "no_correlation_id"),
        (
            "an id that is none",
            &[("correlation-id", "7")],
            good("Canary"),
            400,
            "no_correlation_id",
        ),
        (
            "a path",
            &[("correlation-id", "../../etc/passwd")],
            good("Canary"),
            400,
            "no_correlation_id",
        ),
        (
            "a key that is none",
            &[("idempotency-key", "x y")],
            good("Canary"),
            400,
            "bad_idempotency_key",
        ),
        (
            "a store that is too long",
            &[id, ("x-store-id", &long[..200])],
            good("Canary"),
            400,
            "bad_header",
        ),
        (
            "an unknown form",
            &[id],
            "{\"form\": \"nope\", \"fields\": {}}".into(),
            422,
            "unknown_form",
        ),
        (
            "a form that is a path",
            &[id],
            "{\"form\": \"../demo\", \"fields\": {}}".into(),
            422,
            "unknown_form",
        ),
        (
            "fields that lack one",
            &[id],
            fields("{}"),
            422,
            "fields_invalid",
        ),
        (
            "fields of another kind",
            &[id],
            fields("{\"name\": 7}"),
            422,
            "fields_invalid",
        ),
        (
            "fields that are none",
            &[id],
            fields("null"),
            422,
            "fields_invalid",
        ),
        (
            "a field too many",
            &[id],
            fields("{\"name\": \"Canary\", \"x\": 1}"),
            422,
            "fields_invalid",
        ),
        ("large fields", &[id], good(&long), 413, "too_large"),
        (
            "a large body",
            &[id],
            good(&long.repeat(8)),
            413,
            "too_large",
        ),
    ] {
        let answer = post(&node, headers, body);
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert_eq!(answer.body["reason"], reason, "{what}: {}", answer.body);
        assert_eq!(answer.body["status"], status, "{what}");
        assert!(
            answer.body["mend"].is_string() || reason == "bad_header",
            "{what}: {}",
            answer.body
        );
        let told = answer.body.to_string();
        assert!(
            !told.contains("aaaaaaaa") && !told.contains("Canary"),
            "{what} tells a value: {told}"
        );
    }
    let bytes = post(&node, &[id], vec![b'{', 0xff, b'}']);
    assert_eq!(
        (bytes.status, &bytes.body["reason"]),
        (400, &json!("broken_json"))
    );
    assert_eq!(events(&node), 0, "nothing was kept");
    // The same id is still free.
    assert_eq!(post(&node, &[id], good("Canary")).status, 201);
    assert_eq!(events(&node), 1);
}

#[test]
fn what_is_refused_is_on_record_with_its_reason_and_no_value() {
    let node = Setup::up().start();
    let id = new_id();
    let headers = [
        ("correlation-id", id.as_str()),
        ("x-store-id", "4711"),
        ("x-session-id", "night"),
    ];
    let bad = r#"{"form": "demo", "fields": {"name": 7, "canary": "4111-1111-1111-1111"}}"#;
    for _ in 0..60 {
        assert_eq!(post(&node, &headers, bad).status, 422);
    }
    let refused = ["--kind", "refused", "--store", "4711"];
    node.wait("the first are on record", |node| {
        (audit(node, &refused).len() >= 10).then_some(())
    });
    assert_eq!(post(&node, &headers[..1], good("Ada")).status, 201);
    assert_eq!(post(&node, &headers[..1], good("Bob")).status, 422);
    let reused = node.wait("the other store's is on record", |node| {
        let all = audit(node, &["--kind", "refused"]);
        all.into_iter().find(|one| one["store"] == "")
    });
    assert_eq!(
        reused["detail"],
        json!({ "reason": "key_reused" }),
        "{reused}"
    );
    assert_eq!(
        (&reused["form"], &reused["submission"]),
        (&json!("demo"), &json!(id))
    );
    let all = audit(&node, &refused);
    // Ten of each of the two processes.
    assert!(
        (10..=20).contains(&all.len()),
        "the rest are counted: {all:?}"
    );
    for one in &all {
        assert_eq!(
            (&one["outcome"], &one["form"]),
            (&json!("failed"), &json!("demo"))
        );
        assert_eq!(one["detail"], json!({ "reason": "fields_invalid" }));
        let text = one.to_string();
        assert!(!text.contains("canary") && !text.contains("4111"), "{text}");
    }
    let report = node.json(&["audit", "report"]);
    let stores = report["stores"].as_array().expect("a list");
    let store = stores.iter().find(|one| one["store"] == "4711");
    let store = store.expect("it is in the report");
    assert_eq!(store["failed"], 1, "{store}");
    assert_eq!(store["refused"], all.len(), "{store}");
}

#[test]
fn an_id_that_nobody_has_is_not_found() {
    let node = Setup::up().start();
    let client = reqwest::Client::new();
    for (id, method, path) in [
        (new_id(), "GET", ""),
        (new_id(), "POST", "/submit"),
        (new_id(), "GET", "/receipt"),
        (new_id(), "GET", "/events"),
        ("x".into(), "GET", ""),
        ("%2e%2e".into(), "GET", "/receipt"),
    ] {
        let url = format!("{}/{id}{path}", submissions(&node));
        let method = method.parse().unwrap();
        let answer = client.request(method, &url);
        let answer = hydrant_harness::runtime().block_on(answer.send()).unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{url}");
    }
}

#[test]
fn a_body_that_breaks_off_or_trickles_leaves_nothing() {
    let node = Setup::up().start();
    let head = |id: &str| {
        format!(
            "POST /api/submissions/v1/submissions HTTP/1.1\r\nhost: x\r\ncorrelation-id: {id}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{}",
            good("Canary").len(),
            &good("Canary")[..10]
        )
    };
    let mut cut = connect(node.public());
    cut.write_all(head(&new_id()).as_bytes()).unwrap();
    drop(cut);
    // One that says nothing more hears so.
    let mut silent = connect(node.public());
    silent.write_all(head(&new_id()).as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = silent.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(events(&node), 0);
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

#[test]
fn a_repeat_has_the_same_answer_and_another_content_is_refused() {
    let node = Setup::up().start();
    let id = new_id();
    let id = ("correlation-id", id.as_str());
    let sent = |note: &str| {
        format!("{{\"form\": \"demo\", \"fields\": {{\"name\": \"Ada\", \"note\": \"{note}\"}}}}")
    };
    let first = post(&node, &[id], sent("one"));
    assert_eq!(first.status, 201, "{}", first.body);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = post(&node, &[id, ("idempotency-key", id.1)], sent("one"));
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["location"], first.headers["location"]);
    let other = post(&node, &[id], sent("two"));
    assert_eq!(
        (other.status, &other.body["reason"]),
        (422, &json!("key_reused"))
    );
}
