//! Heads of requests: read strictly, so that no two parties can understand one differently.

use std::mem::MaybeUninit;

use hydrant_contracts::{Timeout, header};

use super::body::Framing;
use crate::names::is_lookalike;
use crate::rule;

/// The longest head, in bytes; a longer one is answered with 431.
pub const MAX_HEAD: usize = 64 * 1024;
/// The most header fields of one head; more are answered with 431.
pub const MAX_HEADERS: usize = 100;

/// Room for the header fields of one head; lives on the stack while a head is read.
pub type Fields<'a> = [MaybeUninit<httparse::Header<'a>>; MAX_HEADERS];

/// Fresh room for header fields.
pub fn fields<'a>() -> Fields<'a> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It breaks a rule of HTTP/1.1: which.
    Malformed(&'static str),
    /// It is longer than [`MAX_HEAD`] or has more fields than [`MAX_HEADERS`].
    TooLarge,
}

/// A set of header fields, by their place in the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u128);

impl FieldSet {
    pub(super) fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(super) fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    pub(super) fn with(self, other: FieldSet) -> Self {
        Self(self.0 | other.0)
    }
}

/// The head of a request; all text lies in the buffer that it was read from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// How many bytes it has, with the empty line.
    pub len: usize,
    /// The method.
    pub method: &'a str,
    /// Path and query, as they were sent: the decision checks them.
    pub path: &'a str,
    /// The host that is addressed: of an absolute target, else of the field `host`.
    pub host: Option<&'a str>,
    /// The target named the host, which overrides the field.
    pub absolute: bool,
    /// HTTP/1.1; else HTTP/1.0.
    pub http11: bool,
    /// How its body is framed.
    pub framing: Framing,
    /// It told a length, though it be 0.
    pub(super) told_length: bool,
    /// The client wants to send more requests on the connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The protocol that the client wants to change to.
    pub upgrade: Option<&'a [u8]>,
    /// The token that proves who calls.
    pub token: Option<&'a [u8]>,
    /// The instance that another node has chosen.
    pub to: Option<&'a [u8]>,
    /// The server whose node is asked.
    pub server: Option<&'a [u8]>,
    /// How much it matters, as the client says.
    pub priority: Option<&'a [u8]>,
    /// How long the client is ready to wait.
    pub timeout: Option<Timeout>,
    /// `content-type`, to answer errors in the caller's language.
    pub content_type: Option<&'a [u8]>,
    /// `connect-protocol-version` was sent.
    pub connect_protocol: bool,
    /// A valid `traceparent` was sent.
    pub traced: bool,
    /// A valid `correlation-id` was sent.
    pub correlated: bool,
    /// `x-forwarded-for` as it was sent, one per proxy that adds its own line.
    pub forwarded_for: Vec<&'a [u8]>,
    pub(super) fields: &'a [httparse::Header<'a>],
    pub(super) dropped: FieldSet,
    /// What tells of the way before: only other nodes are believed.
    pub(super) forwarded: FieldSet,
}

/// Reads the head at the beginning of `bytes`; `None` when it is not complete yet.
pub fn parse_request<'a>(
    bytes: &'a [u8],
    room: &'a mut Fields<'a>,
) -> Result<Option<RequestHead<'a>>, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return incomplete(bytes),
        Err(error) => return Err(refusal_of(error)),
    };
    check_size(len)?;
    check_line_ends(&bytes[..len])?;
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    check_request_line(bytes, method, target)?;
    let (host, path) = split_target(method, target)?;
    let mut head = RequestHead {
        len,
        method,
        path,
        host,
        absolute: host.is_some(),
        http11: request.version == Some(1),
        framing: Framing::Empty,
        told_length: false,
        keep_alive: request.version == Some(1),
        expects_continue: false,
        upgrade: None,
        token: None,
        to: None,
        server: None,
        priority: None,
        timeout: None,
        content_type: None,
        connect_protocol: false,
        traced: false,
        correlated: false,
        forwarded_for: Vec::new(),
        fields: request.headers,
        dropped: FieldSet::default(),
        forwarded: FieldSet::default(),
    };
    head.read_fields()?;
    Ok(Some(head))
}

