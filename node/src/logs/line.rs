use std::borrow::Cow;
use std::fmt::Write;

use hydrant_contracts::{InstanceId, ServiceId, proto};
use hydrant_runtime::Redaction;
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
    /// What it says, without what must not be shown, without markup and control characters.
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
        let mut fields = Value::Object(fields);
        Redaction::shared().document(&mut fields);
        if let Value::Object(fields) = fields {
            self.fields = fields;
        }
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

/// The text as part of a line: without colours, without what must not be shown, and without what could
/// forge a line or steer a terminal.
fn printable(text: &str) -> String {
    let text = without_colours(text);
    Redaction::shared().line(&text).into_owned()
}

fn without_colours(text: &str) -> Cow<'_, str> {
    if !text.contains("\u{1b}[") {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(escape) = rest.find('\u{1b}') {
        let (before, at) = rest.split_at(escape);
        plain.push_str(before);
        rest = behind_colour(at).unwrap_or_else(|| {
            plain.push('\u{1b}');
            &at[1..]
        });
    }
    Cow::Owned(plain + rest)
}

/// What follows a terminal's colour sequence that the text begins with.
fn behind_colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].strip_prefix('m')
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
            let text = read(&bytes).text();
            prop_assert!(!text.chars().any(|c| c.is_control() || "<>".contains(c)));
        }
    }

    #[test]
    fn what_foreign_programs_print_is_redacted_too() {
        for text in [
            "paid with 4111 1111 1111 1111 by a@b.com, password=hunter2",
            "pass\u{1b}[1mword\u{1b}[0m=hunter2 4111\u{1b}[0m111111111111 a@b.com",
            r#"{"message":"card 4111-1111-1111-1111","user":{"password":"hunter2","mail":"a@b.com"}}"#,
            r#"{"message":"x","token":"hunter2","n":4111111111111111,"a@b.com":1}"#,
            r#"{"level":"info","msg":"a@b.com","ssn":123456789,"n":4111111111111111}"#,
        ] {
            let line = read(text.as_bytes());
            let stored = serde_json::to_string(&line).unwrap();
            for shown in [line.text(), stored] {
                for secret in ["hunter2", "4111", "1111", "a@b", "123456789"] {
                    assert!(!shown.contains(secret), "{secret} in {shown}");
                }
            }
        }
        assert_eq!(read(b"<b>x</b>").message, "&lt;b&gt;x&lt;/b&gt;");
    }
}
