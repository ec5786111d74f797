//! What rules do with requests beyond which version gets them, over HTTP/1.1 and HTTP/2.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use hydrant_contracts::rules::RuleSet;
use hydrant_router::{Router, Table};
use hyper::client::conn::http2::SendRequest;
use tokio::runtime::Runtime;

use crate::fleet::{Fleet, on};
use crate::http2;
use crate::raw::{Backend, Wire, client, instance, ok, pause, refusing};
use crate::rules::{Stage, applied, of_t, telling, version};

/// Somebody who asks, and waits for the answer.
enum Client {
    Http1(Wire),
    Http2(Runtime, SendRequest<Body>),
}

struct Told {
    status: u16,
    text: String,
    retry_after: Option<String>,
}

impl Client {
    /// One of each protocol.
    fn both(router: &Router) -> [Self; 2] {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let sender = runtime.block_on(http2::client(router.public_addr()));
        [Self::Http1(client(router)), Self::Http2(runtime, sender)]
    }

    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Told {
        match self {
            Self::Http1(wire) => {
                let headers = headers.iter();
                let lines: String = headers
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                wire.send(format!(
                    "{method} {path} HTTP/1.1\r\nhost: test\r\n{lines}content-length: {}\r\n\r\n{body}",
                    body.len()
                ));
                let answer = wire.answer();
                Told {
                    status: answer.status(),
                    text: answer.text(),
                    retry_after: answer.header("retry-after").map(str::to_owned),
                }
            }
            Self::Http2(runtime, sender) => {
                let mut asked = http2::request(method, path, body.to_owned());
                for (name, value) in headers {
                    let name: http::HeaderName = name.parse().unwrap();
                    asked.headers_mut().append(name, value.parse().unwrap());
                }
                let (status, headers, text) = runtime.block_on(http2::ask(sender, asked));
                Told {
                    status: status.as_u16(),
                    retry_after: headers
                        .get("retry-after")
                        .map(|value| value.to_str().unwrap().to_owned()),
                    text,
                }
            }
        }
    }

    fn get(&mut self, path: &str) -> Told {
        self.ask("GET", path, &[], "")
    }
}

/// Tells the path that it sees.
fn seeing() -> Backend {
    Backend::answering(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        ok(path.as_bytes())
    })
}

fn answering(status: &'static str, body: &'static str) -> Backend {
    Backend::answering(move |_| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    })
}

const REWRITES: &str = "[[rule]]\nname = \"below\"\nmatch.path = \"/api/t/v1/\"\nrewrite = \"/api/t/v2/\"\n\
     [[rule]]\nname = \"exact\"\nmatch.path = \"/api/t/old\"\nrewrite = \"/api/t/new/page\"\n";

#[test]
fn an_instance_sees_a_rewritten_path_as_if_it_had_been_asked_for() {
    let backend = seeing();
    // A repeat sees the same.
    let broken = Backend::start(|mut wire, _| drop(wire.message(false)));
    let mut stage = Stage::new(vec![
        instance("t-1", backend.address),
        instance("t-2", broken.address),
    ]);
    stage.apply(REWRITES);
    for mut client in Client::both(&stage.router) {
        for _ in 0..5 {
            for (path, seen) in [
                ("/api/t/v1/a/b?c=%2F&d", "/v2/a/b?c=%2F&d"),
                ("/api/t/v1/", "/v2/"),
                ("/api/t/old?x", "/new/page?x"),
                ("/api/t/old/er", "/old/er"),
            ] {
                let told = client.get(path);
                assert_eq!((told.status, told.text.as_str()), (200, seen), "{path}");
            }
        }
        assert_eq!(client.get("/api/t/v1/../a").status, 400);
    }
    let explained = stage.explain("/api/t/v1/a?b", &[]);
    assert_eq!(explained.upstream_path, "/v2/a?b");
    let verdict = &explained.rules[0].verdict;
    assert_eq!(verdict, "decides: its path is rewritten to /api/t/v2/");
}

#[test]
fn a_rewritten_path_crosses_to_another_server_once() {
    for fleet in Fleet::both(&["one", "two"]) {
        let backend = seeing();
        let rules = Arc::new(applied(&RuleSet::default(), &of_t(REWRITES)));
        for name in ["one", "two"] {
            fleet.node(name).router.publish(&Table {
                own: name.parse().unwrap(),
                servers: fleet.servers(),
                instances: vec![Arc::new(on("two", "t-1", backend.address))],
                rules: Arc::clone(&rules),
            });
        }
        for mut client in Client::both(&fleet.node("one").router) {
            assert_eq!(client.get("/api/t/v1/a").text, "/v2/a");
        }
    }
}

