//! Requests of HTTP/1.1 whose instance is on another server.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hydrant_contracts::{InstanceState, PathPrefix};
use hydrant_router::Limits;

use crate::fleet::{Fleet, Node, errors, on, publish, token};
use crate::hostile;
use crate::raw::{Backend, PATIENCE, Wire, instance, ok, pause, refusing};

fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_call_reaches_an_instance_on_another_server() {
    for fleet in Fleet::both(&["one", "two"]) {
        let backend = Backend::echo();
        fleet.publish(&[on("two", "t-1", backend.address)]);
        let mut client = fleet.node("one").public();
        for at in 0..3 {
            client.send(format!(
                "GET /api/t/a?b={at} HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 10.0.0.9\r\n\
                 x-forwarded-proto: https\r\nhydrant-token: {}\r\nhydrant-to: t-2\r\n\
                 hydrant-unsent: refused\r\ncorrelation-id: c-{at}\r\n\r\n",
                token("operator")
            ));
            let answer = client.answer();
            let seen = answer.text().to_lowercase();
            assert_eq!(answer.status(), 200, "{seen}");
            let first = format!("get /a?b={at} http/1.1\r\nhost: test\r\n");
            assert!(seen.starts_with(&first), "{seen}");
            for line in [
                "x-forwarded-for: 10.0.0.9, 127.0.0.1\r\n",
                "x-forwarded-host: test\r\n",
                "x-forwarded-proto: http\r\n",
                "x-forwarded-prefix: /api/t\r\n",
                "hydrant-caller: operator\r\n",
                &format!("correlation-id: c-{at}\r\n"),
            ] {
                assert_eq!(seen.matches(line).count(), 1, "{line} in {seen}");
            }
            for name in ["hydrant-token", "hydrant-to", "hydrant-unsent"] {
                assert!(!seen.contains(name), "{name} in {seen}");
            }
        }
        let connections = backend.connections.load(Ordering::SeqCst);
        assert_eq!(connections, 1, "both hops keep their connections");
    }
}

/// One node cuts the prefix off, and that one puts it back.
#[test]
fn a_prefix_is_cut_once_and_put_back_once() {
    for fleet in Fleet::both(&["one", "two"]) {
        let backend = Backend::answering(|request| {
            let path = request.head.split(' ').nth(1).unwrap();
            format!("HTTP/1.1 302 Found\r\nlocation: {path}/there\r\ncontent-length: 0\r\n\r\n")
                .into()
        });
        fleet.publish(&[on("two", "t-1", backend.address)]);
        let answer = fleet.node("one").public().get("/api/t/here");
        assert_eq!(answer.header("location"), Some("/api/t/here/there"));
    }
}

#[test]
fn large_bodies_go_both_ways() {
    for fleet in Fleet::both(&["one", "two"]) {
        let backend = Backend::echo();
        fleet.publish(&[on("two", "t-1", backend.address)]);
        let mut client = fleet.node("one").public();
        let body: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (request, mut sender) = (post(&body), client.stream().try_clone().unwrap());
        let sending = std::thread::spawn(move || {
            std::io::Write::write_all(&mut sender, &request).unwrap();
        });
        let answer = client.answer();
        sending.join().unwrap();
        assert!(answer.status() == 200 && answer.body == body);
        let chunks = body.chunks(100_000).take(5).map(|chunk| {
            let size = format!("{:x}\r\n", chunk.len());
            [size.as_bytes(), chunk, b"\r\n"].concat()
        });
        let chunks: Vec<_> = chunks.collect();
        client.send("PUT /api/t/a HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(chunks.concat());
        client.send("0\r\n\r\n");
        let answer = client.answer();
        assert!(answer.status() == 200 && answer.body == body[..500_000]);
    }
}

#[test]
fn a_tunnel_crosses() {
    for fleet in Fleet::both(&["one", "two"]) {
        let backend = Backend::start(|mut wire, _| {
            let head = wire.head().unwrap().to_lowercase();
            assert!(
                head.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
                "{head}"
            );
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nwelcome");
            let mut all = Vec::new();
            wire.reader.read_to_end(&mut all).unwrap();
            wire.send(format!("{} bytes", all.len()));
        });
        fleet.publish(&[on("two", "t-1", backend.address)]);
        let mut wire = fleet.node("one").public();
        wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
        assert!(wire.head().unwrap().starts_with("HTTP/1.1 101"));
        assert_eq!(wire.exactly(7).unwrap(), b"welcome");
        wire.send(vec![7; 300_000]);
        wire.end();
        let mut rest = String::new();
        wire.reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "300000 bytes");
    }
}

