//! What is told of requests as they pass.

use std::sync::Arc;
use std::time::Duration;

use hydrant_router::{Heard, Passed, Router, Tap};

use crate::raw::{Backend, client, ok, refusing, router};

/// Hears the next request.
pub fn next(tap: &mut Tap) -> Arc<Passed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let heard =
        runtime.block_on(async { tokio::time::timeout(crate::raw::PATIENCE, tap.next()).await });
    match heard.expect("it is told in time") {
        Some(Heard::Passed(passed)) => passed,
        other => panic!("{other:?}"),
    }
}

fn tapped(addresses: &[std::net::SocketAddr]) -> (Router, Tap) {
    let router = router(addresses);
    let tap = router.taps().all();
    (router, tap)
}

#[test]
fn a_request_is_told_when_its_answer_has_gone() {
    let backend = Backend::answering(|_| ok(&[b'x'; 300]));
    let (router, mut tap) = tapped(&[backend.address]);
    let mut wire = client(&router);
    wire.send(
        "POST /api/t/a?b=c HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\ncorrelation-id: c1\r\n\r\nbody",
    );
    assert_eq!(wire.answer().status(), 200);
    let passed = next(&mut tap);
    let expected = Passed {
        method: "POST".into(),
        target: "/api/t/a?b=c".into(),
        host: "test".into(),
        protocol: "HTTP/1.1",
        client: Some([127, 0, 0, 1].into()),
        caller: "outside".into(),
        local: false,
        service: Some("api/t".parse().unwrap()),
        endpoint: "/api/t/".into(),
        instance: Some("t-0".parse().unwrap()),
        version: Some("1.0.0".parse().unwrap()),
        server: "local".into(),
        attempts: 1,
        status: 200,
        bytes_in: passed.bytes_in,
        bytes_out: 300,
        correlation_id: "c1".into(),
        // What differs from one to the next.
        trace_parent: passed.trace_parent.clone(),
        answered_after: passed.answered_after,
        duration: passed.duration,
        ..Passed::default()
    };
    assert_eq!(*passed, expected);
    assert_eq!(passed.trace_parent.len(), 55, "{}", passed.trace_parent);
    assert!(passed.answered_after.unwrap() <= passed.duration);
    assert!(passed.duration > Duration::ZERO);
}

#[test]
fn what_was_tried_elsewhere_is_told_once() {
    let backend = Backend::echo();
    let (router, mut tap) = tapped(&[refusing(), backend.address]);
    let mut twice = 0;
    for _ in 0..20 {
        assert_eq!(client(&router).get("/api/t/").status(), 200);
        let passed = next(&mut tap);
        assert_eq!((passed.status, passed.failure), (200, ""));
        assert_eq!(passed.instance, Some("t-1".parse().unwrap()));
        twice += u32::from(passed.attempts == 2);
    }
    assert!(twice > 0, "the instance that refuses is tried first once");
}

#[test]
fn refusals_say_why() {
    let (router, mut tap) = tapped(&[refusing()]);
    assert_eq!(client(&router).get("/api/nobody/").status(), 404);
    let passed = next(&mut tap);
    assert_eq!((passed.status, passed.failure), (404, "no_such_service"));
    assert!(passed.message.contains("nobody"), "{}", passed.message);
    assert_eq!((passed.attempts, &passed.instance), (0, &None));
    assert_eq!(client(&router).get("/api/t/").status(), 503);
    let passed = next(&mut tap);
    assert_eq!(
        (passed.status, passed.failure),
        (503, "no_healthy_instance")
    );
    assert_eq!(passed.attempts, 1);
}

#[test]
fn a_client_that_goes_away_is_told_as_such() {
    let backend = Backend::start(|mut wire, _| {
        let _ = wire.message(false);
        let _ = wire.is_closed();
    });
    let (router, mut tap) = tapped(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    while backend
        .connections
        .load(std::sync::atomic::Ordering::SeqCst)
        == 0
    {
        crate::raw::pause(Duration::from_millis(5));
    }
    drop(wire);
    let passed = next(&mut tap);
    assert_eq!((passed.status, passed.failure), (0, "canceled"));
}

#[test]
fn who_does_not_tap_any_more_costs_nothing() {
    let backend = Backend::echo();
    let (router, tap) = tapped(&[backend.address]);
    drop(tap);
    let mut sampled = router.taps().sampled();
    assert_eq!(client(&router).get("/api/t/unheard").status(), 200);
    router.taps().sample(1.0);
    assert_eq!(client(&router).get("/api/t/heard").status(), 200);
    let passed = next(&mut sampled);
    assert!(passed.is_sampled);
    assert_eq!(passed.target, "/api/t/heard");
}

#[test]
fn http2_is_told_alike() {
    if !hydrant_harness::is_there("curl") {
        return hydrant_harness::skipped("`curl` is not here; install the system's package `curl`");
    }
    let backend = Backend::answering(|_| ok(&[b'x'; 300]));
    let (router, mut tap) = tapped(&[backend.address]);
    let asked = |path: &str, body: &[&str]| {
        let url = format!("http://{}{path}", router.public_addr());
        let curl = std::process::Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", &url])
            .args(body)
            .output();
        let curl = curl.unwrap();
        assert!(curl.status.success(), "{path}: {curl:?}");
    };
    asked("/api/t/a?b=c", &["-d", "body"]);
    let passed = next(&mut tap);
    assert_eq!((&*passed.method, &*passed.target), ("POST", "/api/t/a?b=c"));
    assert_eq!(
        (passed.protocol, passed.status, passed.attempts),
        ("HTTP/2", 200, 1)
    );
    assert_eq!(
        (passed.bytes_in, passed.bytes_out, passed.failure),
        (4, 300, "")
    );
    assert_eq!(passed.host, router.public_addr().to_string());
    assert_eq!(
        (passed.trace_parent.len(), passed.correlation_id.len()),
        (55, 32)
    );
    assert!(passed.answered_after.unwrap() <= passed.duration);
    asked("/api/nobody/", &[]);
    let passed = next(&mut tap);
    assert_eq!((passed.status, passed.failure), (404, "no_such_service"));
    assert_eq!(&*passed.caller, "outside");
}
