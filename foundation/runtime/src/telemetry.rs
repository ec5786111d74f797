//! What a process tells about itself: one JSON object a line on standard error, or plain lines for
//! a person at a terminal.

use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::Clock;

/// The variable that chooses levels, as `info,hydrant_router=debug`.
const LEVELS: &str = "HYDRANT_LOG";

/// Begins to log: JSON unless standard error is a terminal. Call once, first thing in `main`.
pub fn start() {
    let levels = EnvFilter::try_from_env(LEVELS).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(levels)
        .with_writer(std::io::stderr);
    // A second call, as in tests, keeps the first subscriber.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder.event_format(JsonLines).try_init()
    };
}

/// One object a line: `time` (milliseconds since 1970), `level`, `target`, `message`, and the
/// fields of the event and of the spans around it. JSON escapes what could forge a line.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), Clock::system().unix_ms().into());
        line.insert(
            "level".into(),
            event.metadata().level().as_str().to_lowercase().into(),
        );
        line.insert("target".into(), event.metadata().target().into());
        if let Some(spans) = context.event_scope() {
            for span in spans.from_root() {
                let extensions = span.extensions();
                if let Some(fields) =
                    extensions.get::<tracing_subscriber::fmt::FormattedFields<N>>()
                    && !fields.is_empty()
                {
                    line.insert(span.name().into(), fields.fields.as_str().into());
                }
            }
        }
        event.record(&mut IntoMap(&mut line));
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

struct IntoMap<'a>(&'a mut serde_json::Map<String, serde_json::Value>);

impl Visit for IntoMap<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0
            .insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}