#[test]
fn an_instance_that_refuses_on_its_server_is_left_out_and_nothing_is_sent_twice() {
    for fleet in Fleet::both(&["one", "two", "three"]) {
        let backend = Backend::answering(|request| ok(&request.body));
        fleet.publish(&[
            on("one", "t-0", refusing()),
            on("two", "t-1", refusing()),
            on("two", "t-2", refusing()),
            on("three", "t-3", backend.address),
        ]);
        let mut client = fleet.node("one").public();
        for at in 0..30 {
            let body = format!("body {at} {}", "x".repeat(at * 2000));
            client.send(post(body.as_bytes()));
            let answer = client.answer();
            assert_eq!((answer.status(), answer.text()), (200, body));
            assert_eq!(answer.header("hydrant-unsent"), None);
        }
        assert_eq!(backend.requests(), 30);
        let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
        let refusals: u64 = stats.iter().map(|stats| errors(stats, "connect")).sum();
        println!("asked {refusals} times for instances that refuse, over 30 requests");
        assert!(
            refusals >= 2 && stats[..3].iter().all(|stats| stats.requests < 15),
            "{stats:?}"
        );
    }
}

/// A body that is too long to be kept stays with the first node until the second one has reached
/// the instance.
#[test]
fn a_long_body_is_not_lost_at_an_instance_that_refuses_on_its_server() {
    for fleet in Fleet::both(&["one", "two", "three"]) {
        let backend = Backend::answering(|request| ok(&request.body));
        fleet.publish(&[
            on("two", "t-1", refusing()),
            on("two", "t-2", refusing()),
            on("three", "t-3", backend.address),
        ]);
        let body: Vec<u8> = (0..700_000_u32).map(|at| (at % 253) as u8).collect();
        let head = "POST /api/t/a HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        let size = format!("{:x}\r\n", body.len());
        let chunked = [head.as_bytes(), size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        for at in 0..12 {
            let request = if at % 2 == 0 {
                post(&body)
            } else {
                chunked.clone()
            };
            let mut client = fleet.node("one").public();
            let mut sender = client.stream().try_clone().unwrap();
            let sending = std::thread::spawn(move || {
                std::io::Write::write_all(&mut sender, &request).unwrap();
            });
            let answer = client.answer();
            assert!(
                answer.status() == 200 && answer.body == body,
                "{at}: {}",
                answer.head
            );
            sending.join().unwrap();
            pause(Duration::from_millis(30));
        }
        let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
        let refusals: u64 = stats.iter().map(|stats| errors(stats, "connect")).sum();
        assert!(refusals >= 2, "{stats:?}");
        assert_eq!(backend.requests(), 12);
    }
}

/// An instance that breaks off may have done what it was asked: only what is safe to repeat is
/// repeated, and it is the first node that does.
#[test]
fn what_broke_off_there_is_repeated_only_where_that_is_safe() {
    for fleet in Fleet::both(&["one", "two", "three"]) {
        let broken = Backend::start(|mut wire, seen| {
            if let Some(message) = wire.message(false) {
                seen.note(&message);
            }
        });
        let backend = Backend::echo();
        let instances = [
            on("two", "t-1", broken.address),
            on("three", "t-2", backend.address),
        ];
        fleet.publish(&instances);
        let mut client = fleet.node("one").public();
        for _ in 0..20 {
            assert_eq!(client.get("/api/t/a").status(), 200);
            client.send("POST /api/t/safe/a HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\na");
            assert_eq!(client.answer().status(), 200);
        }
        assert!(broken.requests() > 0 && backend.requests() == 40);
        fleet.publish(&instances[..1]);
        let before = broken.requests();
        client.send(post(b"once"));
        let answer = client.answer();
        assert_eq!(answer.status(), 502, "{}", answer.text());
        assert!(!answer.head.contains("hydrant-broken"), "{}", answer.head);
        assert_eq!(broken.requests(), before + 1);
    }
}

/// What instances and clients say of these things is nobody's proof.
#[test]
fn only_nodes_are_believed() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let liar = Backend::answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        b"HTTP/1.1 503 No\r\nhydrant-unsent: refused\r\nHydrant-Broken: closed\r\ncontent-length: 2\r\n\r\nno"
            .to_vec()
    });
    let fleet = Fleet::start(&["one", "two"]);
    for server in ["one", "two"] {
        fleet.publish(&[
            on(server, "t-1", liar.address),
            on(server, "t-2", liar.address),
        ]);
        calls.store(0, Ordering::SeqCst);
        let answer = fleet.node("one").public().get("/api/t/a");
        assert_eq!((answer.status(), answer.text()), (503, "no".into()));
        assert!(
            !answer.head.to_lowercase().contains("hydrant"),
            "{}",
            answer.head
        );
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

/// The second node trusts no first one: it looks at the caller's token itself.
#[test]
fn tiers_are_enforced_by_the_second_node_alone() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    let mut inner = on("two", "s-1", backend.address);
    inner.service = "service/s".parse().unwrap();
    inner.prefixes = vec![PathPrefix::new(&inner.service, "/service/s/", true).unwrap()];
    fleet.publish(&[inner, on("two", "t-1", backend.address)]);
    let mut peer = Wire::connect(fleet.node("two").peer());
    let mut ask = |path: &str, more: &str| {
        peer.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{more}\r\n"));
        peer.answer()
    };
    let token_of = |who: &str| format!("hydrant-token: {}\r\n", token(who));
    let to = "hydrant-to: s-1\r\n";
    for (caller, status) in [
        (String::new(), 403),
        ("hydrant-caller: operator\r\n".into(), 403),
        (token_of("service/other"), 403),
        (token_of("api/t"), 200),
        (token_of("operator"), 200),
        ("hydrant-token: h1.operator.AAAA\r\n".into(), 401),
    ] {
        let answer = ask("/service/s/a", &format!("{to}{caller}"));
        assert_eq!(answer.status(), status, "{caller}: {}", answer.text());
        assert_eq!(answer.header("hydrant-unsent"), None, "{caller}");
    }
    let operator = token_of("operator");
    let answer = ask("/health", &format!("{to}{operator}"));
    assert_eq!(answer.header("hydrant-unsent"), Some("unknown"));
    let answer = ask("/service/s/a", &operator);
    assert_eq!(answer.status(), 400, "{}", answer.text());
    // The same through the first node, which has its own opinion of the same tokens.
    let mut local = fleet.node("one").local();
    for (who, status) in [("api/t", 200), ("service/other", 403)] {
        let token = token_of(who);
        local.send(format!(
            "GET /service/s/a HTTP/1.1\r\nhost: test\r\n{token}\r\n"
        ));
        assert_eq!(local.answer().status(), status, "{who}");
    }
}

