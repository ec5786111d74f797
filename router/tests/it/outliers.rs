//! An instance that fails more of its requests than the others, behind a real router.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hydrant_contracts::Pattern;
use hydrant_router::{Listener, explain};

use crate::raw::{Backend, PATIENCE, client, ok, pause, router};

const FAILURE: &[u8] = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n";

#[test]
fn an_instance_that_fails_each_third_request_is_out_though_it_answers() {
    let count = AtomicUsize::new(0);
    let bad = Backend::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => FAILURE.to_vec(),
        _ => ok(b"ok"),
    });
    let good = [Backend::echo(), Backend::echo()];
    let router = router(&[bad.address, good[0].address, good[1].address]);
    let mut wire = client(&router);
    let is_out = || {
        router
            .stats(&Pattern::default())
            .iter()
            .any(|stats| stats.ejected)
    };
    let until = Instant::now() + PATIENCE;
    while !is_out() {
        assert!(
            Instant::now() < until,
            "it goes on with a third of its answers wrong"
        );
        wire.get("/api/t/x");
        pause(Duration::from_millis(5));
    }
    let before = bad.requests();
    for _ in 0..100 {
        assert_eq!(wire.get("/api/t/x").status(), 200);
    }
    assert_eq!(bad.requests(), before, "nothing more is sent there");
    let explained = router.explain(&explain::Request {
        method: "GET".into(),
        path: "/api/t/x".into(),
        headers: Vec::new(),
        listener: Listener::Public,
    });
    let excluded: Vec<_> = explained.candidates.iter().map(|c| &*c.excluded).collect();
    let why = "ejected: it fails many more of its requests than the others";
    assert_eq!(excluded, [why, "", ""]);
}