/// What has come of a head must be right so far.
fn incomplete<T>(bytes: &[u8]) -> Result<Option<T>, HeadError> {
    check_line_ends(bytes)?;
    if bytes.starts_with(b"\r\n\r\n") {
        return Err(HeadError::Malformed("there is no request line"));
    }
    check_size(bytes.len())?;
    Ok(None)
}

fn check_size(len: usize) -> Result<(), HeadError> {
    if len > MAX_HEAD {
        return Err(HeadError::TooLarge);
    }
    Ok(())
}

pub(super) fn refusal_of(error: httparse::Error) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::TooManyHeaders => return HeadError::TooLarge,
        httparse::Error::HeaderName => "a header field's name is malformed",
        httparse::Error::HeaderValue => "a header field's value holds a control character",
        httparse::Error::NewLine => "a line does not end in CR LF",
        httparse::Error::Token => "the request line is malformed",
        httparse::Error::Version => "the version is not HTTP/1.1 or HTTP/1.0",
        httparse::Error::Status => "the status line is malformed",
    })
}

/// A line feed alone ends a line for some servers and not for others.
pub(super) fn check_line_ends(head: &[u8]) -> Result<(), HeadError> {
    let mut feeds = memchr::memchr_iter(b'\n', head);
    if feeds.any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(HeadError::Malformed("a line does not end in CR LF"));
    }
    Ok(())
}

/// The request line is exactly method, space, target, space and version.
fn check_request_line(bytes: &[u8], method: &str, target: &str) -> Result<(), HeadError> {
    let start = method.as_ptr() as usize - bytes.as_ptr() as usize;
    let line = method.len() + 1 + target.len() + " HTTP/1.x\r\n".len();
    if bytes.get(start + line - 1) != Some(&b'\n') || start > 2 {
        return Err(HeadError::Malformed("the request line is malformed"));
    }
    Ok(())
}

/// Splits a target into the host of its absolute form, and path and query.
fn split_target<'a>(
    method: &str,
    target: &'a str,
) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Malformed("CONNECT is for forward proxies"));
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((None, target));
    }
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let Some(scheme) = scheme else {
        return Err(HeadError::Malformed("the target is not a path"));
    };
    let rest = &target[scheme.len()..];
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest.split_at(at),
        Some(_) => return Err(HeadError::Malformed("the target has no path")),
        None => (rest, "/"),
    };
    check_host(host)?;
    if host.is_empty() {
        return Err(HeadError::Malformed("the target has no host"));
    }
    Ok((Some(host), path))
}

/// A host is a name or address with a port, and nothing else: no user, no path. Whoever reads two
/// colons must not find another port, or another name, than the next one does.
pub(crate) fn check_host(host: &str) -> Result<(), HeadError> {
    let bytes = host.as_bytes();
    let (is_host, port) = match bytes {
        [b'[', rest @ ..] => {
            let end = memchr::memchr(b']', rest).unwrap_or(0);
            (
                is_address(&rest[..end]),
                rest.get(end + 1..).unwrap_or_default(),
            )
        }
        _ => {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            (is_host_name(&bytes[..end]), &bytes[end..])
        }
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if host.len() > 255 || !is_host || !is_port {
        return Err(HeadError::Malformed("the host is malformed"));
    }
    Ok(())
}

/// What stands between the brackets of an address of IPv6.
fn is_address(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    !text.is_empty() && text.iter().all(is_one)
}

/// `reg-name` of RFC 3986; it may be empty.
fn is_host_name(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let is_escape = |at: usize| {
        let digits = text.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    text.iter().all(is_one) && memchr::memchr_iter(b'%', text).all(is_escape)
}

impl rule::Fields for RequestHead<'_> {
    fn any(&self, name: &str, accepts: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|field| field.name.eq_ignore_ascii_case(name) && accepts(field.value))
    }
}

