use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode};
use hydrant_runtime::Clock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::api::compose::Feed;
use crate::api::ofrep;
use crate::api::parameters::Parameters;
use crate::api::routes;
use crate::api::serving::{RefusedRevision, Served, refuse_revision, swap_compiled, swap_feed};
use crate::api::sight::Sight;
use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::documents::Kind;
use crate::sources::snapshot::{Found, Snapshot};

const INIT: &str = "/v1/init?platform=ios&version=7.2.1&locale=en-US";

struct Api {
    base: String,
    served: Served,
    sight: Sight,
    clock: Clock,
    client: reqwest::Client,
}

impl Api {
    async fn start() -> Self {
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(100));
        let answers = Answers::new(clock.clone(), ofrep::changes().1);
        let (served, sight) = (Arc::clone(&answers.served), answers.sight.clone());
        let routes = routes(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = reqwest::Client::new();
        Self {
            base,
            served,
            sight,
            clock,
            client,
        }
    }

    fn publish(&self, value: Value, stale: Option<i64>) {
        let found = Found::with(Some(&value.to_string()), 5, stale);
        let snapshot = Snapshot {
            epoch: 3,
            sources: [("content".to_owned(), Arc::new(found))].into(),
        };
        swap_feed(&self.served, Arc::new(Feed::new(snapshot)));
    }

    /// Publishes a revision of these documents.
    fn revise(&self, revision: u64, documents: &[(Kind, &str, Value)]) {
        swap_compiled(&self.served, Arc::new(compiled(revision, documents)));
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, Value) {
        let mut request = self.client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers().clone();
        (headers, answer.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str, tag: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.base));
        request.header("if-none-match", tag).send().await.unwrap()
    }
}

#[tokio::test]
async fn the_same_answer_is_sent_once() {
    let api = Api::start().await;
    api.publish(json!("hello"), None);
    let first = api.get(INIT, "\"other\"").await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["cache-control"], "no-cache");
    assert_eq!(first.headers()["hydrant-snapshot-epoch"], "3");
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    let body: Value = first.json().await.unwrap();
    assert_eq!(body["sources"]["content"]["value"], "hello");
    for tag in [etag.clone(), format!("\"x\", W/{etag}"), "*".into()] {
        let again = api.get(INIT, &tag).await;
        assert_eq!(again.status(), 304, "{tag}");
        assert_eq!(again.headers()["etag"], etag.as_str());
        assert!(again.bytes().await.unwrap().is_empty());
    }
    api.publish(json!("good day"), None);
    assert_eq!(api.get(INIT, &etag).await.status(), 200);
    let german = INIT.replace("en-US", "de");
    assert_eq!(api.get(&german, &etag).await.status(), 200);
}

#[tokio::test]
async fn a_key_has_its_rate_here_too_and_who_has_none_is_not_counted() {
    let api = Api::start().await;
    api.publish(json!("hello"), None);
    let key = json!({
        "sha256": crate::keys::hex(&Sha256::digest("hyk_slow")), "role": "client",
        "rate": { "perSecond": 0.05, "burst": 2 },
    });
    let settings = json!({ "anonymous": { "rate": { "perSecond": 0.05, "burst": 3 } } });
    api.revise(
        1,
        &[
            (Kind::Key, "slow", key),
            (Kind::Settings, "settings", settings),
        ],
    );
    let ask = async |key: Option<&str>| {
        let request = api.client.get(format!("{}{INIT}", api.base));
        let request = key
            .into_iter()
            .fold(request, |request, key| request.bearer_auth(key));
        request.send().await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(ask(Some("hyk_slow")).await.status(), 200);
    }
    let refused = ask(Some("hyk_slow")).await;
    assert_eq!(refused.status(), 429);
    let wait = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse::<u64>();
    assert!((1..=20).contains(&wait.unwrap()));
    for _ in 0..20 {
        assert_eq!(ask(None).await.status(), 200);
    }
    for status in [401, 401, 401, 429] {
        assert_eq!(ask(Some("hyk_guess")).await.status(), status);
    }
}

