//! What the page shows, as its URL says it: so a link shows it again.

use std::fmt::Write as _;

use hydrant_submissions::proto::ListEventsRequest;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::commands::audit::day::Moment;

pub(super) const HOUR: i64 = 3_600_000;
pub(super) const DAY: i64 = 24 * HOUR;
/// The longest window: what is asked in one question has an end.
pub(super) const LONGEST: i64 = 31 * DAY;
/// The longest value that is asked for, in bytes: longer ones are not kept.
const MAX_VALUE: usize = 200;

/// What one can narrow by.
pub(super) const FACETS: [&str; 6] = ["kind", "outcome", "form", "store", "user", "session"];

/// A query as it comes.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Query {
    pub(super) key: String,
    from: String,
    until: String,
    kind: String,
    outcome: String,
    form: String,
    store: String,
    user: String,
    session: String,
    before: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) from: i64,
    pub(super) until: i64,
    /// The values that are asked for, beside [`FACETS`]; empty for all.
    pub(super) values: [String; 6],
    pub(super) before: Option<i64>,
}

impl View {
    /// The view of a query; `None` when it names no window, or none that can be shown.
    pub(super) fn of(query: Query) -> Option<Self> {
        let (from, until) = (moment(&query.from)?, moment(&query.until)?);
        let values = [
            query.kind,
            query.outcome,
            query.form,
            query.store,
            query.user,
            query.session,
        ];
        let fits = values.iter().all(|value| value.len() <= MAX_VALUE);
        let length = until.checked_sub(from)?;
        (fits && (1..=LONGEST).contains(&length)).then(|| Self {
            from,
            until,
            values,
            before: query.before.parse().ok(),
        })
    }

    /// The last 24 hours, to the end of this one.
    pub(super) fn recent(now: i64) -> Self {
        let until = (now.div_euclid(HOUR) + 1) * HOUR;
        Self {
            from: until - DAY,
            until,
            values: Default::default(),
            before: None,
        }
    }

    /// The same from the newest event on, in another window.
    pub(super) fn between(&self, from: i64, until: i64) -> Self {
        Self {
            from,
            until,
            before: None,
            ..self.clone()
        }
    }

    /// The same with another value of a facet; empty for all.
    pub(super) fn with(&self, facet: usize, value: &str) -> Self {
        let mut view = self.clone();
        view.values[facet] = value.into();
        view.before = None;
        view
    }

    pub(super) fn before(&self, event: i64) -> Self {
        Self {
            before: Some(event),
            ..self.clone()
        }
    }

    /// The query that shows it again.
    pub(super) fn query(&self) -> String {
        let mut query = format!("?from={}&until={}", stamp(self.from), stamp(self.until));
        let values = FACETS.iter().zip(&self.values);
        for (name, value) in values.filter(|(_, value)| !value.is_empty()) {
            let _ = write!(query, "&{name}={}", encoded(value));
        }
        if let Some(before) = self.before {
            let _ = write!(query, "&before={before}");
        }
        query
    }

    pub(super) fn request(&self, limit: u32) -> ListEventsRequest {
        let [kind, outcome, form, store, user, session] = self.values.clone();
        ListEventsRequest {
            kind,
            outcome,
            form,
            store,
            user,
            session,
            from_unix_ms: Some(self.from),
            until_unix_ms: Some(self.until),
            before_id: self.before,
            limit,
            ..Default::default()
        }
    }
}

/// A time as [`Moment`] reads it, or as a browser's field for times writes it, which means UTC.
fn moment(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<Moment>() {
        return Some(moment.0);
    }
    let time = text
        .parse::<DateTime>()
        .ok()?
        .to_zoned(TimeZone::UTC)
        .ok()?;
    Some(time.timestamp().as_millisecond())
}

/// `2026-11-20T09:00:00Z`
pub(super) fn stamp(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| String::new(), |time| time.to_string())
}

/// `2026-11-20T09:00`, as a browser's field for times has it.
pub(super) fn field(unix_ms: i64) -> String {
    stamp(unix_ms).chars().take(16).collect()
}

/// A text as part of a URL.
pub(super) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Option<View> {
        let uri = format!("/{query}").parse().unwrap();
        let query = hydrant_sdk::axum::extract::Query::<Query>::try_from_uri(&uri);
        View::of(query.unwrap().0)
    }

    #[test]
    fn a_link_shows_the_same_again() {
        let view = View::recent(1_795_000_000_000)
            .with(3, "a&b=\"<script>\" ä")
            .with(0, "parked")
            .before(17);
        assert_eq!(read(&view.query()), Some(view.clone()));
        assert!(!view.query().contains(['<', '"', ' ']), "{}", view.query());
        assert_eq!(
            view.with(0, "").before,
            None,
            "another list begins at its top"
        );
    }

    #[test]
    fn a_window_has_an_end_and_a_beginning() {
        for (query, is_shown) in [
            ("?from=2026-11-20&until=2026-11-21", true),
            ("?from=2026-11-20T09:00&until=2026-11-20T10:00:00Z", true),
            ("?from=2026-11-20&until=2026-11-20", false),
            ("?from=2026-01-01&until=2026-11-20", false),
            ("?from=yesterday&until=2026-11-20", false),
            ("?until=2026-11-20", false),
            ("", false),
        ] {
            assert_eq!(read(query).is_some(), is_shown, "{query}");
        }
    }
}
