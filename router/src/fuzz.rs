//! What fuzzers and property tests ask of everything that reads bytes from outside: each takes
//! any bytes, and panics when an invariant does not hold.

use std::net::{IpAddr, Ipv4Addr};

use hydrant_contracts::{Caller, Endpoint};

use crate::decide::{self, Listener};
use crate::http1::body::{Body, Framing};
use crate::http1::head::{check_host, fields, parse_request};
use crate::http1::response::{Onward, parse_response};
use crate::http1::{Forward, Way};
use crate::proxies::{Client, Proxies, Told, Written, protocol};
use crate::snapshot::Snapshot;

const FORWARD: Forward<'static> = Forward {
    way: Way {
        cut: b"",
        to: None,
        token: None,
    },
    client: Client {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        text: "127.0.0.1",
        https: true,
        host: None,
        port: Some(443),
        told: false,
        certificate: Some("sha256=\"0\""),
    },
    write: Written::Both,
    default_host: "localhost",
    caller: "outside",
    priority: crate::priority::Priority::Normal,
    from_peer: false,
    target: None,
    changes: None,
};

/// A head that is accepted goes on as a head that is read the same.
pub fn request_head(bytes: &[u8]) {
    let mut room = fields();
    let Ok(Some(head)) = parse_request(bytes, &mut room) else {
        return;
    };
    let mut out = Vec::new();
    head.write(bytes, &FORWARD, &mut out);
    let mut room = fields();
    // Only what was added can make it too large.
    if let Ok(again) = parse_request(&out, &mut room) {
        let again = again.expect("what goes on is complete");
        assert_eq!(
            again.len,
            out.len(),
            "what goes on ends where it seems to end"
        );
        assert_eq!((again.method, again.path), (head.method, head.path));
        assert_eq!(again.framing, head.framing);
        assert!(again.token.is_none());
    }
}

/// The same for answers.
pub fn response_head(bytes: &[u8]) {
    let mut room = fields();
    let Ok(Some(head)) = parse_response(bytes, &mut room, false) else {
        return;
    };
    let onward = Onward {
        http11: true,
        close: false,
        cut: b"/api/t",
        changes: None,
    };
    let mut out = Vec::new();
    head.write(bytes, onward, &mut out);
    let mut room = fields();
    if let Ok(again) = parse_response(&out, &mut room, false) {
        let again = again.expect("what goes on is complete");
        assert_eq!((again.len, again.status), (out.len(), head.status));
        assert_eq!(again.framing, head.framing);
    }
}

/// What trusted proxies tell in a head.
pub fn proxies(bytes: &[u8]) {
    let mut room = fields();
    let Ok(Some(head)) = parse_request(bytes, &mut room) else {
        return;
    };
    for read in [Told::XForwarded, Told::Forwarded] {
        let proxies = Proxies {
            trusted: "127.0.0.0/8".parse().into_iter().collect(),
            read,
            ..Proxies::default()
        };
        let word = proxies.word(IpAddr::V4(Ipv4Addr::LOCALHOST), &head);
        assert_eq!(word.address, word.address.to_canonical());
        if let Some(host) = &word.host {
            assert!(check_host(host).is_ok() && !host.is_empty());
        }
    }
}

/// A header of the PROXY protocol, and what follows it.
pub fn proxy_protocol(bytes: &[u8]) {
    let Some((start, rest)) = bytes.split_first_chunk() else {
        return;
    };
    if let Ok(start) = protocol::Start::parse(start)
        && let Some(rest) = rest.get(..start.rest())
    {
        start.client(rest);
    }
}

/// Where a chunked body ends does not depend on how it arrives.
pub fn chunks(bytes: &[u8]) {
    let mut whole = Body::new(Framing::Chunked, true);
    let at_once = whole.scan(bytes, None);
    let mut body = Body::new(Framing::Chunked, true);
    let mut total = 0;
    let by_bytes = bytes.iter().try_for_each(|byte| {
        total += body.scan(std::slice::from_ref(byte), None)?;
        Ok(())
    });
    assert_eq!(at_once, by_bytes.map(|()| total));
    if at_once.is_ok() {
        assert_eq!(whole.is_done(), body.is_done());
    }
}

/// Any target gets a decision.
pub fn decide(bytes: &[u8]) {
    let snapshot = Snapshot::empty(1);
    for listener in [Listener::Public, Listener::Local, Listener::Peer] {
        let request = decide::Request {
            listener,
            caller: &Caller::Outside,
            method: b"GET",
            target: bytes,
            server: None,
            to: None,
        };
        assert!(
            decide::decide(&snapshot, &request).is_err(),
            "nothing is registered"
        );
    }
}

/// An endpoint that is accepted prints itself.
pub fn endpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        let printed = endpoint.to_string();
        assert!(printed == text || printed == format!("{text}/"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that get far: pieces of messages, put together at random.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(&b"GET /api/t/ HTTP/1.1\r\n"[..]),
            Just(&b"POST http://a/b?c HTTP/1.1\r\n"[..]),
            Just(&b"HTTP/1.1 200 OK\r\n"[..]),
            Just(&b"HTTP/1.0 302 Found\r\n"[..]),
            Just(&b"Host: test\r\n"[..]),
            Just(&b"Content-Length: 5\r\n"[..]),
            Just(&b"Transfer-Encoding: chunked\r\n"[..]),
            Just(&b"Connection: close, x\r\n"[..]),
            Just(&b"Location: /x\r\n"[..]),
            Just(&b"Upgrade: y\r\n"[..]),
            Just(&b"x: y\r\n"[..]),
            Just(&b"X-Forwarded-For: 127.0.0.1, [::1]:2\r\n"[..]),
            Just(&b"X-Forwarded-Host: a:1\r\nX-Forwarded-Port: 70000\r\n"[..]),
            Just(&b"Forwarded: for=127.0.0.1, for=\"[::1]\";host=\"a\r\n"[..]),
            Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"5\r\nhello\r\n"[..]),
            Just(&b"0\r\n"[..]),
            Just(&b"\n"[..]),
            Just(&b"/api/t/%2e"[..]),
            Just(&b" \0:"[..]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn all(bytes: &[u8]) {
        request_head(bytes);
        response_head(bytes);
        proxies(bytes);
        proxy_protocol(bytes);
        chunks(bytes);
        decide(bytes);
        endpoint(bytes);
    }

    proptest! {
        #[test]
        fn invariants_hold_for_noise(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            all(&bytes);
        }

        #[test]
        fn invariants_hold_for_what_resembles_messages(bytes in messages()) {
            all(&bytes);
        }
    }
}