#[tokio::test]
async fn revision_0_is_an_answer_and_no_revision_is_none() {
    let api = Api::start().await;
    api.publish(json!("hello"), None);
    let before = api.ask(INIT, &[("x-api-key", "hyk_any")]).await.1;
    assert_eq!(before["flags"], Value::Null, "{before}");
    let ofrep = async || {
        let url = format!("{}/ofrep/v1/evaluate/flags", api.base);
        let answer = api.client.post(url).body("{}").send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(ofrep().await, 503);
    api.revise(0, &[]);
    let after = api.ask(INIT, &[]).await.1;
    assert_eq!(after["flags"], json!([]), "{after}");
    assert_eq!(ofrep().await, 200);
}

#[tokio::test]
async fn a_growing_age_does_not_change_the_tag() {
    let api = Api::start().await;
    api.publish(json!(1), Some(90_000));
    let first = api.get(INIT, "").await;
    assert_eq!(first.headers()["hydrant-stale"], "content;age=10");
    api.clock.advance(Duration::from_secs(5));
    api.sight.saw(api.clock.unix_ms());
    let later = api
        .get(INIT, first.headers()["etag"].to_str().unwrap())
        .await;
    assert_eq!(later.status(), 304);
    assert_eq!(later.headers()["hydrant-stale"], "content;age=15");
}

#[tokio::test]
async fn while_the_state_is_away_all_may_be_stale() {
    let api = Api::start().await;
    api.publish(json!(1), Some(90_000));
    let stale = async || api.get(INIT, "").await.headers()["hydrant-stale"].clone();
    assert_eq!(stale().await, "content;age=10");
    api.clock.advance(Duration::from_secs(8));
    assert_eq!(stale().await, "*;age=8, content;age=18");
    // The node's memory is of a time when the state was there.
    api.sight.saw(api.clock.unix_ms() - 6000);
    assert_eq!(stale().await, "*;age=6, content;age=18");
    api.sight.saw(api.clock.unix_ms() - 1000);
    assert_eq!(stale().await, "content;age=18");
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_problem_document() {
    let api = Api::start().await;
    for (path, status, reason) in [
        (INIT, 503, "no_snapshot"),
        ("/v1/init", 400, "bad_request"),
        (
            "/v1/init?platform=ios&platform=ios&version=1.0.0&locale=en",
            400,
            "bad_request",
        ),
        (
            "/v1/init?platform=ios&version=1&locale=en",
            400,
            "bad_request",
        ),
        ("/v1/other", 404, "no_such_page"),
    ] {
        let answer = api.get(path, "").await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["reason"], reason, "{path}");
    }
}

fn compiled(revision: u64, documents: &[(Kind, &str, Value)]) -> Compiled {
    let mut bundle = Bundle {
        revision,
        ..Bundle::default()
    };
    for (kind, name, body) in documents {
        let all = bundle.documents.entry(*kind).or_default();
        all.insert((*name).to_owned(), body.to_string());
    }
    Compiled::compile(&bundle).unwrap()
}

const KEY: &str = "hyk_test";

/// A public flag by plan, a secret one, layers, a cohort, a slot that changes at 200 s, and a key.
fn documents() -> Vec<(Kind, &'static str, Value)> {
    let hash: String = Sha256::digest(KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let on_off = json!({"on": true, "off": false});
    let by_plan = json!({"if": [{"==": [{"var": "plan"}, "gold"]}, "on", "off"]});
    let flags = json!({"flags": {
        "by-plan": {
            "state": "ENABLED", "variants": on_off, "defaultVariant": "off",
            "targeting": by_plan, "metadata": {"public": true},
        },
        "secret": {"state": "ENABLED", "variants": on_off, "defaultVariant": "on"},
    }});
    let entry = |priority: i64, text: &str, from: Option<&str>| {
        let mut entry = json!({
            "type": "banner", "slot": "home", "priority": priority, "fallback": ["en"],
            "locales": {"en": {"text": text}},
        });
        if let Some(from) = from {
            entry["from"] = from.into();
        }
        entry
    };
    vec![
        (Kind::Flags, "demo", flags),
        (Kind::Key, "app", json!({"sha256": hash, "role": "client"})),
        (
            Kind::Config,
            "base",
            json!({"values": {"timeout": 5, "theme": "light"}}),
        ),
        (
            Kind::Config,
            "ios",
            json!({"when": {"platform": "ios"}, "values": {"timeout": 8}}),
        ),
        (
            Kind::Config,
            "gold",
            json!({"when": {"cohort": "gold"}, "values": {"theme": "gold"}}),
        ),
        (
            Kind::Cohort,
            "gold",
            json!({"rule": {"==": [{"var": "plan"}, "gold"]}}),
        ),
        (
            Kind::ContentType,
            "banner",
            json!({"schema": {"type": "object"}}),
        ),
        (Kind::Content, "usual", entry(1, "usual", None)),
        (
            Kind::Content,
            "sale",
            entry(2, "sale", Some("1970-01-01T00:03:20Z")),
        ),
    ]
}

fn flag<'a>(body: &'a Value, key: &str) -> Option<&'a Value> {
    let flags = body["flags"].as_array().unwrap();
    flags
        .iter()
        .find(|flag| flag["key"] == key)
        .map(|flag| &flag["value"])
}