/// What is kept may have been written by somebody who checked it less.
#[test]
fn a_rewrite_never_leads_out_of_its_service() {
    let backend = seeing();
    let mut other = instance("s-1", backend.address);
    other.service = "service/t".parse().unwrap();
    other.prefixes =
        vec![hydrant_contracts::PathPrefix::new(&other.service, "/service/t/", true).unwrap()];
    let mut stage = Stage::new(vec![instance("t-1", backend.address), other]);
    stage.apply(REWRITES);
    let kept = serde_json::to_string(&*stage.rules).unwrap();
    for to in ["/service/t/", "/api/t/../", "/api/t//", "/api/t/%2e%2e/"] {
        let forged = kept.replace("\"/api/t/v2/\"", &format!("\"{to}\""));
        stage.rules = Arc::new(serde_json::from_str(&forged).unwrap());
        stage.publish();
        for mut client in Client::both(&stage.router) {
            let told = client.get("/api/t/v1/a");
            assert!(matches!(told.status, 400 | 404), "{to}: {}", told.text);
            assert!(told.text.contains("by the rule below"), "{}", told.text);
        }
    }
    assert_eq!(backend.requests(), 0);
}

fn retrying(retry: &str) -> String {
    format!("[[rule]]\nname = \"again\"\nretry = {{ {retry} }}\n")
}

#[test]
fn a_status_that_a_rule_names_is_asked_for_again_where_that_is_safe() {
    let busy = answering("429 Too Many Requests", "busy");
    let echo = Backend::echo();
    let mut stage = Stage::new(vec![
        instance("t-1", busy.address),
        instance("t-2", echo.address),
    ]);
    stage.apply(&retrying("on = [\"429\"]"));
    for mut client in Client::both(&stage.router) {
        for _ in 0..10 {
            assert_eq!(client.get("/api/t/a").status, 200);
            assert_eq!(client.ask("PUT", "/api/t/a", &[], "body").text, "body");
        }
    }
    stage.instances[1].address = busy.address;
    stage.publish();
    let before = busy.requests();
    for mut client in Client::both(&stage.router) {
        assert_eq!(client.ask("POST", "/api/t/a", &[], "body").text, "busy");
    }
    assert_eq!(busy.requests() - before, 2, "what is not safe to repeat");
    stage.instances[1].address = echo.address;
    stage.apply(&retrying("on = [\"429\"], non_idempotent = true"));
    for mut client in Client::both(&stage.router) {
        for _ in 0..10 {
            let told = client.ask("POST", "/api/t/a", &[], "body");
            assert_eq!((told.status, told.text.as_str()), (200, "body"));
        }
    }
}

#[test]
fn an_answer_that_nobody_does_better_than_is_the_clients() {
    let busy = answering("429 Too Many Requests", "busy");
    let mut stage = Stage::new(vec![instance("t-1", busy.address)]);
    stage.apply(&retrying("on = [\"429\"]"));
    for mut client in Client::both(&stage.router) {
        let told = client.get("/api/t/a");
        assert_eq!((told.status, told.text.as_str()), (429, "busy"));
    }
    assert_eq!(busy.requests(), 2);
}

#[test]
fn repeats_after_a_status_stay_within_the_retry_budget() {
    let busy: Vec<_> = (0..3)
        .map(|_| answering("429 Too Many Requests", "busy"))
        .collect();
    let instances = busy.iter().enumerate();
    let instances = instances.map(|(at, busy)| instance(&format!("t-{at}"), busy.address));
    let mut stage = Stage::new(instances.collect());
    stage.apply(&retrying("on = [\"429\"]"));
    for mut client in Client::both(&stage.router) {
        for _ in 0..100 {
            assert_eq!(client.get("/api/t/a").text, "busy");
        }
    }
    // 200 requests, and 10 repeats a second over 10 seconds; without a budget there were 600.
    let requests: usize = busy.iter().map(Backend::requests).sum();
    println!("{requests} attempts of 200 requests");
    assert!((250..400).contains(&requests), "{requests}");
}

