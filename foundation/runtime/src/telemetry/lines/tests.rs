use std::cell::RefCell;

use proptest::prelude::*;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// What is written meanwhile.
fn written(form: Form, told: impl FnOnce()) -> String {
    let lines = Lines::new(form, || IntoLines, Redaction::shared());
    let _guard = tracing_subscriber::registry().with(lines).set_default();
    LINES.take();
    told();
    String::from_utf8(LINES.take()).unwrap()
}

/// The one line that is written meanwhile.
fn line(told: impl FnOnce()) -> Value {
    let lines = written(Form::Json, told);
    assert_eq!(
        lines.matches('\n').count(),
        1,
        "one event is one line: {lines}"
    );
    serde_json::from_str(&lines).unwrap()
}

const FORGED: &str = "\n{\"level\":\"error\"}";

#[test]
fn a_line_has_the_fields_of_the_spans_around_it() {
    let line = line(|| {
        let span =
            tracing::info_span!("request", trace_id = "4bf9", caller = tracing::field::Empty);
        span.in_scope(|| {
            tracing::Span::current().record("caller", "api/shop");
            tracing::info_span!("step", number = 7, trace_id = "inner")
                .in_scope(|| tracing::warn!(ok = false, "paid{FORGED}"));
        });
    });
    assert_eq!(line["message"], r#"paid\u{a}{"level":"error"}"#);
    assert_eq!(line["level"], "warn");
    assert_eq!(line["caller"], "api/shop");
    assert_eq!(line["trace_id"], "inner");
    assert_eq!((&line["number"], &line["ok"]), (&7.into(), &false.into()));
    assert!(line["time"].as_i64().unwrap() > 0);
}

#[test]
fn a_line_tells_for_which_client_the_work_is() {
    let client = "store_id=17 user_id=~5ff860bf1190596c level=error x=1";
    let line = line(|| {
        tracing::info_span!("request", hydrant.client = client).in_scope(|| tracing::info!("x"));
    });
    assert_eq!(
        (&line["store_id"], &line["level"]),
        (&"17".into(), &"info".into())
    );
    assert_eq!(line["user_id"], "~5ff860bf1190596c");
    assert_eq!(line.as_object().unwrap().len(), 6, "{line}");
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is shown")]
struct Login {
    user: &'static str,
    password: Option<&'static str>,
    card: u64,
}

#[test]
fn secrets_are_out_by_name_and_by_what_they_look_like() {
    let login = Login {
        user: "bob",
        password: Some("hunter 2"),
        card: 4111,
    };
    let told = || {
        tracing::info_span!("request", api_key = "hunter2").in_scope(|| {
            tracing::warn!(
                token = 123_456, ssn = %"078051120", note = 4_111_111_111_111_111_u64,
                ratio = 4_111_111_111_111_111.0, ?login, count = 5,
                "mail bob@example.com, see https://a/?token=hunter2&b=1"
            );
        });
    };
    let json = line(told);
    for (field, value) in [
        ("api_key", MASK),
        ("token", MASK),
        ("ssn", MASK),
        ("note", MASK),
        ("ratio", MASK),
        (
            "message",
            "mail [redacted], see https://a/?token=[redacted]&b=1",
        ),
        (
            "login",
            r#"Login { user: "bob", password: [redacted], card: [redacted] }"#,
        ),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    assert_eq!(json["count"], 5);
    let plain = written(Form::Plain, told);
    for secret in ["hunter", "123456", "078051120", "4111", "bob@"] {
        assert!(!plain.contains(secret), "{plain}");
    }
    assert!(
        plain.contains("  WARN mail [redacted], see") && plain.ends_with("count=5\n"),
        "{plain}"
    );
}

#[test]
fn what_dependencies_log_has_their_own_target() {
    let record = line(|| {
        tracing::event!(target: "log", Level::INFO, { log.target = "russh::wire", log.line = 7 }, "password=x");
    });
    assert_eq!(
        (&record["target"], &record["message"]),
        (&"russh::wire".into(), &"password=[redacted]".into())
    );
    assert!(record.get("log.line").is_none());
}

#[test]
fn what_is_too_long_is_cut_behind_the_rules() {
    // Masks are shorter than what they stand for, so that the end of what is read would be shown.
    let secret = format!("token={} ", "x".repeat(500));
    let mut masked = secret.repeat(MOST_READ / secret.len());
    masked += &"y".repeat(MOST_READ - masked.len() - 10);
    let shown = written(Form::Json, || {
        tracing::info!("{masked} 4111 1111 1111 1111")
    });
    assert!(
        !shown.contains("4111") && shown.contains("… [cut]"),
        "{shown}"
    );
    let before = "x".repeat(LONGEST - 8);
    let line = line(|| tracing::info!("{before} 4111111111111111"));
    let message = line["message"].as_str().unwrap();
    assert!(
        message.ends_with("x [redact… [cut]"),
        "{}",
        &message[LONGEST - 20..]
    );
}

proptest! {
    #[test]
    fn no_value_forges_a_line_or_another_field(
        message in any::<String>(), text in any::<String>(), shown in any::<String>(), bytes in any::<Vec<u8>>(),
    ) {
        let lines = written(Form::Json, || {
            tracing::info_span!("outer", shown = %shown, hydrant.client = %shown, before = 1).in_scope(|| {
                tracing::info!(text, bytes = ?bytes, after = true, "{message}");
            });
        });
        prop_assert_eq!(lines.matches('\n').count(), 1);
        prop_assert!(lines.ends_with('\n'));
        let line: serde_json::Map<_, _> = serde_json::from_str(&lines).unwrap();
        prop_assert_eq!(&line["before"], 1);
        prop_assert_eq!(&line["after"], true);
        prop_assert_eq!(&line["level"], "info");
        let known = ["time", "level", "target", "message", "text", "shown", "bytes", "before", "after",
                     "store_id", "user_id", "session_id"];
        prop_assert!(line.keys().all(|name| known.contains(&name.as_str())), "{line:?}");
        for value in line.values().filter_map(Value::as_str) {
            prop_assert!(!value.chars().any(|c| c.is_control() || "<>".contains(c)), "{value:?}");
        }
        let plain = written(Form::Plain, || tracing::info!(text, "{message}"));
        prop_assert_eq!(plain.matches('\n').count(), 1);
        prop_assert!(!plain.trim_end_matches('\n').chars().any(char::is_control));
    }
}

/// Prints what a line costs; compile with optimizations to learn something.
#[test]
fn cost() {
    let lines = Lines::new(Form::Json, std::io::sink, Redaction::shared());
    let _guard = tracing_subscriber::registry().with(lines).set_default();
    let span = tracing::info_span!(
        "request",
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736",
        correlation_id = "0198c5f2-7c1e-7d3a-9b1e-3f6f1a2b3c4d",
        caller = "api/shop"
    );
    span.in_scope(|| {
        let begun = std::time::Instant::now();
        for number in 0..20_000 {
            tracing::info!(
                number,
                address = "127.0.0.1:8081",
                "the leader of service mobile has published a revision and all follow"
            );
        }
        println!("a line: {} ns", begun.elapsed().as_nanos() / 20_000);
    });
}
