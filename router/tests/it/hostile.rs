//! Requests that two servers could read in two ways, or that cost more than they should. Each is
//! refused, its connection is closed, what follows is not read as a request, and no instance
//! learns of it.

use std::time::Duration;

use hydrant_router::Limits;

use crate::raw::{Backend, client, router, router_with};

/// A request that would be answered, sent right behind a hostile one.
pub const NEXT: &str = "GET /api/t/smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

pub fn table() -> Vec<(&'static str, String, u16)> {
    let head = |line: &str, fields: &str| format!("{line}\r\nhost: test\r\n{fields}\r\n\r\n");
    let post =
        |fields: &str, body: &str| format!("{}{body}", head("POST /api/t/ HTTP/1.1", fields));
    let get = |fields: &str| head("GET /api/t/ HTTP/1.1", fields);
    let line = |line: &str| format!("{line}\r\nhost: test\r\n\r\n");
    let chunked = |body: &str| post("transfer-encoding: chunked", body);
    vec![
        (
            "length and coding",
            post(
                "content-length: 5\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
            400,
        ),
        (
            "coding and length",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 5",
                "0\r\n\r\n",
            ),
            400,
        ),
        (
            "two lengths",
            post("content-length: 5\r\ncontent-length: 6", "hello"),
            400,
        ),
        (
            "the same length twice",
            post("content-length: 5\r\ncontent-length: 5", "hello"),
            400,
        ),
        (
            "a list of lengths",
            post("content-length: 5, 5", "hello"),
            400,
        ),
        ("a signed length", post("content-length: +5", "hello"), 400),
        ("a negative length", post("content-length: -1", ""), 400),
        (
            "a hexadecimal length",
            post("content-length: 0x5", "hello"),
            400,
        ),
        ("an empty length", post("content-length: ", "hello"), 400),
        (
            "a huge length",
            post("content-length: 99999999999999999999", "hello"),
            400,
        ),
        (
            "another coding",
            post("transfer-encoding: gzip, chunked", "0\r\n\r\n"),
            400,
        ),
        (
            "a broken coding",
            post("transfer-encoding: xchunked", "0\r\n\r\n"),
            400,
        ),
        (
            "identity coding",
            post("transfer-encoding: identity", ""),
            400,
        ),
        (
            "two codings",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
            400,
        ),
        (
            "a coding behind a tab",
            post("transfer-encoding:\tchunked, x", "0\r\n\r\n"),
            400,
        ),
        (
            "a coding for HTTP/1.0",
            "POST /api/t/ HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        (
            "a hidden length",
            post("connection: content-length\r\ncontent-length: 5", "hello"),
            400,
        ),
        (
            "a hidden coding",
            post(
                "connection: transfer-encoding\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
            400,
        ),
        ("a hidden host", get("connection: close, host"), 400),
        (
            "line feeds alone",
            "GET /api/t/ HTTP/1.1\nhost: test\n\n".into(),
            400,
        ),
        (
            "one line feed alone",
            "GET /api/t/ HTTP/1.1\r\nhost: test\na: b\r\n\r\n".into(),
            400,
        ),
        (
            "an end of a line feed alone",
            "GET /api/t/ HTTP/1.1\r\nhost: test\r\n\n".into(),
            400,
        ),
        ("a carriage return in a value", get("a: b\rc: d"), 400),
        ("a folded line", get("a: b\r\n c"), 400),
        (
            "a folded first line",
            "GET /api/t/ HTTP/1.1\r\n host: test\r\n\r\n".into(),
            400,
        ),
        (
            "a space before the colon",
            post("content-length : 5", "hello"),
            400,
        ),
        ("a tab before the colon", get("a\t: b"), 400),
        ("a field without a name", get(": b"), 400),
        ("a field without a colon", get("abc"), 400),
        ("a NUL in a value", get("a: b\0c"), 400),
        ("a NUL in a name", get("a\0b: c"), 400),
        ("a NUL in the path", line("GET /api/t/\0 HTTP/1.1"), 400),
        (
            "two spaces in the first line",
            line("GET  /api/t/ HTTP/1.1"),
            400,
        ),
        (
            "a space at the end of the first line",
            line("GET /api/t/ HTTP/1.1 "),
            400,
        ),
        (
            "a tab in the first line",
            line("GET\t/api/t/ HTTP/1.1"),
            400,
        ),
        ("a space in the path", line("GET /api/t/a b HTTP/1.1"), 400),
        (
            "a space before the first line",
            line(" GET /api/t/ HTTP/1.1"),
            400,
        ),
        (
            "no version",
            "GET /api/t/\r\nhost: test\r\n\r\n".into(),
            400,
        ),
        ("another version", line("GET /api/t/ HTTP/1.2"), 400),
        ("HTTP/2 as text", line("GET /api/t/ HTTP/2.0"), 400),
        ("a lower-case version", line("GET /api/t/ http/1.1"), 400),
        ("a malformed method", line("GE@T /api/t/ HTTP/1.1"), 400),
        ("a method with a colon", line("GET: /api/t/ HTTP/1.1"), 400),
        ("no host", "GET /api/t/ HTTP/1.1\r\n\r\n".into(), 400),
        (
            "two hosts",
            "GET /api/t/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".into(),
            400,
        ),
        (
            "a host with a path",
            "GET /api/t/ HTTP/1.1\r\nhost: a/b\r\n\r\n".into(),
            400,
        ),
        (
            "a host with a user",
            "GET /api/t/ HTTP/1.1\r\nhost: a@b\r\n\r\n".into(),
            400,
        ),
        (
            "a host with two ports",
            "GET /api/t/ HTTP/1.1\r\nhost: a:80:90\r\n\r\n".into(),
            400,
        ),
        (
            "a host with a port that is no number",
            "GET /api/t/ HTTP/1.1\r\nhost: a:b\r\n\r\n".into(),
            400,
        ),
        (
            "an address without brackets",
            "GET /api/t/ HTTP/1.1\r\nhost: ::1\r\n\r\n".into(),
            400,
        ),
        (
            "half a bracket",
            "GET /api/t/ HTTP/1.1\r\nhost: [::1\r\n\r\n".into(),
            400,
        ),
        (
            "a broken escape in a host",
            "GET /api/t/ HTTP/1.1\r\nhost: a%zz\r\n\r\n".into(),
            400,
        ),
        (
            "a host with a space",
            "GET /api/t/ HTTP/1.1\r\nhost: a b\r\n\r\n".into(),
            400,
        ),
        ("CONNECT", line("CONNECT test:80 HTTP/1.1"), 400),
        ("the form of CONNECT", line("GET test:80 HTTP/1.1"), 400),
        (
            "an absolute form of another scheme",
            line("GET ftp://test/api/t/ HTTP/1.1"),
            400,
        ),
        (
            "an absolute form with a user",
            line("GET http://a@test/api/t/ HTTP/1.1"),
            400,
        ),
        (
            "an absolute form without a host",
            line("GET http:///api/t/ HTTP/1.1"),
            400,
        ),
        ("a star for GET", line("GET * HTTP/1.1"), 400),
        ("a path without a slash", line("GET api/t/ HTTP/1.1"), 400),
        ("a fragment", line("GET /api/t/#a HTTP/1.1"), 400),
        ("a broken escape", line("GET /api/t/%zz HTTP/1.1"), 400),
        ("half an escape", line("GET /api/t/%2 HTTP/1.1"), 400),
        ("an escaped NUL", line("GET /api/t/%00 HTTP/1.1"), 400),
        (
            "dot segments",
            line("GET /api/t/../../service/secret/ HTTP/1.1"),
            400,
        ),
        (
            "escaped dot segments",
            line("GET /api/t/%2e%2E/x HTTP/1.1"),
            400,
        ),
        ("a backslash", line("GET /api/t/..\\x HTTP/1.1"), 400),
        ("a chunk of no size", chunked("\r\nhello\r\n0\r\n\r\n"), 400),
        (
            "a chunk of a malformed size",
            chunked("5g\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk with a space",
            chunked("5 \r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk with a sign",
            chunked("+5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        ("a chunk of 0x5", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (
            "a chunk of a huge size",
            chunked("ffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk with a long extension",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000))),
            400,
        ),
        (
            "a chunk that ends in a line feed",
            chunked("5\nhello\n0\n\n"),
            400,
        ),
        (
            "a chunk with a hidden line",
            chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk longer than its size",
            chunked("3\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a trailer that frames",
            chunked("0\r\ncontent-length: 5\r\n\r\n"),
            400,
        ),
        (
            "a trailer that claims identity",
            chunked("0\r\nhydrant-caller: operator\r\n\r\n"),
            400,
        ),
        ("a malformed trailer", chunked("0\r\na b: c\r\n\r\n"), 400),
        (
            "a false token",
            get("hydrant-token: h1.operator.AAAA\r\nconnection: close"),
            401,
        ),
        (
            "two tokens",
            get("hydrant-token: a\r\nhydrant-token: b"),
            400,
        ),
        (
            "a field of 70 KB",
            get(&format!("a: {}", "a".repeat(70_000))),
            431,
        ),
        (
            "a path of 70 KB",
            line(&format!("GET /api/t/{} HTTP/1.1", "a".repeat(70_000))),
            431,
        ),
        ("101 fields", get(&vec!["a: b"; 101].join("\r\n")), 431),
        (
            "10,000 fields",
            get(&vec!["a: b"; 10_000].join("\r\n")),
            431,
        ),
    ]
}

#[test]
fn each_is_refused_and_its_connection_is_safe() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let table = table();
    assert!(table.len() >= 20);
    for (name, request, status) in table {
        let mut wire = client(&router);
        // It may be refused before all of it was sent.
        let _ = wire.try_send(format!("{request}{NEXT}"));
        let answer = wire
            .message(false)
            .unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{name}"
        );
        assert!(wire.is_closed(), "{name}: the connection lives on");
    }
    assert_eq!(backend.requests(), 0, "an instance saw one of them");
    assert_eq!(client(&router).get("/api/t/").status(), 200);
}

/// The same, one byte at a time: nothing depends on how the bytes arrive.
#[test]
fn each_is_refused_byte_by_byte() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    for (name, request, status) in table() {
        if request.len() > 400 {
            continue;
        }
        let mut wire = client(&router);
        for byte in request.bytes() {
            if wire.try_send([byte]).is_err() {
                break;
            }
        }
        let answer = wire
            .message(false)
            .unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
    }
    let seen = backend.seen.lock().unwrap();
    assert!(seen.is_empty(), "an instance saw all of {:?}", seen[0]);
}

