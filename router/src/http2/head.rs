//! Heads on their way through: what is taken off, changed and added.

use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Uri};
use hydrant_contracts::rules::HeaderChanges;
use hydrant_contracts::{CorrelationId, Timeout, TraceParent, header as ours};

use crate::http1::Way;
use crate::names::{is_lookalike, is_only_in_heads};
use crate::priority::Priority;
use crate::proxies::{Client, Written};
use crate::refusal::{Reason, Refusal, Verdict, shown};
use crate::rule;

const TIMEOUTS: [HeaderName; 3] = [
    HeaderName::from_static(ours::CONNECT_TIMEOUT),
    HeaderName::from_static(ours::GRPC_TIMEOUT),
    HeaderName::from_static(ours::TIMEOUT),
];
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const CALLER: HeaderName = HeaderName::from_static(ours::CALLER);
const TOKEN: HeaderName = HeaderName::from_static(ours::TOKEN);
const TRACEPARENT: HeaderName = HeaderName::from_static(ours::TRACEPARENT);
const CORRELATION_ID: HeaderName = HeaderName::from_static(ours::CORRELATION_ID);
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static(ours::FORWARDED_PREFIX);
const TO: HeaderName = HeaderName::from_static(ours::TO);
const SERVER: HeaderName = HeaderName::from_static(ours::SERVER);
const UNSENT: HeaderName = HeaderName::from_static(ours::UNSENT);
const PRIORITY: HeaderName = HeaderName::from_static(ours::PRIORITY);
const BROKEN: HeaderName = HeaderName::from_static(ours::BROKEN);
/// What a request may not bring along: it is set anew on each way, or says something to us alone.
const FOR_THIS_HOP: [HeaderName; 7] = [
    FORWARDED_PREFIX,
    TOKEN,
    TO,
    SERVER,
    UNSENT,
    BROKEN,
    PRIORITY,
];
const CLIENT_CERT: HeaderName = HeaderName::from_static(ours::CLIENT_CERT);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// What tells of the way before: only other nodes are believed.
const OF_THE_WAY: [HeaderName; 6] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PORT,
    header::FORWARDED,
    CLIENT_CERT,
];

/// What all attempts of a request have in common.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    pub(super) caller: &'a str,
    pub(super) priority: Priority,
    /// Another node sent it. What it tells of the client is true, and goes on as it is.
    pub(super) from_peer: bool,
    pub(super) client: Client<'a>,
    pub(super) write: Written,
    pub(super) authority: Option<&'a str>,
}

/// What a request says to the router alone.
#[derive(Debug)]
pub(super) struct ForUs {
    pub(super) token: Option<HeaderValue>,
    pub(super) to: Option<HeaderValue>,
    pub(super) server: Option<HeaderValue>,
    pub(super) priority: Option<HeaderValue>,
}

impl ForUs {
    /// Each may be there once.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        Ok(Self {
            token: once(headers, &TOKEN)?,
            to: once(headers, &TO)?,
            server: once(headers, &SERVER)?,
            priority: once(headers, &PRIORITY)?,
        })
    }
}

/// Refuses what RFC 9113 calls malformed and the library lets pass: once it is written as HTTP/1.1, two
/// readers could take it for two things.
pub(super) fn check(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Refusal> {
    let refused = |what: &'static str| Err(Refusal::new(Reason::BadRequest, what));
    let host = once(headers, &header::HOST)?;
    let differs = |host: &HeaderValue| {
        authority.is_some_and(|named| !host.as_bytes().eq_ignore_ascii_case(named.as_bytes()))
    };
    if host.as_ref().is_some_and(differs) {
        return refused("the header host names another host than :authority");
    }
    if headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return refused("the request has more than one content-length");
    }
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = headers.values().map(HeaderValue::as_bytes);
    if values.any(|value| is_space(value.first()) || is_space(value.last())) {
        return refused("a header's value begins or ends with white space");
    }
    Ok(())
}

fn once(headers: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().cloned();
    if values.next().is_some() {
        let message = format!("the request has more than one header {name}");
        return Err(Refusal::new(Reason::BadRequest, message));
    }
    Ok(first)
}

/// What the node of another server says of its instance, when the answer is its own.
pub(super) fn verdict(headers: &HeaderMap) -> Option<Verdict> {
    let value = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    Verdict::parse(value(&UNSENT), value(&BROKEN))
}

/// How long the caller waits: the shortest of the headers that say so.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut shortest: Option<Duration> = None;
    for name in &TIMEOUTS {
        for value in headers.get_all(name) {
            let parsed = parse_timeout(name, value.as_bytes()).ok_or_else(|| {
                let value = shown(value.as_bytes());
                let message = format!("the header {name}: {value} is not a time");
                Refusal::new(Reason::BadRequest, message)
                    .mend("write milliseconds, as 1500, or for gRPC a number and a unit, as 2S")
            })?;
            let parsed = parsed.duration();
            shortest = Some(shortest.map_or(parsed, |shortest| shortest.min(parsed)));
        }
    }
    Ok(shortest)
}

fn parse_timeout(name: &HeaderName, value: &[u8]) -> Option<Timeout> {
    match name.as_str() {
        ours::GRPC_TIMEOUT => Timeout::from_grpc(value),
        _ => Timeout::from_millis(value),
    }
}

