//! Rules of traffic through a router.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::Instance;
use hydrant_contracts::bucket::slot;
use hydrant_contracts::rules::{RuleSet, Signature, parse};
use hydrant_router::{Listener, Router, Table, explain};

use crate::fleet::Fleet;
use crate::raw::{Backend, Wire, client, instance, ok, pause, refusing, router};

/// A router with instances and rules that change.
pub struct Stage {
    pub router: Router,
    pub instances: Vec<Instance>,
    pub rules: Arc<RuleSet>,
}

impl Stage {
    pub fn new(instances: Vec<Instance>) -> Self {
        let stage = Self {
            router: router(&[]),
            instances,
            rules: Arc::default(),
        };
        stage.publish();
        stage
    }

    pub fn publish(&self) {
        self.router.publish(&Table {
            rules: Arc::clone(&self.rules),
            ..Table::of_one_server(&self.instances)
        });
    }

    /// Applies a file of rules, of which each is for `api/t`.
    pub fn apply(&mut self, rules: &str) {
        self.rules = Arc::new(applied(&self.rules, &of_t(rules)));
        self.publish();
        assert_eq!(self.router.snapshot().rules_epoch(), self.rules.epoch);
    }

    fn client(&self) -> Wire {
        client(&self.router)
    }

    pub fn explain(&self, path: &str, headers: &[(&str, &str)]) -> hydrant_router::Explanation {
        let headers = headers.iter();
        self.router.explain(&explain::Request {
            method: "GET".into(),
            path: path.into(),
            headers: headers
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            listener: Listener::Public,
        })
    }

    pub fn metric(&self, name: &str) -> u64 {
        let now = hydrant_router::Moment::now();
        let text = hydrant_router::stats::prometheus(&self.router.snapshot(), now);
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value
            .and_then(|value| value.parse().ok())
            .expect("the metric is there")
    }
}

pub fn applied(before: &RuleSet, rules: &str) -> RuleSet {
    let by = Signature {
        author: "ann".into(),
        reason: "a test".into(),
        changed_unix_ms: 0,
    };
    let rules = parse(rules).unwrap_or_else(|error| panic!("{error}"));
    before.apply(rules, false, &by).unwrap().0
}

/// The rules, each of `api/t`.
pub fn of_t(rules: &str) -> String {
    rules.replace("[[rule]]", "[[rule]]\nservice = \"api/t\"")
}

pub fn version(id: &str, version: &str, address: SocketAddr) -> Instance {
    Instance {
        version: version.parse().unwrap(),
        ..instance(id, address)
    }
}

/// An instance of a version, which it answers with.
pub fn telling(text: &'static str) -> (Backend, Instance) {
    let backend = Backend::answering(move |_| ok(text.as_bytes()));
    let id = format!("t-{}", text.replace('.', "-"));
    let instance = version(&id, text, backend.address);
    (backend, instance)
}

pub fn get(wire: &mut Wire, path: &str, headers: &str) -> crate::raw::Message {
    wire.send(format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
    ));
    wire.answer()
}

/// The version that each of 3,000 people gets.
fn arms(stage: &Stage) -> BTreeMap<String, String> {
    let mut wire = stage.client();
    let people = (0..3000).map(|number| format!("user-{number}"));
    let arm = |user: String| {
        let answer = get(&mut wire, "/api/t/a", &format!("user-id: {user}\r\n"));
        assert_eq!(answer.status(), 200);
        (user, answer.text())
    };
    people.map(arm).collect()
}

fn canary(percent: u32) -> String {
    let rest = 100 - percent;
    format!(
        "[[rule]]\nname = \"canary\"\nsticky = \"header user-id\"\n\
         weights = {{ \"1.0.0\" = {rest}, \"2.0.0\" = {percent} }}\n"
    )
}