impl<'a> RequestHead<'a> {
    fn read_fields(&mut self) -> Result<(), HeadError> {
        let mut seen = Seen::default();
        for (index, field) in self.fields.iter().enumerate() {
            self.read_field(index, field, &mut seen)?;
        }
        if seen.named {
            self.drop_named()?;
        }
        self.settle_framing(&seen)?;
        self.settle_upgrade(&seen);
        if self.http11 && seen.hosts != 1 {
            return Err(HeadError::Malformed("there is not exactly one host field"));
        }
        Ok(())
    }

    fn read_field(
        &mut self,
        index: usize,
        field: &'a httparse::Header<'a>,
        seen: &mut Seen<'a>,
    ) -> Result<(), HeadError> {
        let value = field.value;
        let name = field.name;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is("te") => self.dropped.insert(index),
            4 if is("host") => self.read_host(value, seen)?,
            6 if is("expect") => {
                self.expects_continue = self.http11 && value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if is("upgrade") => {
                self.dropped.insert(index);
                seen.upgrade = Some(value);
            }
            9 if is("forwarded") => self.forwarded.insert(index),
            10 if is("connection") => {
                self.dropped.insert(index);
                self.read_connection(value, seen);
            }
            10 if is("keep-alive") => self.dropped.insert(index),
            10 if is(header::TO) => {
                self.dropped.insert(index);
                once(&mut self.to, value, "there is more than one hydrant-to")?;
            }
            11 if is("traceparent") => {
                let is_first = !self.traced;
                self.traced |= hydrant_contracts::TraceParent::parse(value).is_some();
                self.drop_unless(index, is_first && self.traced);
            }
            12 if is("content-type") => self.content_type = Some(value),
            12 if is(header::GRPC_TIMEOUT) => self.wait_at_most(Timeout::from_grpc(value)),
            13 if is(header::TOKEN) => {
                self.dropped.insert(index);
                once(&mut self.token, value, "there is more than one token")?;
            }
            14 if is("content-length") => {
                self.dropped.insert(index);
                seen.read_length(value)?;
            }
            14 if is("http2-settings") => self.dropped.insert(index),
            14 if is(header::CORRELATION_ID) => {
                let is_first = !self.correlated;
                self.correlated |= hydrant_contracts::CorrelationId::is_valid(value);
                self.drop_unless(index, is_first && self.correlated);
            }
            14 if is(header::SERVER) => {
                self.dropped.insert(index);
                once(
                    &mut self.server,
                    value,
                    "there is more than one hydrant-server",
                )?;
            }
            14 if is(header::CALLER) || is(header::UNSENT) || is(header::BROKEN) => {
                self.dropped.insert(index);
            }
            15 if is("x-forwarded-for") => {
                self.forwarded.insert(index);
                self.forwarded_for.push(value);
            }
            16 if is(header::PRIORITY) => {
                self.dropped.insert(index);
                once(
                    &mut self.priority,
                    value,
                    "there is more than one hydrant-priority",
                )?;
            }
            16 if is("proxy-connection") => self.dropped.insert(index),
            16 if is("x-forwarded-host") || is("x-forwarded-port") => {
                self.forwarded.insert(index);
            }
            17 if is("transfer-encoding") => {
                self.dropped.insert(index);
                seen.read_coding(value)?;
            }
            17 if is("x-forwarded-proto") => self.forwarded.insert(index),
            18 if is(header::FORWARDED_PREFIX) => self.dropped.insert(index),
            18 if is(header::CONNECT_TIMEOUT) || is(header::TIMEOUT) => {
                self.wait_at_most(Timeout::from_millis(value));
            }
            19 if is(header::CLIENT_CERT) => self.forwarded.insert(index),
            24 if is("connect-protocol-version") => self.connect_protocol = true,
            _ if name.len() > 8 && is_lookalike(name.as_bytes()) => self.dropped.insert(index),
            _ => {}
        }
        Ok(())
    }

    fn drop_unless(&mut self, index: usize, kept: bool) {
        if !kept {
            self.dropped.insert(index);
        }
    }

