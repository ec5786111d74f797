//! Clients of HTTP/1.1 that send or take as little as they can.

use std::time::{Duration, Instant};

use super::victim::{Cost, Victim};
use crate::raw::{Backend, PATIENCE, Wire, ok, pause};

const LONG: Duration = Duration::from_secs(60);

/// Answers at once; below `/endless` with as much as is taken.
fn backend() -> Backend {
    Backend::start(|mut wire, _| {
        while let Some(request) = wire.message(false) {
            if !request.head.contains(" /endless ") {
                wire.send(ok(b"good"));
                continue;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
            // The router is to end it, and not this side's own patience.
            wire.stream().set_write_timeout(Some(4 * PATIENCE)).unwrap();
            while wire.try_send([b'x'; 65_536]).is_ok() {}
        }
    })
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_no_more_than_its_bytes() {
    const BYTES: usize = 2_000;
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let (mut wire, mut other) = (victim.client(), victim.client());
    // Each answer shows that the byte before it was read.
    let mut ask = |byte: &mut dyn FnMut()| {
        let before = victim.cpu();
        for _ in 0..BYTES {
            byte();
            assert_eq!(other.get("/api/none/x").status(), 404);
        }
        victim.cpu() - before
    };
    let alone = ask(&mut || {});
    let cost = Cost::of(&victim);
    let long = "x".repeat(60_000);
    wire.send(format!(
        "GET /api/t/good HTTP/1.1\r\nhost: test\r\nlong: {long}"
    ));
    let together = ask(&mut || wire.send("x"));
    wire.send("\r\n\r\n");
    assert_eq!(wire.answer().status(), 200);
    cost.told("2,000 bytes of a head of 60 KB, one by one");
    println!("{alone:?} for the requests between them alone, {together:?} with them");
    assert!(together < 3 * alone + Duration::from_millis(300));
}

#[test]
fn a_thousand_half_heads_cost_what_they_hold_and_end_in_time() {
    let backend = backend();
    let limit = Duration::from_secs(2);
    let victim = Victim::start(backend.address, false, limit);
    let cost = Cost::of(&victim);
    let mut wires: Vec<Wire> = (0..1_000).map(|_| victim.client()).collect();
    for wire in &mut wires {
        wire.send(format!(
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\nlong: {}",
            "x".repeat(8_000)
        ));
    }
    let full = cost.told("1,000 heads of 8 KB that never end");
    for mut wire in wires {
        assert_eq!(wire.message(false).map(|answer| answer.status()), Some(408));
        assert!(wire.is_closed());
    }
    assert!(full.megabytes < 100, "{full}");
}

#[test]
fn a_thousand_silent_connections_cost_next_to_nothing() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let cost = Cost::of(&victim);
    let wires: Vec<Wire> = (0..1_000).map(|_| victim.client()).collect();
    let figures = cost.told("1,000 connections that say nothing");
    assert!(figures.megabytes < 25, "{figures}");
    drop(wires);
}

#[test]
fn clients_that_take_nothing_hold_little_and_are_left() {
    let backend = backend();
    let limit = Duration::from_secs(2);
    let victim = Victim::start(backend.address, false, limit);
    let cost = Cost::of(&victim);
    let mut wires: Vec<Wire> = (0..100).map(|_| victim.client()).collect();
    for wire in &mut wires {
        wire.send("GET /api/t/endless HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    let began = Instant::now();
    while backend.open() > 10 {
        assert!(
            began.elapsed() < 3 * PATIENCE,
            "{} are still served",
            backend.open()
        );
        pause(Duration::from_millis(20));
    }
    let figures = cost.told("100 clients that take nothing of a large answer");
    assert!(figures.megabytes < 100, "{figures}");
}

#[test]
fn clients_that_send_a_byte_now_and_then_hold_little() {
    let backend = backend();
    let victim = Victim::start(backend.address, false, LONG);
    let cost = Cost::of(&victim);
    let mut wires: Vec<Wire> = (0..200).map(|_| victim.client()).collect();
    for wire in &mut wires {
        wire.send("POST /api/t/good HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    }
    for _ in 0..20 {
        for wire in &mut wires {
            wire.send("1\r\nx\r\n");
        }
    }
    let figures = cost.told("200 uploads, byte by byte");
    for mut wire in wires {
        wire.send("0\r\n\r\n");
        assert_eq!(
            wire.answer().status(),
            200,
            "a slow one is served all the same"
        );
    }
    assert!(figures.megabytes < 25, "{figures}");
}

/// Half a connection: the other side has gone without a word, or says that it will send nothing.
#[test]
fn connections_of_which_one_half_is_closed_are_not_kept() {
    let backend = backend();
    let limit = Duration::from_secs(2);
    let victim = Victim::start(backend.address, false, limit);
    let cost = Cost::of(&victim);
    let wires: Vec<Wire> = (0..500).map(|_| victim.client()).collect();
    for (at, mut wire) in wires.into_iter().enumerate() {
        match at % 4 {
            0 => {}
            1 => wire.send("GET /api/t/go"),
            2 => wire.send("POST /api/t/good HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nx"),
            _ => wire.send("GET /api/t/endless HTTP/1.1\r\nhost: test\r\n\r\n"),
        }
        wire.end();
        if at % 4 < 3 {
            assert!(wire.is_closed(), "one of kind {} is kept", at % 4);
        }
    }
    let figures = cost.told("500 connections of which one half is closed");
    assert!(figures.megabytes < 25, "{figures}");
}
