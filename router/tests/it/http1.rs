//! What HTTP/1.1 asks of a proxy, against instances that decide about each byte.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hydrant_router::{Limits, Table};

use crate::raw::{Backend, PATIENCE, Wire, client, instance, ok, refusing, router, router_with};

fn post(body: &str) -> String {
    format!(
        "POST /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn both_sides_are_kept_alive() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for at in 0..20 {
        let answer = wire.get(&format!("/api/t/a?b={at}"));
        assert_eq!(answer.status(), 200);
        assert!(
            answer
                .text()
                .starts_with(&format!("GET /a?b={at} HTTP/1.1\r\nhost: test\r\n"))
        );
        assert!(answer.text().contains("x-forwarded-prefix: /api/t\r\n"));
        assert_eq!(answer.header("connection"), None);
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    let requests: String = (0..30)
        .map(|at| match at % 3 {
            0 => post(&format!("body {at}")),
            1 => format!(
                "POST /api/t/ HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n3;x\r\n {at:02}\r\n0\r\n\r\n"
            ),
            _ => format!("GET /api/t/{at} HTTP/1.1\r\nhost: test\r\n\r\n"),
        })
        .collect();
    for piece in requests.as_bytes().chunks(100) {
        wire.send(piece);
    }
    for at in 0..30 {
        let text = wire.answer().text();
        match at % 3 {
            0 => assert_eq!(text, format!("body {at}")),
            1 => assert_eq!(text, format!("body {at:02}")),
            _ => assert!(text.starts_with(&format!("GET /{at} ")), "{text}"),
        }
    }
}

#[test]
fn an_old_client_gets_no_chunks_and_a_close() {
    let backend = Backend::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\na: b\r\n\r\n".to_vec()
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.text(), "hello world");
}

#[test]
fn an_old_client_may_keep_its_connection() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for _ in 0..3 {
        wire.send("GET /api/t/ HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        let host = format!("host: {}\r\n", router.public_addr());
        assert!(answer.text().contains(&host), "{}", answer.text());
    }
    wire.send("GET /api/t/ HTTP/1.0\r\n\r\n");
    assert_eq!(wire.answer().header("connection"), Some("close"));
    assert!(wire.is_closed());
}