#[test]
fn a_rule_says_how_often_and_after_what() {
    let broken = Backend::start(|mut wire, _| drop(wire.message(false)));
    let connections = || broken.connections.load(std::sync::atomic::Ordering::SeqCst);
    for retry in ["attempts = 1", "on = [\"connect\"]", "on = [\"503\"]"] {
        let instances = ["t-1", "t-2"].map(|id| instance(id, broken.address));
        let mut stage = Stage::new(instances.into());
        stage.apply(&retrying(retry));
        for mut client in Client::both(&stage.router) {
            let before = connections();
            assert_eq!(client.get("/api/t/a").status, 502);
            assert_eq!(connections() - before, 1, "{retry}");
        }
    }
    let (_good, good) = telling("1.0.0");
    let mut stage = Stage::new(vec![instance("t-1", refusing()), good]);
    stage.apply(&retrying("on = [\"connect\"]"));
    for mut client in Client::both(&stage.router) {
        for _ in 0..4 {
            assert_eq!(client.get("/api/t/a").status, 200);
        }
    }
    let explained = stage.explain("/api/t/a", &[]);
    assert_eq!(
        explained.on_failure,
        "by a rule it is tried at most 4 times, again on connect, within the retry budget"
    );
}

/// Answers after a time.
fn slow(wait: u64) -> Backend {
    Backend::answering(move |_| {
        pause(Duration::from_millis(wait));
        ok(b"slow")
    })
}

