use serde_json::{Map, Value, json};

use crate::api::parameters::Parameters;
use crate::sources::snapshot::{Found, Snapshot};

/// A snapshot, ready to be put into answers.
pub(crate) struct Feed {
    sources: Map<String, Value>,
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
            sources: snapshot
                .sources
                .into_iter()
                .map(|(name, found)| (name, shown(&found)))
                .collect(),
        }
    }

    /// The body of an answer. It says when things happened and never how long ago, so that it,
    /// and with it its ETag, changes only when there is something new.
    pub(crate) fn body(&self, parameters: &Parameters) -> Vec<u8> {
        json!({
            "platform": parameters.platform,
            "version": parameters.version.to_string(),
            "locale": parameters.locale,
            "sources": self.sources,
        })
        .to_string()
        .into_bytes()
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

fn shown(found: &Found) -> Value {
    let as_of = found.good.as_ref().map(|good| time(good.as_of));
    let value = found.good.as_ref().map(|good| good.value.get());
    let value: Value = value
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let stale = found.stale.is_some();
    let mut shown = json!({ "value": value, "stale": stale, "asOf": as_of });
    if let Some(stale) = &found.stale {
        shown["staleSince"] = time(stale.since).into();
    }
    shown
}

/// As `2026-11-22T00:12:40Z`.
fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::api::conditional::etag_of;

    fn parameters() -> Parameters {
        Parameters {
            platform: "ios",
            version: "7.2.1".parse().unwrap(),
            locale: "en-US".into(),
        }
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
        let body: Value = serde_json::from_slice(&feed.body(&parameters())).unwrap();
        assert_eq!(
            body,
            json!({
                "platform": "ios",
                "version": "7.2.1",
                "locale": "en-US",
                "sources": {"catalog": {
                    "value": [1],
                    "stale": true,
                    "asOf": "1970-01-01T00:00:01Z",
                    "staleSince": "1970-01-01T00:00:02Z",
                }},
            }),
            "the reason stays inside"
        );
        assert_eq!(feed.stale(44_500).as_deref(), Some("catalog;age=42"));
        assert_eq!(feed.stale(0).as_deref(), Some("catalog;age=0"));
    }

    #[test]
    fn a_source_that_never_answered_is_there_without_a_value() {
        let never = Found::with(None, 0, Some(5));
        let feed = Feed::new(snapshot("catalog", never));
        let body: Value = serde_json::from_slice(&feed.body(&parameters())).unwrap();
        let catalog = &body["sources"]["catalog"];
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
                etag_of(&Feed::new(snapshot).body(&parameters()))
            };
            let same = tag(&one, stale_one, epochs.0) == tag(&two, stale_two, epochs.1);
            prop_assert_eq!(same, one == two && stale_one == stale_two);
        }

        #[test]
        fn what_the_sources_say_comes_through_unchanged(name in "[a-z]{1,8}", text in ".*") {
            let feed = Feed::new(snapshot(&name, found(json!(&text), None)));
            let body: Value = serde_json::from_slice(&feed.body(&parameters())).unwrap();
            prop_assert_eq!(body["sources"][&name]["value"].as_str(), Some(text.as_str()));
            prop_assert!(feed.stale(0).is_none());
        }
    }
}