/// A node sends what another one brings to the instance that this names, and nowhere else.
#[test]
fn a_second_node_sends_to_its_own_instance_or_nowhere() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    let mut draining = on("two", "t-3", backend.address);
    draining.state = InstanceState::Draining;
    let instances = [
        on("one", "t-1", backend.address),
        on("two", "t-2", refusing()),
        draining,
        on("two", "t-4", backend.address),
    ];
    fleet.publish(&instances);
    let mut peer = Wire::connect(fleet.node("two").peer());
    let mut ask = |to: &str, path: &str| {
        peer.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nhydrant-to: {to}\r\ncontent-length: 1\r\n\r\nx"
        ));
        let answer = peer.answer();
        let unsent = answer.header("hydrant-unsent").map(str::to_owned);
        (answer.status(), unsent.unwrap_or_default())
    };
    for (to, path, expected) in [
        ("t-1", "/api/t/a", "unknown"),
        ("t-2", "/api/t/a", "refused"),
        ("t-2", "/api/t/a", "refused"),
        ("t-3", "/api/t/a", "not-ready"),
        ("t-4", "/api/gone/a", "unknown"),
        ("nobody", "/api/t/a", "unknown"),
        ("a%20b", "/api/t/a", "unknown"),
    ] {
        assert_eq!(ask(to, path), (503, expected.into()), "{to} {path}");
    }
    assert_eq!(ask("t-4", "/api/t/a"), (200, String::new()));
    assert_eq!(backend.requests(), 1);
    publish(fleet.node("two"), &fleet.servers(), &[]);
    assert_eq!(ask("t-4", "/api/t/a"), (503, "unknown".into()));
}

