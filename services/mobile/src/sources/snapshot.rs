use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The key in the shared state of `service/mobile` where the snapshot stands.
pub(crate) const KEY: &str = "snapshot";

/// All that the leader knows of the sources. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The epoch of the leader that wrote it.
    pub(crate) epoch: u64,
    pub(crate) sources: BTreeMap<String, Found>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The last good value; `None` when there never was one.
    pub(crate) value: Option<Value>,
    /// When the value was last found to be different.
    pub(crate) as_of: i64,
    /// What the source gave to ask for changes only.
    #[serde(default)]
    pub(crate) validator: Validator,
    /// Set while the source fails.
    pub(crate) stale: Option<Stale>,
}

/// Why a value is not fresh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stale {
    /// When the source was last good, or, when it never was, first failed.
    pub(crate) since: i64,
    /// What is wrong with it, for people.
    pub(crate) reason: String,
}

/// What makes a request conditional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validator {
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

/// How one poll of a source ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Changed { value: Value, validator: Validator },
    Unchanged,
    Failed(String),
}

impl Snapshot {
    /// The same, without sources that are not declared any more.
    pub(crate) fn restricted_to<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        self.sources
            .retain(|name, _| names.contains(&name.as_str()));
        self
    }
}

impl Found {
    /// Counts what a poll found; tells whether readers must learn of it. `last_good` is when the
    /// source was last good, as far as this leader knows.
    pub(crate) fn apply(&mut self, outcome: Outcome, now: i64, last_good: Option<i64>) -> bool {
        match outcome {
            Outcome::Changed { value, validator } => {
                let differs = self.value.as_ref() != Some(&value);
                if differs {
                    self.as_of = now;
                    self.value = Some(value);
                }
                self.validator = validator;
                self.stale.take().is_some() || differs
            }
            Outcome::Unchanged => self.stale.take().is_some(),
            Outcome::Failed(reason) => {
                let first = self.stale.is_none();
                let since = last_good.unwrap_or(now);
                self.stale.get_or_insert(Stale { since, reason });
                first
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(value: Value) -> Outcome {
        Outcome::Changed {
            value,
            validator: Validator::default(),
        }
    }

    #[test]
    fn a_failing_source_keeps_its_last_good_value() {
        let mut found = Found::default();
        assert!(found.apply(changed(json!(1)), 100, None));
        assert!(
            !found.apply(changed(json!(1)), 200, Some(100)),
            "nothing new"
        );
        assert!(found.apply(Outcome::Failed("gone".into()), 300, Some(200)));
        assert!(!found.apply(Outcome::Failed("still".into()), 400, Some(200)));
        let stale = found.stale.clone().unwrap();
        assert_eq!((stale.since, stale.reason.as_str()), (200, "gone"));
        assert_eq!((found.value.clone(), found.as_of), (Some(json!(1)), 100));
        assert!(
            found.apply(Outcome::Unchanged, 500, Some(200)),
            "fresh again"
        );
        assert_eq!((found.stale.clone(), found.as_of), (None, 100));
        assert!(found.apply(changed(json!(2)), 600, Some(500)));
        assert_eq!((found.value, found.as_of), (Some(json!(2)), 600));
    }

    #[test]
    fn sources_that_are_not_declared_any_more_are_forgotten() {
        let mut snapshot = Snapshot::default();
        for name in ["one", "two"] {
            snapshot.sources.insert(name.into(), Found::default());
        }
        let names: Vec<_> = snapshot
            .restricted_to(["two", "three"])
            .sources
            .into_keys()
            .collect();
        assert_eq!(names, ["two"]);
    }
}
