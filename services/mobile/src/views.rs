//! Whether a revision is different for who asks: a tag over all that their flags are evaluated from.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_flags::Definitions;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::bundle::Bundle;
use crate::documents::Kind;
use crate::experiments::Experiments;
use crate::keys::{Caller, hex};

/// What decides who is in which arm, beside the flags.
const DECIDING: [Kind; 4] = [
    Kind::Experiment,
    Kind::Layer,
    Kind::Holdout,
    Kind::Allocation,
];

/// The tags of one revision. They are the same on every instance.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// When the revision was made, in milliseconds since 1970.
    pub(crate) at_unix_ms: i64,
    public: String,
    all: String,
}

impl Views {
    pub(crate) fn compile(bundle: &Bundle, flags: &Definitions, experiments: &Experiments) -> Self {
        Self {
            at_unix_ms: bundle.at_unix_ms,
            public: Public {
                bundle,
                flags,
                experiments,
                tag: Tag::default(),
            }
            .tag(),
            all: tag_of_all(bundle),
        }
    }

    /// The tag of what everybody sees.
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// The tag of all.
    pub(crate) fn all(&self) -> &str {
        &self.all
    }

    /// The tag of what somebody sees.
    pub(crate) fn tag(&self, caller: &Caller) -> &str {
        match caller {
            Caller::Anonymous => &self.public,
            Caller::Holder(_) => &self.all,
        }
    }
}

fn tag_of_all(bundle: &Bundle) -> String {
    let mut tag = Tag::default();
    for kind in [Kind::Flags].into_iter().chain(DECIDING) {
        tag.add_all(bundle, kind);
    }
    tag.end()
}

/// Gathers what public flags are evaluated from, and nothing else: a change of others is nobody's
/// business.
struct Public<'a> {
    bundle: &'a Bundle,
    flags: &'a Definitions,
    experiments: &'a Experiments,
    tag: Tag,
}

impl Public<'_> {
    fn tag(mut self) -> String {
        let bundle = self.bundle;
        for (_, text) in bundle.of(Kind::Flags) {
            match serde_json::from_str(text) {
                Ok(Value::Object(set)) => self.add_set(&set),
                _ => self.tag.add(text),
            }
        }
        self.tag.end()
    }

    fn add_set(&mut self, set: &Map<String, Value>) {
        let part = |name| set.get(name).and_then(Value::as_object);
        let metadata = part("metadata").map_or(String::new(), |it| digest_of(&json!(it)));
        let mut evaluators = Evaluators {
            rules: part("$evaluators"),
            digests: BTreeMap::new(),
        };
        for (key, flag) in part("flags").into_iter().flatten() {
            if !self.flags.get(key).is_some_and(|flag| flag.is_public()) {
                continue;
            }
            self.tag.add(key);
            self.tag.add(&flag.to_string());
            self.tag.add(&metadata);
            evaluators.add_those_of(flag, &mut self.tag);
            self.add_experiment(key);
        }
    }

    /// The experiment on a flag, its slots, and who is in none.
    fn add_experiment(&mut self, flag: &str) {
        let Some(running) = self.experiments.on(flag) else {
            return;
        };
        let (bundle, name) = (self.bundle, running.name.as_str());
        let text = bundle.get(Kind::Experiment, name).unwrap_or_default();
        let definition: Value = serde_json::from_str(text).unwrap_or_default();
        let layer = definition["layer"].as_str().unwrap_or_default();
        self.tag.add(text);
        for key in [
            format!("experiment.{name}"),
            format!("alone.{name}"),
            format!("layer.{layer}"),
        ] {
            let slots = bundle.get(Kind::Allocation, &key);
            self.tag.add(slots.unwrap_or_default());
        }
        self.tag.add_all(bundle, Kind::Holdout);
    }
}

/// The shared rules of a set, each of which is hashed once, however many flags refer to it.
struct Evaluators<'a> {
    rules: Option<&'a Map<String, Value>>,
    digests: BTreeMap<String, String>,
}

impl Evaluators<'_> {
    /// Adds the rules that something refers to, and with them those that they refer to.
    fn add_those_of(&mut self, value: &Value, tag: &mut Tag) {
        let mut names = BTreeSet::new();
        references(value, &mut names);
        for name in names {
            tag.add(self.digest(name));
        }
    }

    fn digest(&mut self, name: &str) -> &str {
        if !self.digests.contains_key(name) {
            // Revisions have no circles; this ends all the same.
            self.digests.insert(name.to_owned(), String::new());
            let rule = self.rules.and_then(|rules| rules.get(name));
            let mut tag = Tag::default();
            if let Some(rule) = rule {
                tag.add(&rule.to_string());
                self.add_those_of(rule, &mut tag);
            }
            self.digests.insert(name.to_owned(), tag.end());
        }
        &self.digests[name]
    }
}

/// The names of the evaluators that something refers to.
fn references<'v>(value: &'v Value, names: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(map) => {
            names.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|part| references(part, names));
        }
        Value::Array(list) => list.iter().for_each(|part| references(part, names)),
        _ => {}
    }
}

fn digest_of(value: &Value) -> String {
    let mut tag = Tag::default();
    tag.add(&value.to_string());
    tag.end()
}

/// A hash over texts, in which each ends where it ends.
#[derive(Default)]
struct Tag(Sha256);

impl Tag {
    fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn add_all(&mut self, bundle: &Bundle, kind: Kind) {
        for (name, text) in bundle.of(kind) {
            self.add(name);
            self.add(text);
        }
        self.add("");
    }

    fn end(self) -> String {
        hex(&self.0.finalize()[..8])
    }
}
