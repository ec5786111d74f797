//! Rare turns of HTTP/1.1: each of them could lose bytes, or pass half an answer for a whole one.

use std::io::Read;
use std::time::{Duration, Instant};

use hydrant_contracts::PathPrefix;
use hydrant_router::{Limits, Table};

use crate::raw::{Backend, PATIENCE, client, instance, ok, refusing, router, router_with};

#[test]
fn half_an_answer_without_chunks_does_not_look_whole_to_an_old_client() {
    let backend = Backend::start(|mut wire, _| {
        wire.message(false).unwrap();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.0\r\n\r\n");
    assert!(wire.head().unwrap().starts_with("HTTP/1.1 200"));
    let mut body = Vec::new();
    let ended = wire.reader.read_to_end(&mut body);
    assert!(ended.is_err(), "looks complete: {body:?}");
}

#[test]
fn half_an_answer_up_to_the_close_does_not_look_whole_to_one_that_ended() {
    let backend = Backend::start(|mut wire, _| {
        wire.message(false).unwrap();
        wire.send("HTTP/1.1 200 OK\r\n\r\nhalf");
        wire.exactly(1);
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    assert!(wire.head().unwrap().starts_with("HTTP/1.1 200"));
    wire.exactly(4).unwrap();
    wire.end();
    let ended = wire.reader.read_to_end(&mut Vec::new());
    assert!(ended.is_err(), "looks complete");
}

#[test]
fn the_next_instance_is_told_what_was_cut_off_for_it() {
    let backend = Backend::echo();
    let service = "api/t".parse().unwrap();
    for strips in [true, false].repeat(8) {
        let router = router(&[]);
        let mut dead = instance("dead", refusing());
        let mut alive = instance("alive", backend.address);
        dead.prefixes = vec![PathPrefix::new(&service, "/api/t/", !strips).unwrap()];
        alive.prefixes = vec![PathPrefix::new(&service, "/api/t/", strips).unwrap()];
        router.publish(&Table::of_one_server(&[dead, alive]));
        let seen = client(&router).get("/api/t/a").text();
        let path = if strips { "/a" } else { "/api/t/a" };
        assert!(
            seen.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
            "{seen}"
        );
        let prefixes = seen.matches("x-forwarded-prefix: /api/t\r\n").count();
        assert_eq!(prefixes, usize::from(strips), "{seen}");
    }
}

#[test]
fn a_slow_head_behind_a_request_has_no_more_time_than_others() {
    let backend = Backend::echo();
    let limits = Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\nGET /api/t/ HT");
    assert_eq!(wire.answer().status(), 200);
    let late = wire.message(false).map(|answer| answer.status());
    assert_eq!(late, Some(408));
}

#[test]
fn an_instance_may_not_change_the_protocol_before_it_has_the_request() {
    let backend = Backend::start(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
        wire.exactly(1 << 20);
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send(
        "POST /api/t/ HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: x\r\n\
         content-length: 10\r\n\r\nhalf",
    );
    assert_eq!(wire.answer().status(), 502);
}

/// Wherever a client breaks off, its request is over.
#[test]
fn nothing_is_in_flight_for_clients_that_are_gone() {
    let backend = Backend::answering(|_| ok(&[b'x'; 200_000]));
    let router = router(&[backend.address]);
    let body = "b".repeat(100_000);
    let length = format!("content-length: 100000\r\n\r\n{body}");
    let chunked = format!("transfer-encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n");
    for request in [length, chunked] {
        let request = format!("POST /api/t/ HTTP/1.1\r\nhost: test\r\n{request}");
        for sent in [20, 90, 5_000, 70_000, request.len() - 1, request.len()] {
            for read in [0, 10, 100_000] {
                let mut wire = client(&router);
                wire.send(&request.as_bytes()[..sent]);
                if sent == request.len() {
                    wire.exactly(read);
                }
            }
        }
    }
    let id = "t-0".parse().unwrap();
    let begin = Instant::now();
    while router.in_flight(&id) > 0 {
        assert!(begin.elapsed() < PATIENCE, "{} left", router.in_flight(&id));
        std::thread::yield_now();
    }
    assert_eq!(client(&router).get("/api/t/").status(), 200);
}