/// Two nodes that each take an instance for the other's send a request to each other once.
#[test]
fn nothing_goes_in_circles() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    let servers = fleet.servers();
    publish(
        fleet.node("one"),
        &servers,
        &[on("two", "t-1", backend.address)],
    );
    publish(
        fleet.node("two"),
        &servers,
        &[on("one", "t-1", backend.address)],
    );
    let answer = fleet.node("one").public().get("/api/t/a");
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert_eq!(backend.requests(), 0);
}

/// The first connection that is refused tells of all instances behind it, and the node that comes
/// back is noticed without a request.
#[test]
fn with_a_server_gone_no_request_fails_and_one_refusal_tells_of_all() {
    for mut fleet in Fleet::both(&["one", "two", "three"]) {
        let backends: Vec<_> = (0..6).map(|_| Backend::echo()).collect();
        let instances: Vec<_> = backends
            .iter()
            .enumerate()
            .map(|(at, backend)| {
                let server = if at < 3 { "two" } else { "three" };
                on(server, &format!("t-{at}"), backend.address)
            })
            .collect();
        fleet.publish(&instances);
        let mut client = fleet.node("one").public();
        for _ in 0..60 {
            assert_eq!(client.get("/api/t/a").status(), 200);
        }
        let counted = |backends: &[Backend]| backends.iter().map(Backend::requests).sum::<usize>();
        assert!(counted(&backends[..3]) > 0 && counted(&backends[3..]) > 0);
        let before = counted(&backends);
        fleet.kill("two");
        for at in 0..100 {
            let status = if at % 2 == 0 {
                client.get("/api/t/a").status()
            } else {
                client.send("DELETE /api/t/a HTTP/1.1\r\nhost: test\r\n\r\n");
                client.answer().status()
            };
            assert_eq!(status, 200, "request {at} after the kill");
        }
        assert_eq!(counted(&backends), before + 100, "nothing was sent twice");
        let errors = |name: &str| {
            let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
            stats
                .iter()
                .map(|stats| self::errors(stats, name))
                .sum::<u64>()
        };
        println!("errors of the node that is gone: {}", errors("peer"));
        assert!((1..=3).contains(&errors("peer")), "{}", errors("peer"));
        assert_eq!(errors("connect"), 0);
    }
}

/// Requests that are at an instance of the server that dies are repeated elsewhere.
#[test]
fn requests_under_way_at_a_server_that_dies_are_repeated() {
    for mut fleet in Fleet::both(&["one", "two", "three"]) {
        let slow = || {
            Backend::answering(|_| {
                pause(Duration::from_millis(100));
                ok(b"here")
            })
        };
        let (there, elsewhere) = (slow(), slow());
        fleet.publish(&[
            on("two", "t-1", there.address),
            on("three", "t-2", elsewhere.address),
        ]);
        let address = fleet.node("one").router.public_addr();
        let client = move || {
            let mut wire = Wire::connect(address);
            (0..8).map(|_| wire.get("/api/t/a").status()).collect()
        };
        let clients: Vec<_> = (0..16).map(|_| std::thread::spawn(client)).collect();
        let start = Instant::now();
        while there.requests() < 20 {
            assert!(start.elapsed() < PATIENCE, "nothing reaches the server");
            pause(Duration::from_millis(1));
        }
        fleet.kill("two");
        let statuses = clients.into_iter().map(|client| client.join().unwrap());
        let statuses: Vec<Vec<u16>> = statuses.collect();
        assert!(
            statuses.iter().flatten().all(|status| *status == 200),
            "{statuses:?}"
        );
        let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
        let repeated: u64 = stats.iter().map(|stats| stats.retries).sum();
        println!("{repeated} of 128 requests were repeated");
        assert!(repeated > 0, "nothing was under way");
    }
}

