//! One client, or one caller, that opens more connections than one may have.

use std::time::{Duration, Instant};

use hydrant_contracts::{Identity, TokenKey};
use hydrant_router::{Limits, Moment, stats};

use crate::raw::{Backend, PATIENCE, SECRET, Wire, client, pause, router_with};

fn limits() -> Limits {
    Limits {
        connections_per_address: 3,
        connections_per_caller: 2,
        ..Limits::default()
    }
}

fn told_why(wire: &mut Wire) {
    let answer = wire.answer();
    assert_eq!(answer.status(), 503, "{}", answer.head);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(
        answer.text().contains(r#""reason":"too_many_connections""#),
        "{}",
        answer.text()
    );
}

#[test]
fn an_address_has_so_many_connections_and_is_told_so_and_others_go_on() {
    let backend = Backend::echo();
    let router = router_with(limits(), 1, &[backend.address]);
    let mut open: Vec<_> = (0..3).map(|_| client(&router)).collect();
    for wire in &mut open {
        assert_eq!(wire.get("/api/t/x").status(), 200);
    }
    for _ in 0..100 {
        let mut refused = client(&router);
        told_why(&mut refused);
        refused.end();
        assert!(refused.is_closed());
    }
    for wire in &mut open {
        assert_eq!(
            wire.get("/api/t/x").status(),
            200,
            "those that are open stay"
        );
    }
    // The services of this server are not the outside.
    let mut local = Wire::connect(router.local_addr());
    assert_eq!(local.get("/api/t/x").status(), 200);
    let metrics = stats::prometheus(&router.snapshot(), Moment::now());
    let line = r#"hydrant_refusals_total{reason="too_many_connections"} 100"#;
    assert!(metrics.contains(line), "{metrics}");
    drop(open);
    let until = Instant::now() + PATIENCE;
    while {
        let mut wire = client(&router);
        let is_in = wire
            .try_send("GET /api/t/x HTTP/1.1\r\nhost: x\r\n\r\n")
            .is_ok();
        !(is_in
            && wire
                .message(false)
                .is_some_and(|answer| answer.status() == 200))
    } {
        assert!(Instant::now() < until, "the seats are free again");
        pause(Duration::from_millis(20));
    }
}

/// Whoever comes in a flood is told, or just closed; nobody else notices.
#[test]
fn a_flood_of_connections_takes_no_more_than_its_seats() {
    let backend = Backend::echo();
    let router = router_with(limits(), 1, &[backend.address]);
    let mut first = client(&router);
    assert_eq!(first.get("/api/t/x").status(), 200);
    // They neither read nor close.
    let mut flood: Vec<_> = (0..400).map(|_| client(&router)).collect();
    let began = Instant::now();
    assert_eq!(first.get("/api/t/x").status(), 200);
    eprintln!(
        "beside 400 connections an answer takes {:?}",
        began.elapsed()
    );
    for refused in &mut flood[2..] {
        match refused.message(false) {
            Some(answer) => assert_eq!(answer.status(), 503),
            None => assert!(refused.is_closed()),
        }
    }
}

#[test]
fn a_caller_has_so_many_connections_wherever_it_comes_in() {
    let backend = Backend::echo();
    let router = router_with(limits(), 1, &[backend.address]);
    let token =
        |name: &str| TokenKey::new(&SECRET).issue(&Identity::Service(name.parse().unwrap()));
    let ask = |wire: &mut Wire, token: &str| {
        wire.send(format!(
            "GET /api/t/x HTTP/1.1\r\nhost: x\r\nhydrant-token: {token}\r\n\r\n"
        ));
    };
    let (web, other) = (token("orchestration/web"), token("orchestration/other"));
    let mut wires: Vec<_> = (0..3)
        .map(|_| Wire::connect(router.public_addr()))
        .collect();
    for wire in &mut wires[..2] {
        ask(wire, &web);
        assert_eq!(wire.answer().status(), 200);
    }
    ask(&mut wires[2], &web);
    told_why(&mut wires[2]);
    ask(&mut wires[2], &other);
    assert_eq!(
        wires[2].answer().status(),
        200,
        "the connection is somebody else's now"
    );
    // One of the first changes hands, and its seat is free.
    ask(&mut wires[0], &other);
    assert_eq!(wires[0].answer().status(), 200);
    ask(&mut wires[2], &web);
    assert_eq!(wires[2].answer().status(), 200);
}
