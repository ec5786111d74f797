//! What the sources said, ready to be put into answers.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::sources::snapshot::{Found, Snapshot};

/// A snapshot, ready to be put into answers.
pub(crate) struct Feed {
    json: Box<[u8]>,
    stale: Vec<(String, i64)>,
    epoch: u64,
}

impl Feed {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let stale = snapshot
            .sources
            .iter()
            .filter_map(|(name, found)| Some((name.clone(), found.stale.as_ref()?.since)))
            .collect();
        Self {
            stale,
            epoch: snapshot.epoch,
            json: written(&snapshot).into(),
        }
    }

    /// All sources with their values, as they stand in an answer. It says when things happened and
    /// never how long ago, so that it changes only when there is something new.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    /// The stale sources with their ages in seconds, as `catalog;age=42, content;age=3`; `None`
    /// when all are fresh.
    pub(crate) fn stale(&self, now: i64) -> Option<String> {
        let one = |(name, since): &(String, i64)| {
            let age = now.saturating_sub(*since).max(0) / 1000;
            format!("{name};age={age}")
        };
        let all: Vec<String> = self.stale.iter().map(one).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The epoch of the leader that made the snapshot.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

fn written(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (place, (name, found)) in snapshot.sources.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        // Texts always become JSON, and memory takes any number of bytes.
        let _ = serde_json::to_writer(&mut out, name);
        out.push(b':');
        let _ = serde_json::to_writer(&mut out, &shown(found));
    }
    out.push(b'}');
    out
}

/// A source in an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    as_of: Option<String>,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    value: Option<&'a RawValue>,
}

fn shown(found: &Found) -> Shown<'_> {
    let good = found.good.as_ref();
    Shown {
        as_of: good.map(|good| time(good.as_of)),
        stale: found.stale.is_some(),
        stale_since: found.stale.as_ref().map(|stale| time(stale.since)),
        value: good.map(|good| &*good.value),
    }
}

/// As `2026-11-22T00:12:40Z`.
fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::conditional::etag_of;

    fn body(feed: &Feed) -> Value {
        serde_json::from_slice(feed.json()).unwrap()
    }

    fn snapshot(name: &str, found: Found) -> Snapshot {
        Snapshot {
            epoch: 1,
            sources: [(name.to_owned(), Arc::new(found))].into(),
        }
    }

    fn found(value: Value, stale: Option<i64>) -> Found {
        Found::with(Some(&value.to_string()), 1_000, stale)
    }

    #[test]
    fn an_answer_shows_each_source_with_its_times() {
        let feed = Feed::new(snapshot("catalog", found(json!([1]), Some(2_000))));
        assert_eq!(
            body(&feed),
            json!({"catalog": {
                "value": [1],
                "stale": true,
                "asOf": "1970-01-01T00:00:01Z",
                "staleSince": "1970-01-01T00:00:02Z",
            }}),
            "the reason stays inside"
        );
        assert_eq!(feed.stale(44_500).as_deref(), Some("catalog;age=42"));
        assert_eq!(feed.stale(0).as_deref(), Some("catalog;age=0"));
    }

    #[test]
    fn a_source_that_never_answered_is_there_without_a_value() {
        let never = Found::with(None, 0, Some(5));
        let feed = Feed::new(snapshot("catalog", never));
        let catalog = &body(&feed)["catalog"];
        assert_eq!(
            (&catalog["value"], &catalog["asOf"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(catalog["stale"], true);
    }

    proptest! {
        #[test]
        fn the_tag_changes_with_what_is_told_and_with_nothing_else(
            one in "[a-z]{0,6}", two in "[a-z]{0,6}",
            stale_one in proptest::option::of(0i64..9), stale_two in proptest::option::of(0i64..9),
            epochs in (1u64..9, 1u64..9),
        ) {
            let tag = |value: &str, stale, epoch| {
                let mut snapshot = snapshot("s", found(json!(value), stale));
                snapshot.epoch = epoch;
                etag_of(Feed::new(snapshot).json())
            };
            let same = tag(&one, stale_one, epochs.0) == tag(&two, stale_two, epochs.1);
            prop_assert_eq!(same, one == two && stale_one == stale_two);
        }

        #[test]
        fn what_the_sources_say_comes_through_unchanged(name in "[a-z]{1,8}", text in ".*") {
            let feed = Feed::new(snapshot(&name, found(json!(&text), None)));
                prop_assert_eq!(&body(&feed)[&name]["value"], &json!(text));
            prop_assert!(feed.stale(0).is_none());
        }
    }
}