#[test]
fn a_node_that_comes_back_is_noticed() {
    let mut fleet = Fleet::start(&["one", "two"]);
    let backend = Backend::echo();
    fleet.publish(&[on("two", "t-1", backend.address)]);
    let mut client = fleet.node("one").public();
    assert_eq!(client.get("/api/t/a").status(), 200);
    let address = fleet.node("two").peer();
    fleet.kill("two");
    let start = Instant::now();
    while client.get("/api/t/a").status() == 200 {
        assert!(start.elapsed() < PATIENCE, "it never ended");
    }
    let answer = client.get("/api/t/a");
    assert_eq!(answer.status(), 503);
    assert!(
        answer.text().contains("no_healthy_instance"),
        "{}",
        answer.text()
    );
    fleet
        .nodes
        .push(Node::start_at("two", address, None, Limits::default()));
    publish(
        fleet.node("two"),
        &fleet.servers(),
        &[on("two", "t-1", backend.address)],
    );
    let start = Instant::now();
    while client.get("/api/t/a").status() != 200 {
        assert!(start.elapsed() < PATIENCE, "it never came back");
        pause(Duration::from_millis(5));
    }
    println!(
        "routed again {:?} after the node came back",
        start.elapsed()
    );
}

#[test]
fn the_node_of_a_server_is_asked_by_its_name() {
    let fleet = Fleet::start(&["one", "two"]);
    let nodes = ["one", "two"].map(|name| {
        let backend = Backend::answering(move |request| {
            let has_token = request.header("hydrant-token").is_some();
            ok(format!("{name} {has_token}").as_bytes())
        });
        let mut node = instance(&format!("node-{name}x"), backend.address);
        node.server = name.into();
        node.service = "service/node".parse().unwrap();
        node.prefixes = vec![PathPrefix::new(&node.service, "/service/node/", false).unwrap()];
        let servers = fleet.servers();
        publish(fleet.node(name), &servers, &[node]);
        backend
    });
    let mut local = fleet.node("one").local();
    let mut ask = |server: &str, token: &str| {
        let server = match server {
            "" => String::new(),
            server => format!("hydrant-server: {server}\r\n"),
        };
        local.send(format!(
            "POST /service/node/x HTTP/1.1\r\nhost: test\r\n{server}{token}content-length: 0\r\n\r\n"
        ));
        let answer = local.answer();
        (answer.status(), answer.text())
    };
    let operator = format!("hydrant-token: {}\r\n", token("operator"));
    assert_eq!(ask("", &operator), (200, "one true".into()));
    assert_eq!(ask("one", &operator), (200, "one true".into()));
    assert_eq!(ask("two", &operator), (200, "two true".into()));
    assert_eq!(ask("two", "").0, 403);
    let (status, text) = ask("four", &operator);
    assert!(status == 404 && text.contains("no_such_server"), "{text}");
    assert_eq!(nodes[1].requests(), 1);
}

/// What is hostile to a client's listener is so to the one for nodes.
#[test]
fn hostile_bytes_are_refused_between_nodes_too() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    fleet.publish(&[on("two", "t-1", backend.address)]);
    let address = fleet.node("two").peer();
    let next = hostile::NEXT.replace("\r\n\r\n", "\r\nhydrant-to: t-1\r\n\r\n");
    let mut more = hostile::table();
    let twice = "GET /api/t/ HTTP/1.1\r\nhost: test\r\nhydrant-to: t-1\r\nhydrant-to: t-2\r\n\r\n";
    more.push(("two instances", twice.into(), 400));
    for (name, request, status) in more {
        let request = request.replacen("host: test\r\n", "host: test\r\nhydrant-to: t-1\r\n", 1);
        let mut wire = Wire::connect(address);
        let _ = wire.try_send(format!("{request}{next}"));
        let answer = wire
            .message(false)
            .unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert_eq!(answer.header("hydrant-unsent"), None, "{name}");
        assert!(wire.is_closed(), "{name}: the connection lives on");
    }
    assert_eq!(backend.requests(), 0, "an instance saw one of them");
}

#[test]
fn a_slow_head_between_nodes_is_refused_after_the_limit() {
    let limits = Limits {
        head: Duration::from_millis(200),
        ..Limits::default()
    };
    let fleet = Fleet::with(&["one"], |_| None, limits);
    let mut wire = Wire::connect(fleet.node("one").peer());
    wire.send("GET /api/t/ HT");
    assert_eq!(wire.answer().status(), 408);
    assert!(wire.is_closed());
}