#[test]
fn a_try_that_takes_too_long_is_given_up_and_another_instance_asked() {
    let slow = slow(60_000);
    let (_quick, quick) = telling("1.0.0");
    let mut stage = Stage::new(vec![instance("t-1", slow.address), quick]);
    stage.apply(&retrying("per_try_timeout = \"100ms\""));
    let began = Instant::now();
    for mut client in Client::both(&stage.router) {
        for _ in 0..3 {
            assert_eq!(client.get("/api/t/a").text, "1.0.0");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{began:?}");
    stage.instances.pop();
    stage.publish();
    for mut client in Client::both(&stage.router) {
        for method in ["GET", "POST"] {
            let told = client.ask(method, "/api/t/a", &[], "");
            assert_eq!(told.status, 504, "{}", told.text);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{began:?}");
}

#[test]
fn what_is_not_safe_to_repeat_is_given_up_and_not_sent_again() {
    let backends = [slow(60_000), slow(60_000)];
    let instances = backends.iter().enumerate();
    let instances = instances.map(|(at, slow)| instance(&format!("t-{at}"), slow.address));
    let mut stage = Stage::new(instances.collect());
    stage.apply(&retrying("per_try_timeout = \"100ms\""));
    for mut client in Client::both(&stage.router) {
        assert_eq!(client.ask("POST", "/api/t/a", &[], "body").status, 504);
    }
    let sent = backends.iter().map(Backend::requests).sum::<usize>();
    assert_eq!(sent, 2);
}

#[test]
fn tries_end_with_the_deadline() {
    let backends = [slow(60_000), slow(60_000), slow(60_000), slow(60_000)];
    let instances = backends.iter().enumerate();
    let instances = instances.map(|(at, slow)| instance(&format!("t-{at}"), slow.address));
    let mut stage = Stage::new(instances.collect());
    stage.apply(&(retrying("per_try_timeout = \"1500ms\"") + "timeout = \"2s\"\n"));
    for mut client in Client::both(&stage.router) {
        let began = Instant::now();
        assert_eq!(client.get("/api/t/a").status, 504);
        assert!(began.elapsed() < Duration::from_secs(15), "{began:?}");
    }
    let sent = backends.iter().map(Backend::requests).sum::<usize>();
    assert!(sent <= 4, "{sent}");
}

#[test]
fn a_client_that_is_slow_itself_uses_up_no_try() {
    let echo = Backend::echo();
    let mut stage = Stage::new(vec![instance("t-1", echo.address)]);
    stage.apply(&retrying("per_try_timeout = \"3s\""));
    let mut wire = client(&stage.router);
    wire.send("PUT /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n");
    for half in ["bo", "dy"] {
        pause(Duration::from_millis(1800));
        wire.send(half);
    }
    assert_eq!(wire.answer().text(), "body");
}

/// The answers of some requests, each once.
fn answers(router: &Router) -> BTreeSet<String> {
    let asked = |mut client: Client| {
        let texts = (0..20).map(|_| client.get("/api/t/a").text);
        texts.collect::<Vec<_>>()
    };
    Client::both(router).into_iter().flat_map(asked).collect()
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

#[test]
fn a_pin_sends_all_to_what_it_names_as_long_as_that_is_well() {
    let ((one, old), (_two, new)) = (telling("1.0.0"), telling("2.0.0"));
    for pin in ["version = \"1.0.0\"", "instance = \"t-1-0-0\""] {
        let mut stage = Stage::new(vec![old.clone(), new.clone()]);
        let rule = |otherwise: &str| {
            format!("[[rule]]\nname = \"pin\"\npin = {{ {pin}, else = \"{otherwise}\" }}\n")
        };
        stage.apply(&rule("others"));
        assert_eq!(answers(&stage.router), set(["1.0.0"]));
        let explained = stage.explain("/api/t/a", &[]);
        let excluded = &explained.candidates[1].excluded;
        assert_eq!(excluded, "a rule sends the request elsewhere");
        stage.instances[0].address = refusing();
        stage.publish();
        assert_eq!(answers(&stage.router), set(["2.0.0"]), "{pin}");
        let explained = stage.explain("/api/t/a", &[]);
        let verdict = &explained.rules[0].verdict;
        assert!(
            verdict.ends_with("; nothing else is well and has room, so t-2-0-0 gets it"),
            "{verdict}"
        );
        assert!(stage.metric("hydrant_rule_diverted_total") > 0);
        stage.apply(&rule("refuse"));
        for mut client in Client::both(&stage.router) {
            for _ in 0..3 {
                let told = client.get("/api/t/a");
                assert_eq!(told.status, 503, "{}", told.text);
            }
        }
        let explained = stage.explain("/api/t/a", &[]);
        assert_eq!(explained.refusal.map(|refusal| refusal.status()), Some(503));
        stage.instances.remove(0);
        stage.publish();
        let told = Client::both(&stage.router)[1].get("/api/t/a");
        assert_eq!(told.status, 503);
        assert!(
            told.text.contains("the rule pin pins it to"),
            "{}",
            told.text
        );
        stage
            .instances
            .insert(0, version("t-1-0-0", "1.0.0", one.address));
        stage.publish();
        assert_eq!(answers(&stage.router), set(["1.0.0"]));
    }
}

/// Instances on two servers, and one node that sends to both.
fn on_two_servers(
    rule: &str,
    second: SocketAddr,
) -> (Fleet, Backend, impl Fn(&Fleet, &str, SocketAddr)) {
    let fleet = Fleet::start(&["one", "two"]);
    let here = Backend::answering(|_| ok(b"one"));
    let first = here.address;
    let publish = move |fleet: &Fleet, rule: &str, second: SocketAddr| {
        let rules = Arc::new(applied(&RuleSet::default(), &of_t(rule)));
        for name in ["one", "two"] {
            let servers = fleet.servers().into_iter().map(|server| {
                let mut server = hydrant_contracts::Server::clone(&server);
                server.zone = format!("zone-{}", server.name).parse().unwrap();
                Arc::new(server)
            });
            let instances = [on("one", "t-1", first), on("two", "t-2", second)];
            fleet.node(name).router.publish(&Table {
                own: name.parse().unwrap(),
                servers: servers.collect(),
                instances: instances.map(Arc::new).into(),
                rules: Arc::clone(&rules),
            });
        }
    };
    publish(&fleet, rule, second);
    (fleet, here, publish)
}

#[test]
fn a_server_or_zone_is_avoided_until_nothing_else_is_well() {
    for avoid in ["servers = [\"one\"]", "zones = [\"zone-one\"]"] {
        let there = Backend::answering(|_| ok(b"two"));
        let rule = format!("[[rule]]\nname = \"away\"\navoid = {{ {avoid} }}\n");
        let (fleet, _here, publish) = on_two_servers(&rule, there.address);
        let router = &fleet.node("one").router;
        assert_eq!(answers(router), set(["two"]), "{avoid}");
        publish(&fleet, &rule, refusing());
        assert_eq!(answers(router), set(["one"]), "{avoid}");
        let far = avoid.replace("one\"", "two\"");
        let rule = format!("[[rule]]\nname = \"away\"\navoid = {{ {far} }}\n");
        publish(&fleet, &rule, there.address);
        assert_eq!(answers(router), set(["one"]), "{far}");
        let rule = "[[rule]]\nname = \"to\"\npin = { server = \"two\", else = \"refuse\" }\n";
        publish(&fleet, rule, there.address);
        let mut client = client_of(router);
        wait_for(|| client.get("/api/t/a").text == "two");
        assert_eq!(answers(router), set(["two"]));
    }
}

fn client_of(router: &Router) -> Client {
    let [http1, _] = Client::both(router);
    http1
}

/// An instance that refused connections is tried again by and by.
fn wait_for(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain");
        pause(Duration::from_millis(50));
    }
}

/// A repeat stays where the rule wants it, too.
#[test]
fn what_is_pinned_is_never_repeated_elsewhere() {
    let broken = Backend::start(|mut wire, _| drop(wire.message(false)));
    let (good, other) = telling("2.0.0");
    let mut stage = Stage::new(vec![version("t-1", "1.0.0", broken.address), other]);
    stage.apply(
        "[[rule]]\nname = \"pin\"\npin = { version = \"1.0.0\", else = \"refuse\" }\n\
         retry = { on = [\"reset\", \"connect\", \"503\"] }\n",
    );
    for mut client in Client::both(&stage.router) {
        for _ in 0..5 {
            assert!(matches!(client.get("/api/t/a").status, 502 | 503));
        }
    }
    assert_eq!(good.requests(), 0);
}

fn limited(limit: &str) -> String {
    format!("[[rule]]\nname = \"few\"\nlimit = {{ {limit} }}\n")
}

#[test]
fn more_than_a_rule_lets_through_is_told_to_come_again() {
    let (backend, instance) = telling("1.0.0");
    let mut stage = Stage::new(vec![instance]);
    // The hour is long enough for any machine.
    stage.apply(&limited("rate = \"4/h\""));
    let mut both = Client::both(&stage.router);
    for client in &mut both {
        for _ in 0..2 {
            assert_eq!(client.get("/api/t/a").status, 200);
        }
    }
    for client in &mut both {
        for body in ["", "body"] {
            let told = client.ask("PUT", "/api/t/a", &[], body);
            assert_eq!(told.status, 429, "{}", told.text);
            assert!(told.text.contains("the rule few lets through at most 4/h"));
            let seconds: u32 = told.retry_after.unwrap().parse().unwrap();
            assert!((600..=900).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(backend.requests(), 4, "all workers and protocols together");
    assert_eq!(stage.metric("hydrant_rule_limited_total"), 4);
    let explained = stage.explain("/api/t/a", &[]);
    assert_eq!(explained.refusal.map(|refusal| refusal.status()), Some(429));
    // A change of something else lets nobody through, one of the limit begins anew.
    stage.apply(&(limited("rate = \"4/h\"") + "timeout = \"9s\"\n"));
    assert_eq!(client_of(&stage.router).get("/api/t/a").status, 429);
    stage.apply(&limited("rate = \"5/h\", burst = 1"));
    assert_eq!(stage.explain("/api/t/a", &[]).refusal, None);
    let mut client = client_of(&stage.router);
    let told = [(); 2].map(|()| client.get("/api/t/a").status);
    assert_eq!(told, [200, 429], "an explanation takes nothing");
}

#[test]
fn a_limit_counts_each_by_what_the_rule_says() {
    let (_backend, instance) = telling("1.0.0");
    let mut stage = Stage::new(vec![instance]);
    let ask = |stage: &Stage, headers: &[(&str, &str)]| {
        let clients = Client::both(&stage.router).into_iter();
        let told = clients.map(|mut client| client.ask("GET", "/api/t/a", headers, "").status);
        told.collect::<Vec<_>>()
    };
    stage.apply(&limited("rate = \"1/h\", by = \"header user-id\""));
    for user in ["ann", "bob"] {
        assert_eq!(ask(&stage, &[("user-id", user)]), [200, 429], "{user}");
    }
    assert_eq!(ask(&stage, &[]), [200, 429], "who says nothing is one");
    stage.apply(&limited("rate = \"1/h\", by = \"address\""));
    assert_eq!(ask(&stage, &[("user-id", "ann")]), [200, 429]);
    assert_eq!(ask(&stage, &[("user-id", "eve")]), [429, 429]);
    stage.apply(&limited("rate = \"1/h\", by = \"caller\""));
    let token = crate::fleet::token("operator");
    assert_eq!(ask(&stage, &[]), [200, 429]);
    assert_eq!(ask(&stage, &[("hydrant-token", &token)]), [200, 429]);
}

#[test]
fn what_a_limit_lets_through_is_let_through_again_in_time() {
    let (_backend, instance) = telling("1.0.0");
    let mut stage = Stage::new(vec![instance]);
    stage.apply(&limited("rate = \"2/s\", burst = 1"));
    let mut client = client_of(&stage.router);
    assert_eq!(client.get("/api/t/a").status, 200);
    wait_for(|| client.get("/api/t/a").status == 200);
}
