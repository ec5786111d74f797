use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bucket::{SLOTS, Slot};
use crate::name::{InvalidName, ServiceId, is_dns_label, validated_string};
use crate::tier::Tier;

/// The name of a rule, unique in the fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(Arc<str>);

validated_string!(
    RuleName,
    "rule name",
    "write 1 to 63 of the characters a-z, 0-9 and '-', with a letter or digit at both ends",
    is_dns_label
);

/// The name of a header field, in small letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(Arc<str>);

validated_string!(
    HeaderName,
    "header name",
    "write 1 to 64 of the characters a-z, 0-9, '-', '_' and '.', as x-beta",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(is_of_header_name)
);

fn is_of_header_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
}

/// What frames a message, says who sent it, or is the router's own: no rule changes it.
const FIXED: [&str; 19] = [
    "connection",
    "connect-timeout-ms",
    "content-length",
    "correlation-id",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];
const FIXED_BEGINNINGS: [&str; 2] = ["hydrant-", "x-forwarded-"];

impl HeaderName {
    /// Whether a rule may set, add or remove it. Servers exist that take another sign for `-`.
    pub fn may_change(&self) -> bool {
        let plain: String = (self.0.chars())
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        !FIXED.contains(&plain.as_str())
            && !FIXED_BEGINNINGS
                .iter()
                .any(|start| plain.starts_with(start))
    }
}

/// The value of a header field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderText(Arc<str>);

validated_string!(
    HeaderText,
    "header value",
    "write at most 1024 visible ASCII characters and spaces, with no space at either end",
    |text| {
        let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        text.len() <= 1024 && text.bytes().all(visible) && text.trim() == text
    }
);

/// A method of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpMethod(Arc<str>);

validated_string!(
    HttpMethod,
    "method",
    "write 1 to 32 capital letters and '-', as GET",
    |text| {
        let capital = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
        (1..=32).contains(&text.len()) && text.bytes().all(capital)
    }
);

/// A host as it is addressed, without its port: a name, or `*.` and the end of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(Arc<str>);

validated_string!(
    HostPattern,
    "host",
    "write a name in small letters without a port, as shop.example.com, or *.example.com for all below it",
    |text| {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let part = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte)
        };
        let has_port = !name.starts_with('[') && name.contains(':');
        (1..=253).contains(&name.len()) && name.bytes().all(part) && !has_port
    }
);

impl HostPattern {
    /// Whether a request to `host`, with or without a port, is meant.
    pub fn covers(&self, host: &str) -> bool {
        let name = without_port(host);
        match self.0.strip_prefix('*') {
            None => name.eq_ignore_ascii_case(&self.0),
            Some(end) => {
                let start = name.len().checked_sub(end.len());
                let tail = start.filter(|start| *start > 0);
                tail.and_then(|start| name.get(start..))
                    .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
        }
    }
}

fn without_port(host: &str) -> &str {
    match (host.rfind(':'), host.rfind(']')) {
        (Some(colon), bracket) if bracket.is_none_or(|bracket| colon > bracket) => &host[..colon],
        _ => host,
    }
}

/// What makes the draw of one rule another than that of the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt(Arc<str>);

validated_string!(
    Salt,
    "salt",
    "write 1 to 200 visible ASCII characters without ':', as experiment/new-checkout",
    |text| {
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        (1..=200).contains(&text.len()) && text.bytes().all(visible)
    }
);

/// Who calls, as a token proved it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallerPattern {
    /// Whoever has no token.
    Outside,
    /// A person at the command line.
    Operator,
    /// Every service of a tier.
    Tier(Tier),
    /// One service.
    Service(ServiceId),
}

impl CallerPattern {
    /// Whether this caller is meant.
    pub fn covers(&self, caller: &crate::Caller) -> bool {
        use crate::{Caller, Identity};
        match (self, caller) {
            (Self::Outside, Caller::Outside)
            | (Self::Operator, Caller::Known(Identity::Operator)) => true,
            (Self::Tier(tier), Caller::Known(Identity::Service(service))) => service.tier == *tier,
            (Self::Service(wanted), Caller::Known(Identity::Service(service))) => wanted == service,
            _ => false,
        }
    }
}

impl FromStr for CallerPattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "write outside, operator, a service as api/mobile, or api/* for a whole tier";
        let parsed = match (text, text.strip_suffix("/*")) {
            ("outside", _) => Some(Self::Outside),
            ("operator", _) => Some(Self::Operator),
            (_, Some(tier)) => tier.parse().ok().map(Self::Tier),
            _ => text.parse().ok().map(Self::Service),
        };
        parsed.ok_or_else(|| InvalidName::new("caller", text, rule))
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("outside"),
            Self::Operator => f.write_str("operator"),
            Self::Tier(tier) => write!(f, "{tier}/*"),
            Self::Service(service) => service.fmt(f),
        }
    }
}

/// Where a request says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// The value of a header field.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The value of a parameter of the query.
    Query(Arc<str>),
    /// The client's address, as this fleet sees it.
    Address,
}