#[test]
fn a_slow_head_is_refused_after_the_limit() {
    let backend = Backend::echo();
    let limits = Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[backend.address]);
    let mut wire = client(&router);
    wire.send("GET /api/t/ HTTP/1.1\r\nhost: te");
    let answer = wire.answer();
    assert_eq!(answer.status(), 408);
    assert!(wire.is_closed());
}

#[test]
fn a_client_that_says_nothing_is_left() {
    let limits = Limits {
        client_idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[]);
    assert!(client(&router).is_closed());
}

#[test]
fn many_empty_lines_before_a_request_are_refused() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send(format!("\r\n{NEXT}"));
    assert_eq!(wire.answer().status(), 200, "one is usual");
    let mut wire = client(&router);
    wire.send(format!("\r\n\r\n\r\n{NEXT}"));
    assert_eq!(wire.answer().status(), 400);
}

/// The head of what a client claims to be never reaches an instance.
#[test]
fn a_claimed_identity_changes_nothing() {
    let backend = Backend::echo();
    let router = router(&[backend.address]);
    let mut wire = client(&router);
    wire.send(
        "GET /api/t/ HTTP/1.1\r\nhost: test\r\nhydrant-caller: operator\r\n\
         HYDRANT-CALLER: operator\r\nhydrant_caller: operator\r\nconnection: hydrant-caller\r\n\
         x-forwarded-for: 6.6.6.6\r\n\r\n",
    );
    let head = wire.answer().text();
    assert_eq!(head.matches("operator").count(), 0, "{head}");
    assert!(head.contains("hydrant-caller: outside\r\n"), "{head}");
    assert!(
        head.contains("x-forwarded-for: 6.6.6.6, 127.0.0.1\r\n"),
        "{head}"
    );
}

/// What an instance answers may be hostile too: half of it never reaches the client.
#[test]
fn a_malformed_answer_is_not_forwarded() {
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "200\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        let backend = Backend::start(move |mut wire, seen| {
            if let Some(request) = wire.message(false) {
                seen.note(&request);
                wire.send(bad);
            }
        });
        let router = router(&[backend.address]);
        let mut wire = client(&router);
        let answer = wire.get("/api/t/");
        assert_eq!(answer.status(), 502, "{bad:?}: {}", answer.head);
        assert!(answer.text().contains("upstream_failed"), "{bad:?}");
        assert_eq!(
            backend.requests(),
            1,
            "{bad:?}: asked the same instance again"
        );
    }
}
