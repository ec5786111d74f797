//! The head of a request as an instance gets it.

use std::io::Write as _;
use std::ops::Range;

use hydrant_contracts::rules::HeaderChanges;
use hydrant_contracts::{CorrelationId, NODE_SERVICE, TraceParent};

use super::body::Framing;
use super::head::RequestHead;
use super::response::copy_fields;
use crate::decide::Route;
use crate::peer::Reach;
use crate::priority::Priority;
use crate::proxies::{Client, Written};
use crate::service::Instance;

/// What the router adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The way that it takes first.
    pub way: Way<'a>,
    /// What is known of the client.
    pub client: Client<'a>,
    /// In which headers that is told.
    pub write: Written,
    /// The host to name when the client, of HTTP/1.0, named none.
    pub default_host: &'a str,
    /// Who calls, as proved.
    pub caller: &'a str,
    /// How much it matters.
    pub priority: Priority,
    /// Another node sent it. What it tells of the client is true, and goes on as it is.
    pub from_peer: bool,
    /// The path and query that a rule has put in the place of those that came.
    pub target: Option<&'a [u8]>,
    /// What a rule changes.
    pub changes: Option<&'a HeaderChanges>,
}

/// The way to one instance: what a request says only on it. Another attempt may take another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way<'a> {
    /// What is cut off the path.
    pub cut: &'a [u8],
    /// The instance that the node of another server shall send it to.
    pub to: Option<&'a str>,
    /// The caller's token, where it goes on: to a node, which checks it again.
    pub token: Option<&'a [u8]>,
}

impl<'a> Way<'a> {
    /// The way to `instance`, and the path and query that are seen at its end.
    pub fn to(
        route: &Route<'_>,
        instance: &'a Instance,
        target: &'a [u8],
        token: Option<&'a [u8]>,
    ) -> (Self, &'a [u8]) {
        if let Reach::Peer(_) = instance.reach {
            // That node decides again, so it gets the path as it came.
            let to = match route.service.is_node() {
                true => NODE_SERVICE,
                false => instance.info.id.as_str(),
            };
            let way = Self {
                cut: b"",
                to: Some(to),
                token,
            };
            return (way, target);
        }
        let (cut, path) = route.split(target, instance);
        let way = Self {
            cut,
            to: None,
            token: token.filter(|_| route.forwards_token()),
        };
        (way, path)
    }

    /// Appends its lines.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if !self.cut.is_empty() {
            push(out, &[b"x-forwarded-prefix: ", self.cut, b"\r\n"]);
        }
        if let Some(to) = self.to {
            push(out, &[b"hydrant-to: ", to.as_bytes(), b"\r\n"]);
        }
        if let Some(token) = self.token {
            push(out, &[b"hydrant-token: ", token, b"\r\n"]);
        }
    }
}