impl FromStr for Source {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule =
            "write 'header NAME', 'cookie NAME', 'query NAME' or 'address', as 'header user-id'";
        let refuse = || InvalidName::new("source of an id", text, rule);
        let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
        match (kind, name) {
            ("address", "") => Ok(Self::Address),
            ("header", name) => name.parse().map(Self::Header).map_err(|_| refuse()),
            ("cookie", name) if is_parameter(name) => Ok(Self::Cookie(name.into())),
            ("query", name) if is_parameter(name) => Ok(Self::Query(name.into())),
            _ => Err(refuse()),
        }
    }
}

/// Whether it may name a cookie or a parameter of a query.
pub(super) fn is_parameter(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Address => f.write_str("address"),
        }
    }
}

/// The longest time-out of a rule.
const MAX_SPAN_MS: u64 = 3_600_000;

/// A length of time, from 1 ms to an hour: `500ms`, `2s`, `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u32);

impl Span {
    /// The time as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl FromStr for Span {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "write a whole number and one of ms, s and m, from 1ms to 60m, as 500ms or 2s";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let factor = match &text[digits..] {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            _ => None,
        };
        let ms = text[..digits].parse::<u64>().ok().zip(factor);
        let ms = ms.and_then(|(number, factor)| number.checked_mul(factor));
        let ms = ms.filter(|ms| (1..=MAX_SPAN_MS).contains(ms));
        ms.map(|ms| Self(ms as u32))
            .ok_or_else(|| InvalidName::new("time", text, rule))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// Implements what a value that is written as text needs in JSON and TOML.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )*};
}
pub(super) use as_text;

as_text!(CallerPattern, Source, Span);

/// A share in percent, with at most two digits behind the point: so many hundreds of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "f64")]
pub struct Percent(u16);

impl Percent {
    /// How many of the [`SLOTS`] it is.
    pub fn slots(self) -> u16 {
        self.0
    }

    /// Whether a slot is among the first of so many percent. Who is in at 5 % is in at 10 %, too.
    pub fn covers(self, slot: Slot) -> bool {
        slot.number() < self.0
    }
}

impl TryFrom<f64> for Percent {
    type Error = InvalidName;

    fn try_from(percent: f64) -> Result<Self, InvalidName> {
        let slots = percent * 100.0;
        let is_whole = (slots - slots.round()).abs() < 1e-6;
        if is_whole && (0.0..=f64::from(SLOTS)).contains(&slots.round()) {
            return Ok(Self(slots.round() as u16));
        }
        let rule =
            "write a number from 0 to 100, with at most two digits behind the point, as 5 or 0.25";
        Err(InvalidName::new(
            "share in percent",
            &percent.to_string(),
            rule,
        ))
    }
}

impl From<Percent> for f64 {
    fn from(percent: Percent) -> f64 {
        f64::from(percent.0) / 100.0
    }
}

/// Without a point where none is needed.
impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 100 {
            0 => serializer.serialize_u16(self.0 / 100),
            _ => serializer.serialize_f64(f64::from(*self)),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        let covers =
            |pattern: &str, host: &str| pattern.parse::<HostPattern>().unwrap().covers(host);
        for (pattern, host, expected) in [
            ("shop.example.com", "Shop.example.com:8080", true),
            ("shop.example.com", "shop.example.com", true),
            ("shop.example.com", "a.shop.example.com", false),
            ("*.example.com", "shop.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "badexample.com", false),
            ("[::1]", "[::1]:80", true),
            ("*.example.com", "ä", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        for bad in ["", "*", "Shop.com", "shop.com:80", "a b", "*.*.com"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_frames_a_message_is_not_changed() {
        let may = |name: &str| name.parse::<HeaderName>().unwrap().may_change();
        for name in [
            "host",
            "content_length",
            "hydrant-caller",
            "x_forwarded.for",
            "te",
        ] {
            assert!(!may(name), "{name}");
        }
        for name in ["x-beta", "cache-control", "user_id", "hydrants"] {
            assert!(may(name), "{name}");
        }
    }

    #[test]
    fn times_and_shares_read_as_they_are_written() {
        for text in ["1ms", "1500ms", "2s", "60m"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "0s",
            "61m",
            "2",
            "2 s",
            "-1s",
            "99999999999999999999s",
            "1h",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for (percent, slots) in [
            (0.0, 0),
            (0.01, 1),
            (5.0, 500),
            (33.33, 3333),
            (100.0, 10_000),
        ] {
            assert_eq!(Percent::try_from(percent).unwrap().slots(), slots);
        }
        for bad in [-1.0, 100.01, 0.001, f64::NAN, f64::INFINITY] {
            assert!(Percent::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn callers_and_sources_read_as_they_are_written() {
        for text in ["outside", "operator", "api/*", "service/mobile"] {
            assert_eq!(text.parse::<CallerPattern>().unwrap().to_string(), text);
        }
        for text in ["header user-id", "cookie session", "query u", "address"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for bad in ["header", "header User", "cookie a=b", "address x", "body"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
