//! What is known of the sources, and how it stands in the shared state of `service/mobile`: one
//! key for each source, so that a change of one writes one, and a list of those that are declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_outbound::UnusableSecret;
use hydrant_sdk::{Entry, StateChange};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sources::courier::Order;

/// The key of the list: [`Declared`].
pub(crate) const DECLARED: &str = "sources";
/// What the key of a source begins with: [`Found`].
pub(crate) const SOURCE: &str = "source/";

/// Which sources there are. Written after the sources that are new, and before those that are gone
/// are deleted: so who reads the list and finds a source missing knows that the state has lost it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    /// The epoch of the leader that asks them.
    pub(crate) epoch: u64,
    pub(crate) names: Vec<String>,
    /// What `api/mobile` asks in the leader's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) orders: Vec<Order>,
}

/// All that is known of the sources at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The epoch of the leader that asks them.
    pub(crate) epoch: u64,
    /// Every source that is declared.
    pub(crate) sources: BTreeMap<String, Arc<Found>>,
}

/// What is known of one source. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    /// The last good answer; `None` when there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) good: Option<Good>,
    /// Set while the source fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stale: Option<Stale>,
}

/// A good answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Good {
    /// The value, as the source wrote it, without white space.
    pub(crate) value: Box<RawValue>,
    /// When it was last found to be different.
    pub(crate) as_of: i64,
    /// What the source gave to ask for changes only.
    #[serde(default)]
    pub(crate) validator: Validator,
}

impl PartialEq for Good {
    fn eq(&self, other: &Self) -> bool {
        self.value.get() == other.value.get()
            && self.as_of == other.as_of
            && self.validator == other.validator
    }
}

/// Why a value is not fresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stale {
    /// When the source was last good, or, when it never was, first failed.
    pub(crate) since: i64,
    /// What is wrong with it, for people.
    pub(crate) reason: String,
    /// How to mend it, for people.
    #[serde(default)]
    pub(crate) mend: String,
}

/// What makes a request conditional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validator {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified: Option<String>,
    /// The URL that gave it: after a redirect to another place it means nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    /// Which definition made the value: after a change of its pointer, an answer "not modified"
    /// must not keep what stood at the old one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) definition: String,
}

/// How one poll of a source ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Changed {
        value: Box<RawValue>,
        validator: Validator,
    },
    Unchanged,
    Failed(Failure),
}

/// What is wrong with a source. It is shown to operators: nothing secret stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) mend: String,
}

impl Failure {
    pub(crate) fn new(reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            mend: mend.into(),
        }
    }
}

impl From<UnusableSecret> for Failure {
    fn from(unusable: UnusableSecret) -> Self {
        Self::new(unusable.to_string(), unusable.mend)
    }
}

impl Found {
    /// Counts what a poll found; tells whether readers must learn of it. `last_good` is when the
    /// source was last good, as far as this leader knows.
    pub(crate) fn apply(&mut self, outcome: Outcome, now: i64, last_good: Option<i64>) -> bool {
        match outcome {
            Outcome::Changed { value, validator } => {
                let differs = self.take_value(value, validator, now);
                self.stale.take().is_some() || differs
            }
            Outcome::Unchanged => self.stale.take().is_some(),
            Outcome::Failed(failure) => self.fail(failure, last_good.unwrap_or(now)),
        }
    }

    fn take_value(&mut self, value: Box<RawValue>, validator: Validator, now: i64) -> bool {
        match &mut self.good {
            Some(good) if good.value.get() == value.get() => {
                let differs = good.validator != validator;
                good.validator = validator;
                differs
            }
            _ => {
                self.good = Some(Good {
                    value,
                    as_of: now,
                    validator,
                });
                true
            }
        }
    }

    /// Since when stays; why is always the newest, so that who mends one thing sees the next.
    fn fail(&mut self, failure: Failure, since: i64) -> bool {
        let since = self.stale.as_ref().map_or(since, |stale| stale.since);
        let stale = Stale {
            since,
            reason: failure.reason,
            mend: failure.mend,
        };
        let differs = self.stale.as_ref() != Some(&stale);
        self.stale = Some(stale);
        differs
    }
}

#[cfg(test)]
impl Found {
    /// A source for tests: its last good value at `as_of`, and since when it fails.
    pub(crate) fn with(value: Option<&str>, as_of: i64, stale_since: Option<i64>) -> Self {
        let good = |value: &str| Good {
            value: RawValue::from_string(value.into()).unwrap(),
            as_of,
            validator: Validator::default(),
        };
        Self {
            good: value.map(good),
            stale: stale_since.map(|since| Stale {
                since,
                reason: "http://10.0.0.7:9200 refused".into(),
                mend: String::new(),
            }),
        }
    }
}

/// What a reader of the state has seen of the sources. A value that the state has lost stays, as
/// long as its source is declared.
#[derive(Debug, Default)]
pub(crate) struct View {
    declared: Option<Declared>,
    found: BTreeMap<String, Arc<Found>>,
}

impl View {
    /// Takes in what happened in the state; gives the new snapshot when it was about sources, and
    /// the list of them has been seen.
    pub(crate) fn take(&mut self, change: &StateChange) -> Option<Snapshot> {
        let mut news = false;
        match change {
            StateChange::All(entries) => {
                for entry in entries {
                    news |= self.take_entry(entry);
                }
            }
            StateChange::Put(entry) => news = self.take_entry(entry),
            StateChange::Removed(_) => {}
        }
        news.then(|| self.snapshot()).flatten()
    }

