use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The headers that carry context from hop to hop.
pub mod header {
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// Names one piece of work of a client through all its hops and logs.
    pub const CORRELATION_ID: &str = "correlation-id";
    /// Names one request that a client may send again, as a UUID: it counts once.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// The deadline of a Connect call, in milliseconds from now.
    pub const CONNECT_TIMEOUT: &str = "connect-timeout-ms";
    /// The deadline of a gRPC call, as `150m` or `2S`.
    pub const GRPC_TIMEOUT: &str = "grpc-timeout";
    /// The deadline of a plain HTTP request, in milliseconds from now.
    pub const TIMEOUT: &str = "hydrant-timeout-ms";
    /// How much the request matters when there are too many: `low`, `normal` or `high`.
    pub const PRIORITY: &str = "hydrant-priority";
    /// The token that proves who calls; taken off by the router.
    pub const TOKEN: &str = "hydrant-token";
    /// Who calls, as the router proved it: `tier/service`, `operator` or `outside`.
    pub const CALLER: &str = "hydrant-caller";
    /// Which server's node is asked, by its name; on `/service/node/…` of the local listener.
    pub const SERVER: &str = "hydrant-server";
    /// Between nodes, on a request: the id of the instance that the first node has chosen.
    pub const TO: &str = "hydrant-to";
    /// Between nodes, on an answer: the instance has seen nothing of the request, so that the
    /// first node may try another. Its value says why.
    pub const UNSENT: &str = "hydrant-unsent";
    /// Between nodes, on an answer: the instance broke off after it had seen the request, or a part
    /// of it, so that the first node may repeat what is safe to repeat. Its value says how.
    pub const BROKEN: &str = "hydrant-broken";
    /// To an instance: what the router knows of the certificate that the client has shown. Never a
    /// client's own claim.
    pub const CLIENT_CERT: &str = "hydrant-client-cert";
    /// What was cut off the path before the instance saw it.
    pub const FORWARDED_PREFIX: &str = "x-forwarded-prefix";
}

/// The longest deadline that is honoured; a longer one is cut to it.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How long a caller is ready to wait, from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Duration);

impl Timeout {
    /// At most a day.
    pub fn new(duration: Duration) -> Self {
        Self(duration.min(MAX_TIMEOUT))
    }

    /// The time as a duration.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// Milliseconds: at most 10 digits, as Connect has them.
    pub fn from_millis(text: &[u8]) -> Option<Self> {
        parse_digits(text, 10).map(|ms| Self::new(Duration::from_millis(ms)))
    }

    /// As gRPC writes it: at most 8 digits and one of the units H, M, S, m, u, n.
    pub fn from_grpc(text: &[u8]) -> Option<Self> {
        let (unit, digits) = text.split_last()?;
        let count = parse_digits(digits, 8)?;
        let duration = match unit {
            b'H' => Duration::from_secs(count * 3600),
            b'M' => Duration::from_secs(count * 60),
            b'S' => Duration::from_secs(count),
            b'm' => Duration::from_millis(count),
            b'u' => Duration::from_micros(count),
            b'n' => Duration::from_nanos(count),
            _ => return None,
        };
        Some(Self::new(duration))
    }

    /// As gRPC writes it, rounded up to milliseconds.
    pub fn to_grpc(self) -> String {
        format!("{}m", self.to_millis())
    }

    /// Whole milliseconds, rounded up so that a short rest does not become none.
    pub fn to_millis(self) -> u64 {
        self.0.as_nanos().div_ceil(1_000_000) as u64
    }
}

fn parse_digits(text: &[u8], most: usize) -> Option<u64> {
    if text.is_empty() || text.len() > most || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
    )
}