impl RequestHead<'_> {
    /// Appends the head as the instance gets it. `bytes` is what it was parsed from.
    /// Tells where the lines of the way are.
    pub fn write(&self, bytes: &[u8], forward: &Forward<'_>, out: &mut Vec<u8>) -> Range<usize> {
        out.reserve(self.len + 384);
        let target = forward.target.unwrap_or(self.path.as_bytes());
        let path = &target[forward.way.cut.len()..];
        push(out, &[self.method.as_bytes(), b" ", path, b" HTTP/1.1\r\n"]);
        let mut dropped = self.dropped;
        if !forward.from_peer {
            dropped = dropped.with(self.forwarded);
        }
        if let Some(changes) = forward.changes {
            for (index, field) in self.fields.iter().enumerate() {
                if changes.takes_off(field.name.as_bytes()) {
                    dropped.insert(index);
                }
            }
        }
        if self.absolute {
            // The target overrides what the field says (RFC 9112, 3.2.2).
            for (index, field) in self.fields.iter().enumerate() {
                if field.name.eq_ignore_ascii_case("host") {
                    dropped.insert(index);
                }
            }
        }
        let host = self.host.unwrap_or(forward.default_host);
        if self.absolute || self.host.is_none() {
            push(out, &[b"host: ", host.as_bytes(), b"\r\n"]);
        }
        copy_fields(&bytes[..self.len], self.fields, dropped, out);
        self.write_framing(out);
        if !forward.from_peer {
            self.write_forwarded(host, forward, out);
        }
        self.write_context(forward, out);
        if let Some(changes) = forward.changes {
            write_changes(changes, out);
        }
        let start = out.len();
        forward.way.write(out);
        let way = start..out.len();
        if let Some(upgrade) = self.upgrade {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
            out.extend_from_slice(upgrade);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        way
    }

    /// In the one spelling that everybody reads alike: not every server trims a tab, as we do.
    fn write_framing(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = match self.framing {
            Framing::Chunked => write!(out, "transfer-encoding: chunked\r\n"),
            Framing::Length(length) => write!(out, "content-length: {length}\r\n"),
            _ if self.told_length => write!(out, "content-length: 0\r\n"),
            _ => Ok(()),
        };
    }

    fn write_forwarded(&self, host: &str, forward: &Forward<'_>, out: &mut Vec<u8>) {
        let host = forward.client.host.unwrap_or(host);
        if forward.write.has_x_forwarded() {
            self.write_x_forwarded(host, &forward.client, out);
        }
        if forward.write.has_forwarded() {
            out.extend_from_slice(b"forwarded: ");
            forward.client.write_forwarded(host, out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(certificate) = forward.client.certificate {
            push(
                out,
                &[b"hydrant-client-cert: ", certificate.as_bytes(), b"\r\n"],
            );
        }
    }

    fn write_x_forwarded(&self, host: &str, client: &Client<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-forwarded-for: ");
        let claims = (!client.told).then_some(&self.forwarded_for);
        for before in claims.into_iter().flatten() {
            out.extend_from_slice(before);
            out.extend_from_slice(b", ");
        }
        push(
            out,
            &[
                client.text.as_bytes(),
                b"\r\nx-forwarded-proto: ",
                client.scheme().as_bytes(),
                b"\r\nx-forwarded-host: ",
                host.as_bytes(),
                b"\r\n",
            ],
        );
        if let Some(port) = client.port {
            // Writing to a vector cannot fail.
            let _ = write!(out, "x-forwarded-port: {port}\r\n");
        }
    }

    fn write_context(&self, forward: &Forward<'_>, out: &mut Vec<u8>) {
        push(
            out,
            &[b"hydrant-caller: ", forward.caller.as_bytes(), b"\r\n"],
        );
        if forward.priority != Priority::Normal {
            let priority = forward.priority.as_str().as_bytes();
            push(out, &[b"hydrant-priority: ", priority, b"\r\n"]);
        }
        if !self.traced {
            let trace = TraceParent::generate().to_text();
            push(out, &[b"traceparent: ", &trace, b"\r\n"]);
        }
        if !self.correlated {
            let correlation = CorrelationId::generate_text();
            push(out, &[b"correlation-id: ", &correlation, b"\r\n"]);
        }
    }
}

/// Appends the headers that a rule adds.
pub(super) fn write_changes(changes: &HeaderChanges, out: &mut Vec<u8>) {
    for (name, value) in changes.comes() {
        let (name, value) = (name.as_str().as_bytes(), value.as_str().as_bytes());
        push(out, &[name, b": ", value, b"\r\n"]);
    }
}

fn push(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::head::{HeadError, MAX_HEAD, fields, parse_request};

    const WAY: Way<'_> = Way {
        cut: b"",
        to: None,
        token: None,
    };
    const FORWARD: Forward<'_> = Forward {
        way: WAY,
        client: Client::PLAIN,
        write: Written::XForwarded,
        default_host: "127.0.0.1:8080",
        caller: "outside",
        priority: Priority::Normal,
        from_peer: false,
        target: None,
        changes: None,
    };
    const CONTEXT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ncorrelation-id: c1\r\n";

    fn forwarded(text: &str, forward: &Forward<'_>) -> Result<String, HeadError> {
        let mut room = fields();
        let head = parse_request(text.as_bytes(), &mut room)?.expect("a complete head");
        let mut out = Vec::new();
        head.write(text.as_bytes(), forward, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_request_goes_on_with_what_the_router_knows() {
        let text = format!(
            "GET /api/files/a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Foo\r\nX-Foo: 1\r\n\
             A: b\r\nTE: trailers\r\nHydrant-Token: t\r\nHydrant-Caller: operator\r\n\
             hydrant_caller: operator\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: y\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\n\
             hydrant-client-cert: subject=\"CN=x\"\r\nhydrant_client_cert: x\r\n\
             hydrant-to: i-1\r\nhydrant-server: two\r\nhydrant-unsent: refused\r\n\
             hydrant-broken: closed\r\nhydrant_to: i-2\r\n{CONTEXT}C: d\r\n\r\nrest"
        );
        let way = Way {
            cut: b"/api/files",
            ..WAY
        };
        let forward = Forward { way, ..FORWARD };
        let expected = format!(
            "GET /a?b HTTP/1.1\r\nHost: x\r\nA: b\r\n{CONTEXT}C: d\r\n\
             x-forwarded-for: 1.2.3.4, 10.0.0.1\r\nx-forwarded-proto: http\r\n\
             x-forwarded-host: x\r\nhydrant-caller: outside\r\nx-forwarded-prefix: /api/files\r\n\r\n"
        );
        assert_eq!(forwarded(&text, &forward).unwrap(), expected);
        let way = Way {
            to: Some("i-3"),
            token: Some(b"t"),
            ..WAY
        };
        let on_to_a_node = forwarded(&text, &Forward { way, ..FORWARD }).unwrap();
        assert!(on_to_a_node.starts_with("GET /api/files/a?b HTTP/1.1\r\n"));
        let end = "hydrant-caller: outside\r\nhydrant-to: i-3\r\nhydrant-token: t\r\n\r\n";
        assert!(on_to_a_node.ends_with(end), "{on_to_a_node}");
        assert_eq!(on_to_a_node.matches("hydrant").count(), 3, "{on_to_a_node}");
    }

    #[test]
    fn what_another_node_tells_of_the_client_goes_on() {
        let text = format!(
            "GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: y\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /z\r\n{CONTEXT}\r\n"
        );
        let forward = Forward {
            from_peer: true,
            ..FORWARD
        };
        let expected = format!(
            "GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: y\r\n\
             X-Forwarded-Proto: https\r\n{CONTEXT}hydrant-caller: outside\r\n\r\n"
        );
        assert_eq!(forwarded(&text, &forward).unwrap(), expected);
    }

    /// Not every server trims a tab, or reads a zero in front, as we do.
    #[test]
    fn framing_is_told_in_one_spelling() {
        for (spelled, plain) in [
            ("Transfer-Encoding: chunked", "transfer-encoding: chunked"),
            ("Transfer-Encoding:\tchunked", "transfer-encoding: chunked"),
            (
                "TRANSFER-ENCODING:   Chunked\t ",
                "transfer-encoding: chunked",
            ),
            ("Content-Length:\t5", "content-length: 5"),
            ("Content-Length: 0005 \t", "content-length: 5"),
            ("Content-Length: 000", "content-length: 0"),
        ] {
            let text = format!("POST /a HTTP/1.1\r\nhost: x\r\n{spelled}\r\nb: c\r\n\r\n");
            let out = forwarded(&text, &FORWARD).unwrap().to_lowercase();
            let lines: Vec<_> = out
                .lines()
                .filter(|line| line.starts_with("transfer-") || line.starts_with("content-"))
                .collect();
            assert_eq!(lines, [plain], "{spelled}");
        }
    }

    #[test]
    fn missing_context_is_made() {
        let out = forwarded("GET /a HTTP/1.0\r\n\r\n", &FORWARD).unwrap();
        assert!(out.starts_with("GET /a HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nx-forwarded-for: "));
        assert!(out.contains("\r\ntraceparent: 00-") && out.contains("\r\ncorrelation-id: "));
        let broken = "GET /a HTTP/1.1\r\nhost: x\r\ntraceparent: 1\r\ncorrelation-id: a b\r\n\r\n";
        let out = forwarded(broken, &FORWARD).unwrap();
        assert!(!out.contains("traceparent: 1\r\n") && !out.contains("a b"));
        let once = |text: &str| {
            let out = forwarded(text, &FORWARD).unwrap();
            (
                out.matches("traceparent: ").count(),
                out.matches("correlation-id: ").count(),
            )
        };
        let more = "traceparent: 1\r\ncorrelation-id: a b\r\n";
        for context in [
            [CONTEXT, CONTEXT],
            [CONTEXT, more],
            [more, CONTEXT],
            [more, more],
        ] {
            let text = format!("GET /a HTTP/1.1\r\nhost: x\r\n{}\r\n", context.concat());
            assert_eq!(once(&text), (1, 1), "{text}");
        }
    }

    #[test]
    fn an_absolute_target_overrides_the_host() {
        let text = "GET http://real:80/a HTTP/1.1\r\nHost: other\r\nA: b\r\n\r\n";
        let out = forwarded(text, &FORWARD).unwrap();
        assert!(
            out.starts_with("GET /a HTTP/1.1\r\nhost: real:80\r\nA: b\r\n"),
            "{out}"
        );
        assert!(!out.contains("other"), "{out}");
    }

    #[test]
    fn upgrades_go_on_but_not_to_http2() {
        let text = |to: &str| {
            format!("GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n")
        };
        let out = forwarded(&text("websocket"), &FORWARD).unwrap();
        assert!(
            out.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"),
            "{out}"
        );
        let out = forwarded(&text("websocket, H2C"), &FORWARD).unwrap();
        assert!(!out.to_lowercase().contains("upgrade"), "{out}");
    }

    #[test]
    fn framing_and_life_of_the_connection() {
        let read = |rest: &str| {
            let text = format!("POST / {rest}\r\n\r\n");
            let mut room = fields();
            let head = parse_request(text.as_bytes(), &mut room).unwrap().unwrap();
            (head.framing, head.keep_alive, head.expects_continue)
        };
        assert_eq!(read("HTTP/1.1\r\nHost: x"), (Framing::Empty, true, false));
        assert_eq!(
            read("HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue"),
            (Framing::Length(5), true, true)
        );
        assert_eq!(
            read("HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nConnection: close"),
            (Framing::Chunked, false, false)
        );
        assert_eq!(read("HTTP/1.0"), (Framing::Empty, false, false));
        assert_eq!(
            read("HTTP/1.0\r\nConnection: Keep-Alive"),
            (Framing::Empty, true, false)
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut room = fields();
            let _ = parse_request(&bytes, &mut room);
        }

        /// What goes on is read back the same: nothing is left that could be read in two ways.
        #[test]
        fn what_goes_on_is_a_well_formed_head(
            path in "/[a-z0-9%./?=&-]{0,30}",
            names in proptest::collection::vec(
                prop_oneof![
                    "[A-Za-z!#$%&'*+.^_`|~-]{1,24}".boxed(),
                    Just("Connection".to_owned()).boxed(),
                    Just("Content-Length".to_owned()).boxed(),
                    Just("Transfer-Encoding".to_owned()).boxed(),
                    Just("Hydrant-Caller".to_owned()).boxed(),
                ],
                0..6,
            ),
            values in proptest::collection::vec("[ -~]{0,20}|chunked|[0-9]{1,3}|a, close", 6),
        ) {
            let mut text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n");
            for (name, value) in names.iter().zip(&values) {
                text += &format!("{name}: {value}\r\n");
            }
            text += "\r\n";
            let mut room = fields();
            let Ok(Some(head)) = parse_request(text.as_bytes(), &mut room) else { return Ok(()) };
            let mut out = Vec::new();
            head.write(text.as_bytes(), &FORWARD, &mut out);
            let mut room = fields();
            let again = parse_request(&out, &mut room).unwrap().unwrap();
            prop_assert_eq!((again.len, again.framing, again.path), (out.len(), head.framing, head.path));
            let shown = String::from_utf8_lossy(&out).to_lowercase();
            prop_assert_eq!(shown.matches("hydrant-caller:").count(), 1);
        }

        #[test]
        fn a_head_is_complete_only_at_its_end(cut in 0usize..90) {
            let text = "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\nContent-Length: 5\r\nUser-Agent: somebody 1.2\r\n\r\n";
            let mut room = fields();
            let cut = cut.min(text.len() - 1);
            prop_assert!(parse_request(&text.as_bytes()[..cut], &mut room).unwrap().is_none());
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(MAX_HEAD));
        let many = format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "a: b\r\n".repeat(101)
        );
        for text in [long, many] {
            let mut room = fields();
            let error = parse_request(text.as_bytes(), &mut room).unwrap_err();
            assert_eq!(error, HeadError::TooLarge);
        }
    }
}