    fn take_entry(&mut self, entry: &Entry) -> bool {
        if entry.key == DECLARED {
            return self.take_list(entry);
        }
        let Some(name) = entry.key.strip_prefix(SOURCE) else {
            return false;
        };
        let read = self.read::<Found>(entry).map(Arc::new);
        read.map(|found| self.found.insert(name.to_owned(), found))
            .is_some()
    }

    /// What is not declared any more is forgotten now, and not before: the leader writes the value of
    /// a new source first, and then the list that names it.
    fn take_list(&mut self, entry: &Entry) -> bool {
        let Some(list) = self.read::<Declared>(entry) else {
            return false;
        };
        self.found.retain(|name, _| list.names.contains(name));
        self.declared = Some(list);
        true
    }

    fn read<T: serde::de::DeserializeOwned>(&self, entry: &Entry) -> Option<T> {
        serde_json::from_slice(&entry.value)
            .inspect_err(
                |error| tracing::error!(key = entry.key, %error, "the state can't be read"),
            )
            .ok()
    }

    /// What there is to ask in the leader's place.
    pub(crate) fn orders(&self) -> &[Order] {
        self.declared
            .as_ref()
            .map_or(&[], |declared| &declared.orders)
    }

    /// What is declared; `None` until that is known.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let declared = self.declared.as_ref()?;
        let found = |name: &String| {
            let found = self.found.get(name).cloned().unwrap_or_default();
            (name.clone(), found)
        };
        Some(Snapshot {
            epoch: declared.epoch,
            sources: declared.names.iter().map(found).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    fn changed(text: &str) -> Outcome {
        Outcome::Changed {
            value: raw(text),
            validator: Validator::default(),
        }
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed(Failure::new(reason, ""))
    }

    fn value(found: &Found) -> (&str, i64) {
        let good = found.good.as_ref().unwrap();
        (good.value.get(), good.as_of)
    }

    #[test]
    fn a_failing_source_keeps_its_last_good_value() {
        let mut found = Found::default();
        assert!(found.apply(changed("1"), 100, None));
        assert!(!found.apply(changed("1"), 200, Some(100)), "nothing new");
        assert!(found.apply(failed("gone"), 300, Some(200)));
        assert!(!found.apply(failed("gone"), 350, Some(200)));
        assert!(found.apply(failed("other"), 400, Some(200)), "a new reason");
        let stale = found.stale.clone().unwrap();
        assert_eq!((stale.since, stale.reason.as_str()), (200, "other"));
        assert_eq!(value(&found), ("1", 100));
        assert!(found.apply(Outcome::Unchanged, 500, Some(200)), "fresh");
        assert_eq!((found.stale.clone(), value(&found)), (None, ("1", 100)));
        assert!(found.apply(changed("2"), 600, Some(500)));
        assert_eq!(value(&found), ("2", 600));
    }

    #[test]
    fn null_is_a_value_and_no_answer_is_none() {
        let mut found = Found::default();
        found.apply(failed("gone"), 1, None);
        let read = |found: &Found| -> Found {
            serde_json::from_str(&serde_json::to_string(found).unwrap()).unwrap()
        };
        assert_eq!(read(&found).good, None);
        found.apply(changed("null"), 2, None);
        assert_eq!(value(&read(&found)), ("null", 2));
    }

    fn put(key: &str, value: &impl Serialize) -> Entry {
        Entry {
            key: key.into(),
            value: serde_json::to_vec(value).unwrap(),
            revision: 1,
            ttl: None,
        }
    }

    fn declared(names: &[&str]) -> Entry {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let orders = Vec::new();
        put(
            DECLARED,
            &Declared {
                epoch: 7,
                names,
                orders,
            },
        )
    }

    #[test]
    fn a_reader_keeps_what_the_state_has_lost_and_drops_what_is_not_declared() {
        let mut view = View::default();
        let mut one = Found::default();
        one.apply(changed("1"), 1, None);
        let put_one = StateChange::Put(put("source/one", &one));
        assert!(view.take(&put_one).is_none(), "no list yet");
        let all = StateChange::All(vec![declared(&["one", "two"]), put("bundle", &1)]);
        let snapshot = view.take(&all).unwrap();
        assert_eq!(snapshot.epoch, 7);
        assert_eq!(*snapshot.sources["one"], one);
        assert_eq!(*snapshot.sources["two"], Found::default());
        let gone = StateChange::Removed("source/one".into());
        assert!(view.take(&gone).is_none());
        assert!(
            view.take(&StateChange::All(Vec::new())).is_none(),
            "all lost"
        );
        assert_eq!(*view.snapshot().unwrap().sources["one"], one);
        let snapshot = view.take(&StateChange::Put(declared(&["two"]))).unwrap();
        assert_eq!(snapshot.sources.keys().collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn a_value_that_comes_before_the_list_that_names_it_is_kept() {
        let mut view = View::default();
        view.take(&StateChange::Put(declared(&["one"])));
        let mut two = Found::default();
        two.apply(changed("2"), 1, None);
        view.take(&StateChange::Put(put("source/two", &two)));
        let list = StateChange::Put(declared(&["one", "two"]));
        assert_eq!(*view.take(&list).unwrap().sources["two"], two);
    }

    #[test]
    fn what_cannot_be_read_leaves_the_last_good_one() {
        let mut view = View::default();
        view.take(&StateChange::Put(declared(&["one"])));
        for key in ["sources", "source/one"] {
            let broken = StateChange::Put(put(key, &"garbage"));
            assert!(view.take(&broken).is_none(), "{key}");
        }
        assert_eq!(view.snapshot().unwrap().epoch, 7);
    }
}