#[tokio::test]
async fn all_parts_stand_in_one_answer() {
    let api = Api::start().await;
    api.publish(json!("hello"), None);
    api.revise(7, &documents());
    let (headers, body) = api.ask(&format!("{INIT}&slots=home,none"), &[]).await;
    assert_eq!(headers["hydrant-revision"], "7");
    assert_eq!(body["config"], json!({"timeout": 8, "theme": "light"}));
    assert_eq!(flag(&body, "by-plan"), Some(&json!(false)));
    assert_eq!(body["content"]["home"]["entry"], "usual");
    assert_eq!(body["content"]["none"], Value::Null);
    assert_eq!(body["sources"]["content"]["value"], "hello");
    assert!(body.get("parts").is_none());
    let post = json!({
        "context": {"platform": "ios", "version": "7.2.1", "locale": "en-US"},
        "slots": ["home", "none"],
    });
    let request = api.client.post(format!("{}/v1/init", api.base)).json(&post);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["etag"], headers["etag"]);
    assert_eq!(answer.json::<Value>().await.unwrap(), body);
}

#[tokio::test]
async fn nobody_gets_what_another_one_asked_for() {
    let api = Api::start().await;
    api.revise(1, &documents());
    let gold = format!("{INIT}&plan=gold");
    for _ in 0..2 {
        let (headers, anonymous) = api.ask(INIT, &[]).await;
        assert_eq!(flag(&anonymous, "secret"), None);
        assert_eq!(headers["cache-control"], "no-cache");
        let (headers, holder) = api.ask(INIT, &[("x-api-key", KEY)]).await;
        assert_eq!(flag(&holder, "secret"), Some(&json!(true)));
        assert_eq!(headers["cache-control"], "private, no-cache");
        assert_eq!(headers["vary"], "accept-encoding, authorization, x-api-key");
        let (_, other) = api.ask(&gold, &[]).await;
        assert_eq!(flag(&other, "by-plan"), Some(&json!(true)));
        assert_eq!(other["config"]["theme"], "gold");
        assert_eq!(flag(&anonymous, "by-plan"), Some(&json!(false)));
    }
    let request = api
        .client
        .get(format!("{}{INIT}", api.base))
        .header("x-api-key", "wrong");
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), 401, "never taken for nobody's");
}

#[tokio::test]
async fn a_tag_is_of_what_one_gets_and_not_of_what_another_one_has() {
    let api = Api::start().await;
    api.revise(1, &documents());
    let tag = |headers: &HeaderMap| headers["etag"].to_str().unwrap().to_owned();
    let anonymous = tag(&api.ask(INIT, &[]).await.0);
    let holder = tag(&api.ask(INIT, &[("x-api-key", KEY)]).await.0);
    let gold = tag(&api.ask(&format!("{INIT}&plan=gold"), &[]).await.0);
    let tags = BTreeSet::from([&anonymous, &holder, &gold]);
    assert_eq!(tags.len(), 3);
    assert_eq!(api.get(INIT, &holder).await.status(), 200);
    assert_eq!(api.get(INIT, &gold).await.status(), 200);
    assert_eq!(api.get(INIT, &anonymous).await.status(), 304);
}

#[tokio::test]
async fn content_changes_when_its_schedule_says_so() {
    let api = Api::start().await;
    api.revise(1, &documents());
    let path = format!("{INIT}&slots=home");
    let entry = async || api.ask(&path, &[]).await.1["content"]["home"]["entry"].clone();
    assert_eq!(entry().await, "usual");
    api.clock.advance(Duration::from_millis(99_999));
    assert_eq!(entry().await, "usual");
    api.clock.advance(Duration::from_millis(1));
    assert_eq!(entry().await, "sale");
}

#[tokio::test]
async fn a_flag_that_reads_the_clock_is_never_old() {
    let computed = json!({"cat": ["$flagd.", "timestamp"]});
    for name in [json!("$flagd.timestamp"), computed] {
        let api = Api::start().await;
        let late = json!({">": [{"var": name}, 150]});
        let flags = json!({"flags": {"late": {
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
            "targeting": {"if": [late, "on", "off"]}, "metadata": {"public": true},
        }}});
        api.revise(1, &[(Kind::Flags, "demo", flags)]);
        let is_late = async || flag(&api.ask(INIT, &[]).await.1, "late").cloned();
        assert_eq!(is_late().await, Some(json!(false)));
        api.clock.advance(Duration::from_secs(60));
        assert_eq!(is_late().await, Some(json!(true)), "{name}");
    }
}

