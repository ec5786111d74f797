//! Requests whose instance is on another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fleet::{Fleet, on, publish, token};
use crate::raw::{Backend, Wire, ok, refusing};

#[test]
fn a_call_reaches_an_instance_on_another_server() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    fleet.publish(&[on("two", "t-1", backend.address)]);
    let mut client = fleet.node("one").public();
    for at in 0..3 {
        client.send(format!(
            "GET /api/t/a?b={at} HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 10.0.0.9\r\n\
             hydrant-token: {}\r\nhydrant-to: t-2\r\nhydrant-unsent: refused\r\n\
             correlation-id: c-{at}\r\n\r\n",
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
    assert_eq!(
        backend.connections.load(Ordering::SeqCst),
        1,
        "both hops keep their connections"
    );
}

#[test]
fn an_instance_that_refuses_on_its_server_is_left_out_and_nothing_is_sent_twice() {
    let backend = Backend::answering(|request| ok(&request.body));
    let fleet = Fleet::start(&["one", "two", "three"]);
    fleet.publish(&[
        on("two", "t-1", refusing()),
        on("two", "t-2", refusing()),
        on("three", "t-3", backend.address),
    ]);
    let mut client = fleet.node("one").public();
    for at in 0..20 {
        let body = format!("body {at}");
        client.send(format!(
            "POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = client.answer();
        assert_eq!((answer.status(), answer.text()), (200, body));
        assert_eq!(answer.header("hydrant-unsent"), None);
    }
    assert_eq!(backend.requests(), 20);
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
    inner.prefixes =
        vec![hydrant_contracts::PathPrefix::new(&inner.service, "/service/s/", true).unwrap()];
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
    let answer = ask("/service/s/a", &operator);
    assert_eq!(answer.status(), 400, "{}", answer.text());
}

/// A node sends what another one brings to the instance that this names, and nowhere else.
#[test]
fn a_second_node_sends_to_its_own_instance_or_nowhere() {
    let backend = Backend::echo();
    let fleet = Fleet::start(&["one", "two"]);
    let mut draining = on("two", "t-3", backend.address);
    draining.state = hydrant_contracts::InstanceState::Draining;
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