/// Takes off what ends here and adds what every attempt carries.
pub(super) fn prepare(headers: &mut HeaderMap, onward: &Onward<'_>) {
    drop_hop_by_hop(headers);
    drop_lookalikes(headers);
    headers.remove(header::EXPECT);
    for name in &FOR_THIS_HOP {
        headers.remove(name);
    }
    let trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    insert(headers, CALLER, onward.caller);
    if onward.priority != Priority::Normal {
        insert(headers, PRIORITY, onward.priority.as_str());
    }
    add_context(headers);
    if !onward.from_peer {
        add_forwarded(headers, onward);
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn drop_lookalikes(headers: &mut HeaderMap) {
    let lookalikes: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_lookalike(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in &lookalikes {
        headers.remove(name);
    }
}

/// Takes off a request's trailers what only its head may say.
pub(super) fn trailers(trailers: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for name in trailers
        .keys()
        .filter(|name| !is_only_in_heads(name.as_str().as_bytes()))
    {
        for value in trailers.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// HTTP/2 may cut a cookie into several fields, HTTP/1.1 has one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// A trace and a correlation id are made where there is none. The router makes no span of its
/// own, so a trace goes on as it came.
fn add_context(headers: &mut HeaderMap) {
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values
            .next()
            .filter(|_| values.next().is_none())
            .map(HeaderValue::as_bytes)
    };
    let traced = one(&TRACEPARENT).and_then(TraceParent::parse).is_some();
    let correlated = one(&CORRELATION_ID).is_some_and(CorrelationId::is_valid);
    if !traced {
        insert(headers, TRACEPARENT, &TraceParent::generate().to_string());
    }
    if !correlated {
        insert(headers, CORRELATION_ID, CorrelationId::generate().as_str());
    }
}

fn add_forwarded(headers: &mut HeaderMap, onward: &Onward<'_>) {
    let client = &onward.client;
    let claims = headers.get_all(FORWARDED_FOR).iter();
    let mut hops: Vec<String> = claims
        .filter(|_| !client.told)
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect();
    for name in &OF_THE_WAY {
        headers.remove(name);
    }
    if let Some(certificate) = client.certificate {
        insert(headers, CLIENT_CERT, certificate);
    }
    let host = client.host.or(onward.authority);
    if onward.write.has_x_forwarded() {
        hops.push(client.text.to_owned());
        insert(headers, FORWARDED_FOR, &hops.join(", "));
        insert(headers, FORWARDED_PROTO, client.scheme());
        if let Some(host) = host {
            insert(headers, FORWARDED_HOST, host);
        }
        if let Some(port) = client.port {
            headers.insert(FORWARDED_PORT, port.into());
        }
    }
    if onward.write.has_forwarded() {
        let mut element = Vec::new();
        client.write_forwarded(host.unwrap_or_default(), &mut element);
        if let Ok(element) = HeaderValue::from_bytes(&element) {
            headers.insert(header::FORWARDED, element);
        }
    }
}

/// What depends on the way and on the time: the prefix that was cut off, the instance behind
/// another node and the token for that node, and what is left of the time, in the form in which it
/// came.
pub(super) fn finish(headers: &mut HeaderMap, way: &Way<'_>, left: Option<Duration>) {
    for (name, value) in [
        (
            FORWARDED_PREFIX,
            Some(way.cut).filter(|cut| !cut.is_empty()),
        ),
        (TO, way.to.map(str::as_bytes)),
        (TOKEN, way.token),
    ] {
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    let Some(left) = left.map(Timeout::new) else {
        return;
    };
    for name in TIMEOUTS
        .iter()
        .filter(|name| headers.contains_key(*name))
        .collect::<Vec<_>>()
    {
        let text = match name.as_str() {
            ours::GRPC_TIMEOUT => left.to_grpc(),
            _ => left.to_millis().to_string(),
        };
        insert(headers, name.clone(), &text);
    }
}

/// The target and the headers that name the host, as the instance's protocol has them.
pub(super) fn address(
    headers: &mut HeaderMap,
    authority: &str,
    path: &[u8],
    http2: bool,
) -> Option<Uri> {
    let path = std::str::from_utf8(path).ok()?;
    if http2 {
        headers.remove(header::HOST);
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path);
        return uri.build().ok();
    }
    join_cookies(headers);
    insert(headers, header::HOST, authority);
    path.parse().ok()
}

/// Takes off an answer what ends here, and puts back the prefix that was cut off.
pub(super) fn answer(status: http::StatusCode, headers: &mut HeaderMap, cut: &[u8]) {
    drop_hop_by_hop(headers);
    headers.remove(UNSENT);
    headers.remove(BROKEN);
    let redirects = status.is_redirection() || status == http::StatusCode::CREATED;
    let location = headers
        .get(header::LOCATION)
        .filter(|_| redirects && !cut.is_empty());
    let Some(location) = location.map(HeaderValue::as_bytes) else {
        return;
    };
    let is_path = location.starts_with(b"/") && !location.starts_with(b"//");
    if let (true, Ok(whole)) = (is_path, HeaderValue::from_bytes(&[cut, location].concat())) {
        headers.insert(header::LOCATION, whole);
    }
}

impl rule::Fields for HeaderMap {
    fn any(&self, name: &str, accepts: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut values = self.get_all(name).iter();
        values.any(|value| accepts(value.as_bytes()))
    }
}

/// Changes a head as a rule says.
pub(super) fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for name in changes.remove.iter().chain(changes.set.keys()) {
        headers.remove(name.as_str());
    }
    for (name, value) in changes.comes() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.as_str())) {
            headers.append(name, value);
        }
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
