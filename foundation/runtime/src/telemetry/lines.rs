use std::borrow::Cow;
use std::fmt::{Debug, Write as _};
use std::io::Write;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::pour;
use crate::redaction::MASK;
use crate::{Clock, Redaction, client};

/// The field of a span that holds a [`client::Client`], as it shows itself.
const CLIENT: &str = "hydrant.client";
/// The target of what dependencies log by the crate `log`, and the field that has their own.
const FOREIGN: (&str, &str) = ("log", "log.target");
/// Names that a line has already.
const OWN: [&str; 3] = ["time", "level", "target"];
/// The longest text of one field, in bytes; what is longer is cut.
const LONGEST: usize = 8 * 1024;
/// So much of a text is looked at.
const MOST_READ: usize = 64 * 1024;
/// So far before the end of what is looked at, a secret may be there that goes on behind it.
const UNSURE: usize = 1024;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object a line: `time` (milliseconds since 1970), `level`, `target`, `message`, and the
    /// fields of the spans around the event and of the event itself, side by side; of two of one name
    /// the inner one is told.
    Json,
    /// For people: time, level, message and fields.
    Plain,
}

/// Writes each event on a line, without what must not be shown.
pub(super) struct Lines<W> {
    form: Form,
    clock: Clock,
    writer: fn() -> W,
    rules: &'static Redaction,
}

impl<W> Lines<W> {
    pub(super) fn new(form: Form, writer: fn() -> W, rules: &'static Redaction) -> Self {
        Self {
            form,
            clock: Clock::system(),
            writer,
            rules,
        }
    }
}

/// The fields of a span, as its extension keeps them: in order, the later ones count. Every request has
/// a span and few have events, so nothing is looked up or taken out before an event is told.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl<W, S> Layer<S> for Lines<W>
where
    W: Write + 'static,
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(Vec::with_capacity(attributes.fields().len()));
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        // A value that panics while it is read tells so on a line, for which the span is asked.
        let mut later = Fields::default();
        values.record(&mut later);
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.0.append(&mut later.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        if let Some(spans) = context.event_scope(event) {
            for span in spans.from_root() {
                if let Some(Fields(outer)) = span.extensions().get::<Fields>() {
                    fields.0.extend(outer.iter().cloned());
                }
            }
        }
        event.record(&mut fields);
        let about = event.metadata();
        let line = Line {
            time: self.clock.unix_ms(),
            level: *about.level(),
            target: about.target().into(),
            fields: fields.0,
            rules: self.rules,
        };
        self.write(line);
    }
}

impl<W: Write> Lines<W> {
    fn write(&self, line: Line) {
        let line = line.by_its_own_target();
        let mut text = match self.form {
            Form::Json => line.json(),
            Form::Plain => line.plain(),
        };
        pour(|| match self.form {
            Form::Json => text.clone(),
            Form::Plain => line.json(),
        });
        text.push('\n');
        // A log that can't be written has nowhere to say so.
        let _ = (self.writer)().write_all(text.as_bytes());
    }
}

/// An event with all that is told of it.
struct Line {
    time: i64,
    level: Level,
    target: Cow<'static, str>,
    fields: Vec<(&'static str, Value)>,
    rules: &'static Redaction,
}

impl Line {
    /// What a dependency has logged by the crate `log` has its place in fields.
    fn by_its_own_target(mut self) -> Self {
        let (foreign, target) = FOREIGN;
        if self.target != foreign {
            return self;
        }
        if let Some((_, Value::String(target))) =
            self.fields.iter().find(|(name, _)| *name == target)
        {
            self.target = target.clone().into();
        }
        self.fields.retain(|(name, _)| !name.starts_with("log."));
        self
    }

    fn json(&self) -> String {
        let mut text = String::with_capacity(256);
        // Writing to a string can't fail.
        let _ = write!(
            text,
            r#"{{"time":{},"level":"{}","target":"#,
            self.time,
            name_of(self.level)
        );
        quote(&mut text, &self.rules.line(&self.target));
        for (name, value) in self.told() {
            text.push(',');
            quote(&mut text, name);
            text.push(':');
            match self.shown(name, value) {
                Shown::Text(value) => quote(&mut text, &value),
                Shown::Other(value) => text += &value,
            }
        }
        text.push('}');
        text
    }

    fn plain(&self) -> String {
        let time = jiff::Timestamp::from_millisecond(self.time).unwrap_or_default();
        let level = name_of(self.level).to_ascii_uppercase();
        let mut text = format!("{time:.3} {level:>5} ");
        let mut fields = String::new();
        for (name, value) in self.told() {
            let value = match self.shown(name, value) {
                Shown::Text(value) => value,
                Shown::Other(value) => value.into(),
            };
            match name {
                "message" => text += &value,
                name => fields += &format!(" {name}={value}"),
            }
        }
        text + &fields
    }

    /// The fields that are told: of two of one name the later one, and each of those of a client.
    fn told(&self) -> impl Iterator<Item = (&'static str, Told<'_>)> {
        let fields = self.fields.iter().enumerate();
        let last = fields.filter(|(at, (name, _))| {
            let mut later = self.fields[at + 1..].iter();
            !OWN.contains(name) && !later.any(|(other, _)| other == name)
        });
        last.flat_map(|(_, (name, value))| {
            let client = match value {
                Value::String(text) if *name == CLIENT => Some(text.as_str()),
                _ => None,
            };
            let own = client.is_none().then_some((*name, Told::Value(value)));
            let of_client = client.map(client::fields).into_iter().flatten();
            own.into_iter()
                .chain(of_client.map(|(name, value)| (name, Told::Client(value))))
        })
    }

    /// Cut behind the rules: half a secret would not be known for one.
    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let read = begin(text, MOST_READ);
        let clean = self.rules.line(read);
        let sure = match read.len() == text.len() {
            true => clean.len(),
            false => clean.len().saturating_sub(UNSURE),
        };
        match clean.len() <= LONGEST.min(sure) {
            true => clean,
            false => Cow::Owned(format!("{}… [cut]", begin(&clean, LONGEST.min(sure)))),
        }
    }

    fn shown<'a>(&self, name: &str, told: Told<'a>) -> Shown<'a> {
        match told {
            Told::Client(text) => Shown::Text(text.into()),
            Told::Value(Value::String(_)) if self.rules.is_secret_name(name) => {
                Shown::Text(MASK.into())
            }
            Told::Value(Value::String(text)) => Shown::Text(self.text(text)),
            Told::Value(other) => match self.rules.field(name, other.clone()) {
                Value::String(text) => Shown::Text(text.into()),
                other => Shown::Other(other.to_string()),
            },
        }
    }
}

/// A value as it came: of a field, or of a client, whose values are clean.
enum Told<'a> {
    Value(&'a Value),
    Client(&'a str),
}

/// A value as it is shown: a text, or the JSON of a number or a truth.
enum Shown<'a> {
    Text(Cow<'a, str>),
    Other(String),
}

fn name_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn quote(text: &mut String, value: &str) {
    // A text is always JSON.
    text.push_str(&serde_json::to_string(value).unwrap_or_default());
}

/// The beginning of a text, of so many bytes at most.
fn begin(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests;