#[tokio::test]
async fn what_there_is_time_for_is_answered_and_not_kept() {
    let api = Api::start().await;
    api.publish(json!("hello"), None);
    api.revise(1, &documents());
    let (headers, body) = api.ask(&format!("{INIT}&deadlineMs=0"), &[]).await;
    assert_eq!(headers["cache-control"], "no-store");
    assert!(!headers.contains_key("etag"));
    assert_eq!(body["sources"]["content"]["value"], "hello");
    for part in ["config", "content", "flags"] {
        assert_eq!(body[part], Value::Null);
        assert_eq!(body["parts"][part]["error"], "deadline");
    }
}

#[test]
fn a_deadline_cuts_between_parts_and_between_flags() {
    let flag = json!({
        "state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on",
        "metadata": {"public": true},
    });
    let flags: serde_json::Map<String, Value> = (0..40)
        .map(|number| (format!("f{number:02}"), flag.clone()))
        .collect();
    let documents = [(Kind::Flags, "many", json!({ "flags": flags }))];
    let serving = Serving {
        compiled: Arc::new(compiled(1, &documents)),
        has_revision: true,
        ..Serving::default()
    };
    let parameters = Parameters::from_query(&INIT.parse().unwrap()).unwrap();
    let counts: Vec<_> = (0..=6)
        .map(|looks| {
            let patience = Patience::of_looks(looks);
            let composed = compose(&serving, &Caller::Anonymous, &parameters, 0, &patience);
            let body: Value = serde_json::from_slice(&composed.bytes).unwrap();
            let flags = body["flags"].as_array().map_or(0, Vec::len);
            (flags, composed.is_whole)
        })
        .collect();
    let cut = |flags| (flags, false);
    assert_eq!(counts[..5], [cut(0), cut(0), cut(0), cut(16), cut(32)]);
    assert_eq!(counts[5..], [(40, true), (40, true)]);
}

#[tokio::test]
async fn a_new_revision_is_answered_at_once_and_a_refused_one_makes_its_parts_stale() {
    let api = Api::start().await;
    api.revise(1, &documents());
    api.ask(INIT, &[]).await;
    let mut changed = documents();
    changed[2].2 = json!({"values": {"timeout": 5, "theme": "dark"}});
    api.revise(2, &changed);
    let (headers, body) = api.ask(INIT, &[]).await;
    assert_eq!(headers["hydrant-revision"], "2");
    assert_eq!(body["config"]["theme"], "dark");
    let since = api.clock.unix_ms();
    refuse_revision(&api.served, RefusedRevision { revision: 3, since });
    api.clock.advance(Duration::from_secs(4));
    let (headers, body) = api.ask(INIT, &[]).await;
    assert_eq!(headers["hydrant-revision"], "2");
    assert_eq!(
        headers["hydrant-stale"],
        "config;age=4, content;age=4, flags;age=4"
    );
    assert_eq!(body["config"]["theme"], "dark");
    api.revise(4, &changed);
    assert!(!api.ask(INIT, &[]).await.0.contains_key("hydrant-stale"));
}

#[tokio::test]
async fn the_body_comes_in_the_coding_that_is_taken() {
    let api = Api::start().await;
    api.publish(json!("hello ".repeat(500)), None);
    let path = format!("{}{INIT}", api.base);
    let plain = api.get(INIT, "").await;
    let tag = plain.headers()["etag"].to_str().unwrap().to_owned();
    let plain = plain.bytes().await.unwrap();
    for coding in ["zstd", "br", "gzip"] {
        let request = api.client.get(&path).header("accept-encoding", coding);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], coding);
        assert_eq!(answer.headers()["etag"], format!("W/{tag}"));
        assert!(answer.bytes().await.unwrap().len() < plain.len() / 10);
        let again = api.client.get(&path).header("accept-encoding", coding);
        let again = again.header("if-none-match", format!("W/{tag}"));
        assert_eq!(again.send().await.unwrap().status(), 304);
    }
    let head = api.client.head(&path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["etag"], tag);
    assert_eq!(head.headers()["content-length"], plain.len().to_string());
}

#[tokio::test]
async fn the_menu_is_there_before_anything_is_published_and_changes_with_a_revision() {
    let api = Api::start().await;
    let menu = INIT.replace("init", "menu");
    let (_, body) = api.ask(&menu, &[]).await;
    let url = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";
    assert_eq!(body["calls"]["init"]["url"], url);
    let without = json!({"values": {"calls": {"changes": null}}});
    api.revise(1, &[(Kind::Menu, "all", without)]);
    let (headers, body) = api.ask(&menu, &[]).await;
    assert!(body["calls"].get("changes").is_none());
    let tag = headers["etag"].to_str().unwrap();
    assert_eq!(api.get(&menu, tag).await.status(), 304);
    assert_eq!(api.get("/v1/menu?platform=ios", "").await.status(), 400);
}