#[test]
fn people_stay_with_their_version_and_only_those_move_who_have_to() {
    let ((_one, old), (_two, new)) = (telling("1.0.0"), telling("2.0.0"));
    let mut stage = Stage::new(vec![old, new]);
    stage.apply(&canary(5));
    let five = arms(&stage);
    let table = stage.rules.rules[0].slots.clone().unwrap();
    for (user, arm) in &five {
        assert_eq!(table.arm(slot("rule/canary", user)), arm, "{user}");
    }
    assert_eq!(five, arms(&stage), "nobody moves by himself");
    stage.apply(&canary(10));
    let ten = arms(&stage);
    let in_new = |arms: &BTreeMap<String, String>| -> BTreeSet<String> {
        let new = arms.iter().filter(|(_, arm)| *arm == "2.0.0");
        new.map(|(user, _)| user.clone()).collect()
    };
    assert!(in_new(&five).is_subset(&in_new(&ten)));
    let moved = five
        .iter()
        .filter(|(user, arm)| ten[*user] != **arm)
        .count();
    assert_eq!(moved, in_new(&ten).len() - in_new(&five).len());
    assert!((100..200).contains(&moved), "{moved} of 3000");
}

#[test]
fn whoever_does_not_say_whose_it_is_is_divided_by_chance() {
    let ((_one, old), (_two, new)) = (telling("1.0.0"), telling("2.0.0"));
    let mut stage = Stage::new(vec![old, new]);
    stage.apply(&canary(50));
    let mut wire = stage.client();
    let answers = (0..600).map(|_| wire.get("/api/t/a").text());
    let new = answers.filter(|answer| answer == "2.0.0").count();
    assert!((200..400).contains(&new), "{new} of 600");
}

#[test]
fn the_share_of_a_version_without_a_healthy_instance_goes_to_the_others() {
    let (_one, old) = telling("1.0.0");
    let dead = version("t-dead", "2.0.0", refusing());
    let mut stage = Stage::new(vec![old, dead]);
    stage.apply(&canary(100));
    let all = arms(&stage);
    assert!(all.values().all(|arm| arm == "1.0.0"));
    assert!(stage.metric("hydrant_rule_diverted_total") >= 2990);
    let explained = stage.explain("/api/t/a", &[("user-id", "user-1")]);
    let verdict = &explained.rules[0].verdict;
    assert!(
        verdict.ends_with("no instance of 2.0.0 is well, so one of 1.0.0 gets it"),
        "{verdict}"
    );
    // A version that nobody registers is the same.
    stage.instances.pop();
    stage.publish();
    assert!(arms(&stage).values().all(|arm| arm == "1.0.0"));
}

