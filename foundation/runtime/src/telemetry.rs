//! What a process tells about itself: one JSON object a line on standard error, or plain lines for
//! a person at a terminal.

use std::io::{IsTerminal, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Clock;

/// The variable that chooses levels, as `info,hydrant_router=debug`.
const LEVELS: &str = "HYDRANT_LOG";

/// Begins to log: JSON unless standard error is a terminal. Call once, first thing in `main`.
pub fn start() {
    let levels = EnvFilter::try_from_env(LEVELS).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, as in tests, keeps the first subscriber.
    let _ = if std::io::stderr().is_terminal() {
        let plain = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .compact();
        tracing_subscriber::registry()
            .with(levels)
            .with(plain)
            .try_init()
    } else {
        let json = JsonLines::new(std::io::stderr);
        tracing_subscriber::registry()
            .with(levels)
            .with(json)
            .try_init()
    };
}

/// One object a line: `time` (milliseconds since 1970), `level`, `target`, `message`, and the
/// fields of the spans around the event and of the event itself, side by side; of two of one name
/// the inner one is told. JSON escapes what could forge a line.
struct JsonLines<W> {
    clock: Clock,
    writer: fn() -> W,
}

impl<W> JsonLines<W> {
    fn new(writer: fn() -> W) -> Self {
        Self {
            clock: Clock::system(),
            writer,
        }
    }
}

/// The fields of a span, as its extension keeps them: in order, the later ones count. Every request has
/// a span and few have events, so nothing is looked up before an event is told.
struct Fields(Vec<(&'static str, Value)>);

impl<W, S> Layer<S> for JsonLines<W>
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
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields(Vec::new());
        if let Some(spans) = context.event_scope(event) {
            for span in spans.from_root() {
                if let Some(Fields(outer)) = span.extensions().get::<Fields>() {
                    fields.0.extend(outer.iter().cloned());
                }
            }
        }
        event.record(&mut fields);
        let named = fields.0.into_iter();
        let mut line: Map<_, _> = named
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let about = event.metadata();
        line.insert("time".into(), self.clock.unix_ms().into());
        line.insert("level".into(), about.level().as_str().to_lowercase().into());
        line.insert("target".into(), about.target().into());
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A log that can't be written has nowhere to say so.
        let _ = (self.writer)().write_all(text.as_bytes());
    }
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
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
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    struct IntoLines;

    impl Write for IntoLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const FORGED: &str = "\n{\"level\":\"error\"}";

    #[test]
    fn a_line_has_the_fields_of_the_spans_around_it() {
        let layer = JsonLines::new(|| IntoLines);
        let _guard = tracing_subscriber::registry().with(layer).set_default();
        let span =
            tracing::info_span!("request", trace_id = "4bf9", caller = tracing::field::Empty);
        span.in_scope(|| {
            tracing::Span::current().record("caller", "api/shop");
            tracing::info_span!("step", number = 7, trace_id = "inner")
                .in_scope(|| tracing::warn!(ok = false, "paid{FORGED}"));
        });
        let lines = LINES.with_borrow(|lines| String::from_utf8(lines.clone()).unwrap());
        assert_eq!(
            lines.matches('\n').count(),
            1,
            "one event is one line: {lines}"
        );
        let line: Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(line["message"], format!("paid{FORGED}"));
        assert_eq!(line["level"], "warn");
        assert_eq!(line["caller"], "api/shop");
        assert_eq!(line["trace_id"], "inner");
        assert_eq!((&line["number"], &line["ok"]), (&7.into(), &false.into()));
        assert!(line["time"].as_i64().unwrap() > 0);
    }
}
