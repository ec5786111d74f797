use std::fmt::Write;

use hydrant_contracts::{InstanceId, ServiceId, proto};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest line, in bytes; what is longer is cut.
pub(super) const MAX_LINE: usize = 16 * 1024;
/// What stands where a line was cut.
pub(super) const CUT: &str = "… [cut]";

/// Where a process wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// The stream as it stands in a log line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A line that a process printed, in the one format of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was printed, in milliseconds since 1970: as the line tells, else when it was read.
    pub time: i64,
    /// The service.
    pub service: ServiceId,
    /// The process of it.
    pub instance: InstanceId,
    /// Where it was written.
    pub stream: Stream,
    /// `error`, `warn`, `info`, `debug` or `trace`; empty when the line does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub level: String,
    /// What it says. Without control characters.
    pub message: String,
    /// What else a structured line tells.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl LogLine {
    /// Reads a line as a process printed it, without its line break: a JSON object with a
    /// `message`, or plain text.
    pub(super) fn read(
        service: &ServiceId,
        instance: &InstanceId,
        stream: Stream,
        text: &[u8],
        now: i64,
    ) -> Self {
        let mut line = LogLine {
            time: now,
            service: service.clone(),
            instance: instance.clone(),
            stream,
            level: String::new(),
            message: String::new(),
            fields: Map::new(),
        };
        match structured(text) {
            Some(fields) => line.take(fields),
            None => line.message = printable(&String::from_utf8_lossy(text)),
        }
        line
    }

    fn take(&mut self, mut fields: Map<String, Value>) {
        if let Some(Value::String(message)) = fields.remove("message") {
            self.message = printable(&message);
        }
        if let Some(time) = fields.get("time").and_then(Value::as_i64)
            && time > 0
        {
            self.time = time;
            fields.remove("time");
        }
        if let Some(level) = fields.get("level").and_then(Value::as_str).and_then(level) {
            self.level = level.into();
            fields.remove("level");
        }
        self.fields = fields;
    }

    /// The message and the fields, as people read them: `started address=127.0.0.1:80`.
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(value) => printable(value),
                other => printable(&other.to_string()),
            };
            // Writing to a string can't fail.
            let _ = write!(text, " {}={value}", printable(name));
        }
        text
    }
}

impl From<&LogLine> for proto::LogLine {
    fn from(line: &LogLine) -> Self {
        proto::LogLine {
            time_unix_ms: line.time,
            service: line.service.to_string(),
            instance: line.instance.to_string(),
            stream: line.stream.as_str().into(),
            level: line.level.clone(),
            message: line.text(),
            ..Default::default()
        }
    }
}

fn structured(text: &[u8]) -> Option<Map<String, Value>> {
    if text.first() != Some(&b'{') {
        return None;
    }
    let fields: Map<String, Value> = serde_json::from_slice(text).ok()?;
    fields
        .get("message")
        .is_some_and(Value::is_string)
        .then_some(fields)
}

fn level(text: &str) -> Option<&'static str> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    LEVELS
        .into_iter()
        .find(|level| text.eq_ignore_ascii_case(level))
}

/// Escapes what could forge a line or steer a terminal. Colours are left out.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = behind_colour(rest) {
            rest = after;
            continue;
        }
        match next {
            '\t' => printable.push(' '),
            next if is_steering(next) => printable.extend(next.escape_unicode()),
            next => printable.push(next),
        }
        rest = &rest[next.len_utf8()..];
    }
    printable
}

/// What follows a terminal's colour sequence that the text begins with.
fn behind_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].strip_prefix('m')
}

/// Control characters, line separators, and those that turn the direction of the text around.
fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> LogLine {
        let (service, instance) = ("api/a".parse().unwrap(), "a-1".parse().unwrap());
        LogLine::read(&service, &instance, Stream::Stderr, text, 7)
    }

    #[test]
    fn a_structured_line_is_taken_apart() {
        let line = read(br#"{"time":5,"level":"WARN","target":"a","message":"slow","ms":12}"#);
        assert_eq!((line.time, &*line.level), (5, "warn"));
        assert_eq!(line.text(), r#"slow ms=12 target=a"#);
    }

    #[test]
    fn anything_else_is_text() {
        for text in [r#"{"a":1}"#, r#"{"message":1}"#, "{", "127.0.0.1 GET /"] {
            let line = read(text.as_bytes());
            assert_eq!((line.time, &*line.message), (7, text));
        }
        assert_eq!(read(b"\xff!").message, "\u{fffd}!");
    }

    #[test]
    fn nothing_forges_a_line_or_steers_a_terminal() {
        assert_eq!(
            read(b"a\rb\x1b[2Jc\x07").message,
            "a\\u{d}b\\u{1b}[2Jc\\u{7}"
        );
        assert_eq!(read(b"\x1b[1;32mok\x1b[0m").message, "ok");
        assert_eq!(
            read("x\u{202e}y\u{2028}z".as_bytes()).message,
            "x\\u{202e}y\\u{2028}z"
        );
        let forged = read(br#"{"message":"a\n{}","user":"b\nc"}"#);
        assert_eq!(forged.text(), "a\\u{a}{} user=b\\u{a}c");
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!read(&bytes).text().chars().any(is_steering));
        }
    }
}