#[test]
fn a_repeat_stays_with_the_version_as_long_as_it_has_another_instance() {
    let breaking = Backend::start(|mut wire, _| {
        wire.message(false);
    });
    let (_one, old) = telling("1.0.0");
    let (_two, new) = telling("2.0.0");
    let instances = vec![old, new, version("t-breaks", "2.0.0", breaking.address)];
    let mut stage = Stage::new(instances);
    stage.apply(&canary(100));
    assert!(arms(&stage).values().all(|arm| arm == "2.0.0"));
    assert!(
        breaking
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            > 0
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    let (_one, old) = telling("1.0.0");
    let mut stage = Stage::new(vec![old]);
    let rule = |name: &str, priority: i32, matches: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\npriority = {priority}\n{matches}\n\
             redirect = {{ to = \"/{name}\" }}\n"
        )
    };
    let rules = [
        rule("path", 9, "match.path = \"/api/t/below/\""),
        rule("exact", 8, "match.path = \"/api/t/exact\""),
        rule("host", 7, "match.hosts = [\"*.example.com\"]"),
        rule("method", 6, "match.methods = [\"PUT\", \"DELETE\"]"),
        rule("header", 5, "match.headers = { x-beta = \"yes\" }"),
        rule("any", 4, "match.headers = { x-any = \"*\" }"),
        rule("query", 3, "match.query = { \"a.b\" = \"c d\" }"),
        rule("caller", 2, "match.callers = [\"operator\"]"),
        rule(
            "both",
            1,
            "match.methods = [\"POST\"]\nmatch.headers = { x-both = \"1\" }",
        ),
    ];
    stage.apply(&rules.concat());
    let mut wire = stage.client();
    for (head, expected) in [
        (
            "GET /api/t/below/x HTTP/1.1\r\nhost: a.example.com\r\n",
            Some("/path"),
        ),
        ("GET /api/t/below HTTP/1.1\r\nhost: test\r\n", None),
        (
            "GET /api/t/exact?x HTTP/1.1\r\nhost: test\r\n",
            Some("/exact"),
        ),
        ("GET /api/t/exact/ HTTP/1.1\r\nhost: test\r\n", None),
        (
            "GET /api/t/ HTTP/1.1\r\nhost: A.Example.com:80\r\n",
            Some("/host"),
        ),
        (
            "GET http://a.example.com/api/t/ HTTP/1.1\r\nhost: test\r\n",
            Some("/host"),
        ),
        (
            "PUT /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n",
            Some("/method"),
        ),
        (
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\nX-Beta: yes\r\n",
            Some("/header"),
        ),
        (
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\nx-beta: no\r\nX-BETA: yes\r\n",
            Some("/header"),
        ),
        (
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\nx-beta: yes!\r\n",
            None,
        ),
        (
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\nx-any:\r\n",
            Some("/any"),
        ),
        (
            "GET /api/t/?x=1&a.b=c%20d HTTP/1.1\r\nhost: test\r\n",
            Some("/query"),
        ),
        (
            "GET /api/t/?a%2eb=c+d HTTP/1.1\r\nhost: test\r\n",
            Some("/query"),
        ),
        ("GET /api/t/?a.b=c HTTP/1.1\r\nhost: test\r\n", None),
        (
            "POST /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nx-both: 1\r\n",
            Some("/both"),
        ),
        ("GET /api/t/ HTTP/1.1\r\nhost: test\r\nx-both: 1\r\n", None),
    ] {
        wire.send(format!("{head}\r\n"));
        let answer = wire.answer();
        let expected_status = if expected.is_some() { 302 } else { 200 };
        assert_eq!(
            (answer.status(), answer.header("location")),
            (expected_status, expected),
            "{head}"
        );
    }
}

#[test]
fn a_share_of_the_people_is_always_the_same_people() {
    let (_one, old) = telling("1.0.0");
    let mut stage = Stage::new(vec![old]);
    let share = |percent: u32| {
        format!(
            "[[rule]]\nname = \"some\"\nmatch.users = {{ percent = {percent}, by = \"cookie session\" }}\n\
             answer.set = {{ x-some = \"yes\" }}\n"
        )
    };
    let some = |stage: &Stage| -> BTreeSet<u32> {
        let mut wire = stage.client();
        let is_in = |user: &u32| {
            let answer = get(
                &mut wire,
                "/api/t/a",
                &format!("cookie: a=b; session={user}\r\n"),
            );
            answer.header("x-some").is_some()
        };
        (0..1000).filter(is_in).collect()
    };
    stage.apply(&share(5));
    let five = some(&stage);
    stage.apply(&share(10));
    let ten = some(&stage);
    assert!(five.is_subset(&ten));
    assert!((20..90).contains(&five.len()) && (60..150).contains(&ten.len()));
    assert!(
        stage.client().get("/api/t/a").header("x-some").is_none(),
        "nobody is in no share"
    );
}

#[test]
fn headers_change_on_both_ways() {
    let backend = Backend::answering(|request| {
        let head = request.head.to_lowercase();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nserver: old\r\nX-Debug: 1\r\nvary: a\r\ncontent-length: {}\r\n\r\n",
            head.len()
        );
        answer += &head;
        answer.into_bytes()
    });
    let mut stage = Stage::new(vec![instance("t-1", backend.address)]);
    stage.apply(
        "[[rule]]\nname = \"headers\"\n\
         request = { remove = [\"x-debug\"], set = { x-arm = \"new\" }, add = { via = \"hydrant\" } }\n\
         answer = { remove = [\"x-debug\"], set = { server = \"new\" }, add = { vary = \"b\" } }\n",
    );
    let mut wire = stage.client();
    for _ in 0..2 {
        let sent = "X-Debug: 1\r\nX-Arm: old\r\nx-arm: older\r\nvia: other\r\n";
        let answer = get(&mut wire, "/api/t/a", sent);
        let seen = answer.text();
        assert!(!seen.contains("x-debug") && !seen.contains("old"), "{seen}");
        for line in ["x-arm: new\r\n", "via: other\r\n", "via: hydrant\r\n"] {
            assert_eq!(seen.matches(line).count(), 1, "{line} in {seen}");
        }
        let head = answer.head.to_lowercase();
        assert!(
            !head.contains("x-debug") && !head.contains("server: old"),
            "{head}"
        );
        for line in ["server: new\r\n", "vary: a\r\n", "vary: b\r\n"] {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
    }
}

#[test]
fn a_time_out_ends_what_takes_longer() {
    let backend = Backend::answering(|request| {
        if request.head.starts_with("GET /slow") {
            pause(Duration::from_secs(3));
        }
        ok(b"done")
    });
    let mut stage = Stage::new(vec![instance("t-1", backend.address)]);
    stage.apply("[[rule]]\nname = \"quick\"\ntimeout = \"200ms\"\n");
    assert_eq!(stage.client().get("/api/t/fast").status(), 200);
    let began = std::time::Instant::now();
    let mut wire = stage.client();
    let answer = get(&mut wire, "/api/t/slow", "hydrant-timeout-ms: 60000\r\n");
    assert_eq!(answer.status(), 504);
    assert!(
        began.elapsed() < Duration::from_millis(2900),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_redirect_is_counted_and_keeps_the_connection() {
    let (_one, old) = telling("1.0.0");
    let mut stage = Stage::new(vec![old]);
    stage.apply(
        "[[rule]]\nname = \"moved\"\nmatch.path = \"/api/t/old/\"\n\
         redirect = { to = \"https://shop.example.com/new/{rest}\", status = 308 }\n",
    );
    let mut wire = stage.client();
    for _ in 0..3 {
        let answer = wire.get("/api/t/old/a?b=c");
        let location = Some("https://shop.example.com/new/a?b=c");
        assert_eq!(
            (answer.status(), answer.header("location")),
            (308, location)
        );
    }
    assert_eq!(wire.get("/api/t/new").text(), "1.0.0");
    assert_eq!(stage.metric("hydrant_rule_requests_total"), 3);
    let explained = stage.explain("/api/t/old/x", &[]);
    assert_eq!(explained.refusal.unwrap().status(), 308);
    assert!(explained.rules[0].decides);
    assert_eq!(
        stage.metric("hydrant_rule_requests_total"),
        3,
        "an explanation is no request"
    );
}

#[test]
fn what_is_known_of_instances_and_rules_outlives_a_change() {
    let (_one, old) = telling("1.0.0");
    let mut stage = Stage::new(vec![old]);
    stage.apply("[[rule]]\nname = \"a\"\ntimeout = \"10s\"\n");
    let mut wire = stage.client();
    for _ in 0..5 {
        wire.get("/api/t/a");
    }
    stage.apply("[[rule]]\nname = \"a\"\ntimeout = \"20s\"\n");
    wire.get("/api/t/a");
    assert_eq!(stage.metric("hydrant_rule_requests_total"), 6);
    let stats = stage.router.stats(&Default::default());
    assert_eq!(stats[0].requests, 6);
}

#[test]
fn an_explanation_says_of_each_rule_what_it_makes_of_the_request() {
    let ((_one, old), (_two, new)) = (telling("1.0.0"), telling("2.0.0"));
    let mut stage = Stage::new(vec![old, new]);
    let host = "[[rule]]\nname = \"host\"\npriority = 1\nmatch.hosts = [\"a.example.com\"]\ntimeout = \"2s\"\n";
    stage.apply(
        &[
            host,
            &canary(5),
            "[[rule]]\nname = \"last\"\ntimeout = \"2s\"\n",
        ]
        .concat(),
    );
    let explained = stage.explain("/api/t/a", &[("user-id", "user-1")]);
    let number = slot("rule/canary", "user-1").number();
    let verdicts: Vec<_> = explained
        .rules
        .iter()
        .map(|rule| rule.verdict.as_str())
        .collect();
    let canary = format!(
        "decides: 95 % to 1.0.0, 5 % to 2.0.0; by its header user-id the request has slot {number}, which is 1.0.0's"
    );
    assert_eq!(
        verdicts,
        ["the host is another", &canary, "not asked: canary decides"]
    );
    assert_eq!(
        explained.candidates[1].excluded,
        "a rule sends the request to another version"
    );
    let explained = stage.explain("/api/t/a", &[("Host", "A.example.com")]);
    assert_eq!(
        explained.rules[0].verdict,
        "decides: the answer has to be complete within 2s"
    );
}

/// The node that a request enters decides; the one of the instance's server goes by its word.
#[test]
fn rules_are_asked_once_on_the_way_through_two_nodes() {
    let fleet = Fleet::start(&["one", "two"]);
    let ((_one, old), (_two, new)) = (telling("1.0.0"), telling("2.0.0"));
    let instances: Vec<_> = [old, new]
        .into_iter()
        .map(|instance| {
            Arc::new(Instance {
                server: "two".into(),
                ..instance
            })
        })
        .collect();
    let rules = |text: &str| Arc::new(applied(&RuleSet::default(), &of_t(text)));
    let publish = |name: &str, rules: Arc<RuleSet>| {
        fleet.node(name).router.publish(&Table {
            own: name.parse().unwrap(),
            servers: fleet.servers(),
            instances: instances.clone(),
            rules,
        });
    };
    publish(
        "one",
        rules(&(canary(100) + "answer.add = { x-ruled = \"one\" }\n")),
    );
    publish(
        "two",
        rules(&(canary(0) + "answer.add = { x-ruled = \"two\" }\n")),
    );
    let mut wire = fleet.node("one").public();
    for _ in 0..20 {
        let answer = wire.get("/api/t/a");
        assert_eq!(
            (answer.text().as_str(), answer.header("x-ruled")),
            ("2.0.0", Some("one"))
        );
        assert_eq!(answer.head.matches("x-ruled").count(), 1);
    }
}

#[tokio::test]
async fn http2_goes_by_rules_too() {
    use crate::http2;
    use axum::body::Body;

    for speaks_http2 in [true, false] {
        let backend = http2::serve(http2::web()).await;
        let router = http2::router(&[]);
        let rules = "[[rule]]\nname = \"a\"\nmatch.headers = { x-beta = \"*\" }\nsticky = \"header user-id\"\n\
                     weights = { \"1.0.0\" = 0, \"2.0.0\" = 100 }\nrequest.set = { x-arm = \"new\" }\n\
                     answer.set = { x-ruled = \"yes\" }\n\
                     [[rule]]\nname = \"b\"\nmatch.path = \"/api/web/old/\"\nredirect = { to = \"/new/{rest}\" }\n\
                     [[rule]]\nname = \"c\"\nmatch.path = \"/api/web/slow\"\ntimeout = \"100ms\"\n";
        let rules = rules.replace("[[rule]]", "[[rule]]\nservice = \"api/web\"");
        let rules = Arc::new(applied(&RuleSet::default(), &rules));
        let instances =
            [(1, "1.0.0", refusing()), (2, "2.0.0", backend)].map(|(number, text, address)| {
                let mut made = http2::instance(number, address, speaks_http2);
                made.version = text.parse().unwrap();
                made
            });
        router.publish(&Table {
            rules,
            ..Table::of_one_server(&instances)
        });
        let mut client = http2::client(router.public_addr()).await;
        for _ in 0..5 {
            let mut asked = http2::request("GET", "/api/web/seen", Body::empty());
            asked.headers_mut().insert("x-beta", "1".parse().unwrap());
            asked.headers_mut().append("x-arm", "old".parse().unwrap());
            let (status, headers, seen) = http2::ask(&mut client, asked).await;
            assert_eq!(
                (status.as_u16(), headers["x-ruled"].to_str().unwrap()),
                (200, "yes")
            );
            assert!(
                seen.contains("x-arm: new") && !seen.contains("old"),
                "{seen}"
            );
        }
        let ask = http2::request("GET", "/api/web/old/x?y", Body::empty());
        let (status, headers, _) = http2::ask(&mut client, ask).await;
        assert_eq!(
            (status.as_u16(), headers["location"].to_str().unwrap()),
            (302, "/new/x?y")
        );
        let ask = http2::request("GET", "/api/web/slow", Body::empty());
        assert_eq!(http2::ask(&mut client, ask).await.0, 504);
    }
}