    fn read_host(&mut self, value: &'a [u8], seen: &mut Seen<'a>) -> Result<(), HeadError> {
        seen.hosts += 1;
        let malformed = HeadError::Malformed("the host is malformed");
        let host = std::str::from_utf8(value).map_err(|_| malformed)?;
        check_host(host)?;
        if seen.hosts > 1 {
            return Err(HeadError::Malformed("there is not exactly one host field"));
        }
        self.host.get_or_insert(host);
        Ok(())
    }

    fn read_connection(&mut self, value: &'a [u8], seen: &mut Seen<'a>) {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                seen.close = true;
                self.keep_alive = false;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = !seen.close;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                seen.wants_upgrade = true;
            } else {
                seen.named = true;
            }
        }
    }

    /// Drops the fields that `connection` names, which are for this hop alone.
    fn drop_named(&mut self) -> Result<(), HeadError> {
        let connections = self.fields.iter().filter(|field| is_connection(field));
        for option in connections.flat_map(|field| list(field.value)) {
            if is_framing(option) {
                return Err(HeadError::Malformed(
                    "connection names a field that frames the request",
                ));
            }
            for (index, field) in self.fields.iter().enumerate() {
                if field.name.as_bytes().eq_ignore_ascii_case(option) {
                    self.dropped.insert(index);
                }
            }
        }
        Ok(())
    }

    fn settle_framing(&mut self, seen: &Seen<'_>) -> Result<(), HeadError> {
        self.told_length = seen.length.is_some();
        self.framing = match (seen.length, seen.chunked) {
            (Some(_), true) => {
                return Err(HeadError::Malformed(
                    "there is a content-length and a transfer-encoding",
                ));
            }
            (None, true) if !self.http11 => {
                return Err(HeadError::Malformed("HTTP/1.0 has no transfer-encoding"));
            }
            (None, true) => Framing::Chunked,
            (None | Some(0), false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
        };
        Ok(())
    }

    /// HTTP/2 in clear text is no protocol to change to: the requests in it would meet no rule.
    fn settle_upgrade(&mut self, seen: &Seen<'a>) {
        let is_h2c = |value: &[u8]| list(value).any(|name| name.eq_ignore_ascii_case(b"h2c"));
        self.upgrade = seen
            .upgrade
            .filter(|value| self.http11 && seen.wants_upgrade && !is_h2c(value));
    }

    fn wait_at_most(&mut self, timeout: Option<Timeout>) {
        if let Some(timeout) = timeout {
            self.timeout = Some(self.timeout.map_or(timeout, |other| other.min(timeout)));
        }
    }
}

/// Where a second one is a sign that somebody smuggles.
fn once<'a>(
    place: &mut Option<&'a [u8]>,
    value: &'a [u8],
    what: &'static str,
) -> Result<(), HeadError> {
    match place.replace(value) {
        Some(_) => Err(HeadError::Malformed(what)),
        None => Ok(()),
    }
}

/// What was met on the way through the fields.
#[derive(Default)]
struct Seen<'a> {
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    named: bool,
    wants_upgrade: bool,
    upgrade: Option<&'a [u8]>,
}

impl Seen<'_> {
    fn read_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let length = parse_length(value).ok_or(HeadError::Malformed(
            "content-length is not a decimal number",
        ))?;
        if self.length.replace(length).is_some() {
            return Err(HeadError::Malformed(
                "there is more than one content-length",
            ));
        }
        Ok(())
    }

    fn read_coding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed(
                "transfer-encoding is not exactly `chunked`",
            ));
        }
        self.chunked = true;
        Ok(())
    }
}

/// At most 18 digits, so that no sum overflows.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = value.iter();
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The items of a comma-separated list, trimmed, without empty ones.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

pub(super) fn is_connection(field: &httparse::Header<'_>) -> bool {
    field.name.eq_ignore_ascii_case("connection")
}

pub(super) fn is_framing(name: &[u8]) -> bool {
    [&b"host"[..], b"content-length", b"transfer-encoding"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}