/// W3C trace context, version 00.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// The length of its text, in bytes.
    pub const LEN: usize = 55;

    /// A new trace, not sampled.
    pub fn generate() -> Self {
        Self {
            trace: fastrand::u128(1..),
            parent: fastrand::u64(1..),
            flags: 0,
        }
    }

    /// The same trace with a new parent: what a hop sends on.
    pub fn child(self) -> Self {
        Self {
            parent: fastrand::u64(1..),
            ..self
        }
    }

    /// The trace that it belongs to, as it stands in the text.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The header's value. The router writes one for each request, where formatting would be a tenth
    /// of all its own work.
    pub fn to_text(self) -> [u8; Self::LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&self.trace.to_be_bytes(), &mut text[3..35]);
        write_hex(&self.parent.to_be_bytes(), &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..]);
        text
    }

    /// Reads the header; what is malformed counts as missing, as the standard asks.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let dashes = |text: &[u8]| [2, 35, 52].iter().all(|at| text[*at] == b'-');
        if text.len() != Self::LEN || &text[..2] != b"00" || !dashes(text) {
            return None;
        }
        let trace = parse_hex(&text[3..35])?;
        let parent = parse_hex(&text[36..52])? as u64;
        let flags = parse_hex(&text[53..])? as u8;
        (trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        str::from_utf8(&self.to_text()).map_or(Err(fmt::Error), |text| f.write_str(text))
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

/// Two lower case digits for each byte, as far as there is room.
fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Only lower case is allowed by the standard.
fn parse_hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Names one piece of work of a client: 1 to 128 characters out of letters, digits and `-_.:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CorrelationId(String);

impl CorrelationId {
    /// A new one: 32 hex digits without hyphens, so that a UUID that a client made can be told from one
    /// that was made for a request without any.
    pub fn generate() -> Self {
        Self(String::from_utf8_lossy(&Self::generate_text()).into_owned())
    }

    /// The text of a new one.
    pub fn generate_text() -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&fastrand::u128(..).to_be_bytes(), &mut text);
        text
    }

    /// Whether the bytes may stand as a correlation id on a log line.
    pub fn is_valid(text: &[u8]) -> bool {
        (1..=128).contains(&text.len())
            && text.iter().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CorrelationId {
    type Err = crate::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !Self::is_valid(text.as_bytes()) {
            let rule = "it has 1 to 128 letters, digits and '-', '_', '.', ':'";
            return Err(crate::InvalidName::new("correlation id", text, rule));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_in_both_notations() {
        let ms = |text: &str| Timeout::from_millis(text.as_bytes()).map(Timeout::to_millis);
        assert_eq!(ms("250"), Some(250));
        assert_eq!(ms("9999999999"), Some(24 * 3600 * 1000), "cut to a day");
        assert_eq!([ms(""), ms("-1"), ms("1.5"), ms("12345678901")], [None; 4]);
        let grpc = |text: &str| Timeout::from_grpc(text.as_bytes()).map(Timeout::to_millis);
        assert_eq!(grpc("2S"), Some(2000));
        assert_eq!(grpc("150m"), Some(150));
        assert_eq!(grpc("1u"), Some(1), "rounded up");
        assert_eq!(
            [grpc("S"), grpc("2"), grpc("2s"), grpc("123456789S")],
            [None; 4]
        );
    }

    #[test]
    fn trace_parents_follow_the_standard() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(text).unwrap();
        assert_eq!(parsed.to_string().as_bytes(), text);
        assert_eq!(parsed.child().trace_id(), parsed.trace_id());
        for bad in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceParent::parse(&bytes);
            let _ = Timeout::from_grpc(&bytes);
            let _ = Timeout::from_millis(&bytes);
        }
    }

    #[test]
    fn generated_context_is_valid() {
        let trace = TraceParent::generate();
        assert_eq!(
            TraceParent::parse(trace.to_string().as_bytes()),
            Some(trace)
        );
        assert!(CorrelationId::is_valid(
            CorrelationId::generate().as_str().as_bytes()
        ));
        assert!(!CorrelationId::is_valid(b"a b"));
        assert!(!CorrelationId::is_valid(b"a\nb"));
    }
}