#[test]
fn a_client_that_closes_its_side_after_its_last_request_is_answered() {
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let backend = Backend::answering(move |_| {
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        ok(b"late")
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    wire.end();
    go.send(()).unwrap();
    assert_eq!(wire.answer().text(), "late");
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut wire, _| {
        if wire.message(false).is_some() {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
            let _ = tell.lock().unwrap().send(wire.is_closed());
        }
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    wire.head().unwrap();
    drop(wire);
    assert!(told.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn answers_without_a_body_end_at_their_head() {
    let backend = Backend::answering(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        match path {
            "/head" => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec(),
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => {
                b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: a\r\n\r\n".to_vec()
            }
            _ => ok(b"next"),
        }
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("HEAD /api/t/head HTTP/1.1\r\nhost: test\r\n\r\n");
    let answer = wire.message(true).unwrap();
    assert_eq!(answer.header("content-length"), Some("1000"));
    assert_eq!(wire.get("/api/t/").text(), "next");
    assert_eq!(wire.get("/api/t/204").status(), 204);
    assert_eq!(wire.get("/api/t/304").header("etag"), Some("a"));
    assert_eq!(wire.get("/api/t/").text(), "next");
    wire.send("HEAD /api/none/ HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(wire.message(true).unwrap().status(), 404);
    assert_eq!(wire.get("/api/t/").text(), "next");
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let backend = Backend::answering(|request| {
        let body = format!("{}|{}", request.text(), request.trailers.trim());
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-sum: 7\r\n\r\n",
            body.len()
        )
        .into_bytes()
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for _ in 0..2 {
        wire.send("POST /api/t/ HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-end: 1\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.text(), "hi|x-end: 1");
        assert_eq!(answer.trailers, "x-sum: 7\r\n");
        assert_eq!(answer.header("trailer"), Some("x-sum"));
    }
}

#[test]
fn a_body_waits_for_100_continue() {
    let backend = Backend::start(|mut wire, _| {
        while let Some(head) = wire.head() {
            assert!(head.to_lowercase().contains("expect: 100-continue"));
            wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = wire.exactly(5).unwrap();
            wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
            wire.send(ok(&body));
        }
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for _ in 0..2 {
        wire.send("POST /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
        assert!(wire.head().unwrap().starts_with("HTTP/1.1 100"));
        wire.send("hello");
        let hints = wire.head().unwrap();
        assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("link: </a>"));
        assert_eq!(wire.answer().text(), "hello");
    }
}

#[test]
fn a_final_answer_instead_of_100_ends_the_connection() {
    let backend = Backend::start(|mut wire, _| {
        wire.head().unwrap();
        wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n");
        // The body must not be taken for a request.
        assert!(wire.head().is_none());
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send(
        "POST /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n",
    );
    let answer = wire.answer();
    assert_eq!(
        (answer.status(), answer.header("connection")),
        (417, Some("close"))
    );
    wire.end();
    assert!(wire.is_closed());
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let backend = Backend::start(|mut wire, _| {
        wire.head().unwrap();
        wire.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig");
        wire.end();
        // Never reads the body.
        let _ = wire
            .reader
            .get_ref()
            .set_read_timeout(Some(Duration::from_millis(500)));
        let _ = wire.exactly(usize::MAX >> 32);
    });
    for chunked in [false, true] {
        let router = router(&[backend.address]);
        let mut wire = client(&router);
        let framing = if chunked {
            "transfer-encoding: chunked"
        } else {
            "content-length: 20000000"
        };
        wire.send(format!(
            "POST /api/t/ HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n"
        ));
        let sender = wire.stream().try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let mut sender = Wire::new(sender);
            let block = vec![b'x'; 10_000];
            for _ in 0..2000 {
                let piece = if chunked {
                    [b"2710\r\n", &block[..], b"\r\n"].concat()
                } else {
                    block.clone()
                };
                if sender.try_send(piece).is_err() {
                    return;
                }
            }
        });
        let answer = wire.answer();
        assert_eq!(
            (answer.status(), &*answer.text()),
            (413, "big"),
            "chunked: {chunked}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        sending.join().unwrap();
        drop(wire);
    }
}

#[test]
fn an_event_arrives_when_it_was_sent() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(move |mut wire, _| {
        wire.message(false).unwrap();
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        for at in 0..5 {
            wire.send(format!("9\r\ndata: {at}\n\n\r\n"));
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        wire.send("0\r\n\r\n");
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    wire.head().unwrap();
    for at in 0..5 {
        // The next one is sent only after this one has arrived.
        let event = wire.exactly("9\r\ndata: 0\n\n\r\n".len()).unwrap();
        assert_eq!(event, format!("9\r\ndata: {at}\n\n\r\n").as_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(wire.exactly(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn a_tunnel_carries_both_ways_and_ends_each_way_by_itself() {
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
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = wire.head().unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"),
        "{head}"
    );
    assert_eq!(wire.exactly(7).unwrap(), b"welcome");
    wire.send(vec![7; 300_000]);
    wire.end();
    let mut rest = String::new();
    wire.reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "300000 bytes");
}

#[test]
fn an_answer_that_ends_with_the_connection() {
    let backend = Backend::start(|mut wire, _| {
        wire.message(false).unwrap();
        wire.send("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nhello ");
        wire.send("world");
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    let answer = wire.get("/api/t/");
    assert_eq!(
        (&*answer.text(), answer.header("connection")),
        ("hello world", Some("close"))
    );
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete() {
    for (head, body) in [
        ("content-length: 100", "half"),
        ("content-length: 1000000", "half"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        let backend = Backend::start(move |mut wire, _| {
            wire.message(false).unwrap();
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
        });
        let router = router(&[backend.address]);
        let mut wire = client(&router);
        wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
        let begin = Instant::now();
        assert!(wire.message(false).is_none(), "{head}");
        let took = begin.elapsed();
        assert!(took < PATIENCE / 2, "{head}: the client was left waiting");
    }
}

/// Noise that can be told again from its seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(len)
    .collect()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// In pieces that depend on the seed.
fn send_in_pieces(wire: &mut Wire, seed: u64, bytes: &[u8], chunked: bool) {
    let (mut rest, mut state) = (bytes, seed);
    while !rest.is_empty() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed | 1);
        let most = if state & 4 == 0 { 100 } else { 150_000 };
        let (piece, after) = rest.split_at(rest.len().min(1 + (state >> 33) as usize % most));
        if chunked {
            wire.send(format!("{:x}\r\n", piece.len()));
        }
        wire.send(piece);
        if chunked {
            wire.send("\r\n");
        }
        rest = after;
    }
    if chunked {
        wire.send("0\r\n\r\n");
    }
}

#[test]
fn bodies_arrive_as_they_were_sent() {
    let backend = Backend::start(|mut wire, _| {
        while let Some(request) = wire.message(false) {
            let chunked = request.head.contains("x-chunked: 1");
            let framing = if chunked {
                "transfer-encoding: chunked".to_owned()
            } else {
                format!("content-length: {}", request.body.len())
            };
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nx-hash: {}\r\n{framing}\r\n\r\n",
                hash(&request.body)
            ));
            send_in_pieces(&mut wire, 77, &request.body, chunked);
        }
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for (seed, len) in [
        1, 100, 4095, 4097, 16_383, 65_536, 65_537, 200_000, 3_000_000,
    ]
    .into_iter()
    .enumerate()
    {
        for (upload, download) in [(false, false), (true, false), (false, true), (true, true)] {
            let body = noise(seed as u64, len);
            let framing = if upload {
                "transfer-encoding: chunked".to_owned()
            } else {
                format!("content-length: {len}")
            };
            let flag = u8::from(download);
            wire.send(format!(
                "PUT /api/t/ HTTP/1.1\r\nhost: test\r\nx-chunked: {flag}\r\n{framing}\r\n\r\n"
            ));
            send_in_pieces(&mut wire, seed as u64 + 5, &body, upload);
            let answer = wire.answer();
            assert_eq!(
                answer.header("x-hash"),
                Some(&*hash(&body).to_string()),
                "{len} up"
            );
            assert!(answer.body == body, "{len} down");
        }
    }
    assert_eq!(
        backend.connections.load(Ordering::SeqCst),
        1,
        "the instance's connection was lost"
    );
}

#[test]
fn a_refusing_instance_costs_no_request() {
    let backend = Backend::echo();
    let router = router(&[refusing(), backend.address]);
    let mut wire = client(&router);
    for at in 0..50 {
        let answer = if at % 2 == 0 {
            wire.get("/api/t/")
        } else {
            wire.send(post("not repeatable"));
            wire.answer()
        };
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(backend.requests(), 50);
}

#[test]
fn when_all_refuse_it_says_so_at_once() {
    let router = router(&[refusing(), refusing()]);
    let begin = Instant::now();
    let mut wire = client(&router);
    for _ in 0..3 {
        let answer = wire.get("/api/t/");
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(
            answer.text().contains("no_healthy_instance"),
            "{}",
            answer.text()
        );
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// An instance that reads a request and closes without an answer.
fn dropping() -> Backend {
    Backend::start(|mut wire, seen| {
        if let Some(request) = wire.message(false) {
            seen.note(&request);
        }
    })
}

#[test]
fn what_may_be_repeated_is_sent_to_another_instance() {
    let (bad, good) = (dropping(), Backend::echo());
    let router = router(&[bad.address, good.address]);
    let mut wire = client(&router);
    for _ in 0..20 {
        assert_eq!(wire.get("/api/t/").status(), 200);
        for line in ["PUT /api/t/", "POST /api/t/safe/a"] {
            wire.send(format!(
                "{line} HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello"
            ));
            assert_eq!(wire.answer().text(), "hello", "{line}");
        }
    }
    assert!(bad.requests() > 0, "it was never asked");
}

#[test]
fn an_instance_that_came_meanwhile_is_tried() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let dying = Backend::start(move |mut wire, seen| {
        if let Some(request) = wire.message(false) {
            seen.note(&request);
            let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    let router = router(&[dying.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    while dying.requests() == 0 {
        std::thread::yield_now();
    }
    let successor = Backend::echo();
    router.publish(&Table::of_one_server(&[instance("t-9", successor.address)]));
    release.send(()).unwrap();
    assert_eq!(wire.answer().status(), 200);
}

#[test]
fn what_may_not_be_repeated_is_sent_once() {
    let bad = dropping();
    let other = dropping();
    let router = router(&[bad.address, other.address]);
    let mut wire = client(&router);
    wire.send(post("hello"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("upstream_failed"));
    assert_eq!(bad.requests() + other.requests(), 1);
}

#[test]
fn no_instance_is_asked_twice() {
    let (one, two) = (dropping(), dropping());
    let router = router(&[one.address, two.address]);
    let mut wire = client(&router);
    assert_eq!(wire.get("/api/t/").status(), 502);
    assert_eq!((one.requests(), two.requests()), (1, 1));
}

#[test]
fn a_body_too_long_to_be_kept_is_not_repeated() {
    let (one, two) = (dropping(), dropping());
    let router = router(&[one.address, two.address]);
    let mut wire = client(&router);
    let body = vec![b'x'; 100_000];
    wire.send(format!(
        "PUT /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    wire.send(&body);
    assert_eq!(wire.answer().status(), 502);
    assert_eq!(one.requests() + two.requests(), 1);
}

/// Each answer is the last of its connection, though it does not say so.
#[test]
fn a_connection_that_was_closed_while_idle_harms_nothing() {
    let backend = Backend::start(|mut wire, seen| {
        if let Some(request) = wire.message(false) {
            seen.note(&request);
            wire.send(ok(b"once"));
        }
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for _ in 0..50 {
        assert_eq!(wire.get("/api/t/").text(), "once");
    }
    assert_eq!(backend.requests(), 50);
}

#[test]
fn a_deadline_ends_a_request() {
    let (_hold, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::answering(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(5));
        ok(b"late")
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    let begin = Instant::now();
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\nhydrant-timeout-ms: 200\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status(), 504);
    assert!(answer.text().contains("deadline_exceeded"));
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(2),
        "{took:?}"
    );
}

#[test]
fn an_instance_that_never_answers_ends_with_504() {
    let backend = Backend::start(|mut wire, _| {
        let _ = wire.message(false);
        let _ = wire.is_closed();
    });
    let limits = Limits {
        answer: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[backend.address]);
    assert_eq!(client(&router).get("/api/t/").status(), 504);
}

#[test]
fn a_body_that_does_not_come_ends_with_408() {
    let backend = Backend::echo();
    let limits = Limits {
        send: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[backend.address]);
    let mut wire = client(&router);
    wire.send("POST /api/t/ HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhe");
    let answer = wire.answer();
    assert_eq!(
        (answer.status(), answer.header("connection")),
        (408, Some("close"))
    );
    assert_eq!(
        client(&router).get("/api/t/").status(),
        200,
        "the instance is not to blame"
    );
}

#[test]
fn a_location_leads_back_below_the_prefix() {
    let backend = Backend::answering(|_| {
        b"HTTP/1.1 302 Found\r\nlocation: /new?a\r\ncontent-length: 0\r\n\r\n".to_vec()
    });
    let router = router(&[backend.address]);
    let answer = client(&router).get("/api/t/old");
    assert_eq!(answer.header("location"), Some("/api/t/new?a"));
}

#[test]
fn a_refusal_keeps_the_connection() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    for _ in 0..3 {
        assert_eq!(wire.get("/api/none/").status(), 404);
        assert_eq!(wire.get("/service/t/").status(), 403);
        assert_eq!(wire.get("/api/t/").status(), 200);
    }
    wire.send("POST /api/none/a.v1.B/C HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    let answer = wire.answer();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.text().contains("unimplemented"), "{}", answer.text());
    assert_eq!(wire.get("/api/t/").status(), 200);
}

/// 64 connections, one of two instances dies and comes back: nothing that may be repeated fails.
#[test]
fn load_survives_the_death_of_an_instance() {
    let (stable, mortal) = (Backend::echo(), Backend::echo());
    let router = Arc::new(router_with(
        Limits::default(),
        2,
        &[stable.address, mortal.address],
    ));
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (router, stop) = (Arc::clone(&router), Arc::clone(&stop));
            let served = Arc::clone(&served);
            std::thread::spawn(move || {
                let mut wire = client(&router);
                while !stop.load(Ordering::SeqCst) {
                    let answer = wire.get("/api/t/x");
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let until = |count: usize| {
        let begin = Instant::now();
        while served.load(Ordering::SeqCst) < count && begin.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    };
    let mut mortal = mortal;
    for round in 1..=4 {
        until(round * 1500);
        mortal.kill();
        until(round * 1500 + 700);
        let reborn = Backend::echo();
        router.publish(&Table::of_one_server(&[
            instance("t-0", stable.address),
            instance(&format!("reborn-{round}"), reborn.address),
        ]));
        mortal = reborn;
    }
    until(8000);
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a request failed");
    }
    assert!(mortal.requests() > 0, "the last one was never asked");
}

#[test]
fn a_shutdown_ends_what_is_under_way_and_no_more() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (tell, told) = mpsc::channel::<()>();
    let tell = Mutex::new(tell);
    let backend = Backend::answering(move |_| {
        tell.lock().unwrap().send(()).unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        ok(b"done")
    });
    let router = router(&[backend.address]);
    let (mut idle, mut busy) = (client(&router), client(&router));
    let address = router.public_addr();
    busy.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    told.recv_timeout(PATIENCE).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ending = runtime.spawn(router.shutdown(PATIENCE));
    assert!(idle.is_closed(), "an idle connection is closed at once");
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "none is accepted"
    );
    go.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!(
        (&*answer.text(), answer.header("connection")),
        ("done", Some("close"))
    );
    drop(busy);
    let begin = Instant::now();
    runtime.block_on(ending).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_shutdown_has_a_limit() {
    let backend = Backend::start(|mut wire, _| {
        let _ = wire.message(false);
        let _ = wire.is_closed();
    });
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begin = Instant::now();
    runtime.block_on(router.shutdown(Duration::from_millis(300)));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(wire.is_closed());
}

#[test]
fn a_port_in_use_is_noticed() {
    let first = router(&[]);
    let config = hydrant_router::Config {
        public: first.public_addr(),
        secure: None,
        local: ([127, 0, 0, 1], 0).into(),
        peer: None,
        workers: 2,
        key: hydrant_contracts::TokenKey::new(&[0; 32]),
        limits: Limits::default(),
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    };
    let error = hydrant_router::Router::start(config).unwrap_err();
    assert!(error.to_string().contains("public address") && error.to_string().contains("in use"));
}
