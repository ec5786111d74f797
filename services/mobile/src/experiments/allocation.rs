//! Who has which slot, from one revision to the next: documents that the service makes itself.

use std::collections::BTreeMap;

use hydrant_contracts::bucket::{SLOTS, SlotTable};
use hydrant_flags::Mistake;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::catalog::{Catalog, document, locate_all};
use super::definition::{Definition, Weights};
use super::epochs::{Epoch, Epochs, Place};
use crate::bundle::Bundle;
use crate::documents::Kind;

/// Slots of a layer that no experiment has.
const FREE: &str = "";

/// A document `allocation/experiment.{name}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Allocation {
    /// Whether the experiment ran when this was made.
    pub(crate) running: bool,
    /// Which arm has which slot.
    pub(crate) table: SlotTable,
    /// Since when which table holds.
    pub(crate) epochs: Epochs,
    /// The time of the last step of the ramp that was taken, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) ramped_unix_ms: i64,
    facts: Facts,
}

/// What can't change while an experiment runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Facts {
    flag: String,
    subject: String,
    layer: Option<String>,
    salt: String,
    /// The form of `fractional` in the flag's set.
    fractional: String,
    /// Hashes of the values of the variants that are arms.
    variants: BTreeMap<String, String>,
}

/// A document `allocation/layer.{name}`, or `alone.{experiment}` for one without a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// Which experiment has which slot.
    pub(crate) table: SlotTable,
}

/// Gives the running experiments of `new` their slots, and takes those of the others back: writes the
/// documents `allocation/…` of `new`, whose revision and time must be set.
///
/// The documents `allocation/…` that `new` has are where it begins: after a change by people, those of
/// `old`; in a revert, those of the revision that it goes back to, so that everybody has exactly what
/// they had then. (Who goes back to some documents only takes what [`companions`] names with them.)
///
/// # Errors
///
/// If the documents are wrong, or if they change what can't change while an experiment runs.
pub(crate) fn allocate(old: &Bundle, new: &mut Bundle) -> Result<(), Vec<Mistake>> {
    let catalog = Catalog::read(new)?;
    let mut mistakes = Vec::new();
    let mut made = BTreeMap::new();
    for experiment in catalog.experiments.values() {
        match allocation(experiment, old, new) {
            Ok(Some(allocation)) => {
                made.insert(key(&experiment.name), json(&allocation));
            }
            Ok(None) => {}
            Err(mut found) => mistakes.append(&mut found),
        }
    }
    if !mistakes.is_empty() {
        locate_all(new, &mut mistakes);
        return Err(mistakes);
    }
    for (name, share) in shares(&catalog, new) {
        made.insert(name, json(&share));
    }
    match made.is_empty() {
        true => new.documents.remove(&Kind::Allocation),
        false => new.documents.insert(Kind::Allocation, made),
    };
    Ok(())
}

/// The names of the documents `allocation/…` that belong to an experiment: a revert of the experiment
/// alone takes them along.
pub(crate) fn companions(experiment: &str) -> [String; 2] {
    [key(experiment), format!("alone.{experiment}")]
}

/// The name of the document with an experiment's table.
pub(super) fn key(experiment: &str) -> String {
    format!("experiment.{experiment}")
}

/// The name of the document with the slots of an experiment's layer.
pub(super) fn share_key(experiment: &Definition) -> String {
    match &experiment.layer {
        Some(layer) => format!("layer.{layer}"),
        None => format!("alone.{}", experiment.name),
    }
}

/// The salt of the draw that says who is in an experiment of a layer.
pub(super) fn share_salt(experiment: &Definition) -> String {
    match &experiment.layer {
        Some(layer) => format!("layer/{layer}"),
        None => format!("alone/{}", experiment.salt),
    }
}

/// The salt of the draw of the arms.
pub(super) fn arms_salt(salt: &str) -> String {
    format!("experiment/{salt}")
}

pub(super) fn read<T: DeserializeOwned>(bundle: &Bundle, name: &str) -> Option<T> {
    serde_json::from_str(bundle.get(Kind::Allocation, name)?).ok()
}

fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("names and numbers become JSON")
}

/// The allocation of an experiment, once it has run.
fn allocation(
    experiment: &Definition,
    old: &Bundle,
    new: &Bundle,
) -> Result<Option<Allocation>, Vec<Mistake>> {
    let key = key(&experiment.name);
    let before: Option<Allocation> = read(new, &key);
    if !experiment.is_running() {
        return Ok(before.map(|before| Allocation {
            running: false,
            ..before
        }));
    }
    let facts = Facts::of(experiment, new);
    if let Some(before) = before.as_ref().filter(|before| before.running) {
        before.holds(experiment, &facts)?;
    }
    let last: Option<Allocation> = read(old, &key);
    let was = old.get(Kind::Experiment, &experiment.name);
    let was = was.and_then(|text| Definition::parse(&experiment.name, text).ok());
    let table = table(experiment, before.as_ref(), &facts)?;
    let known = last.as_ref().or(before.as_ref());
    let ramped = [&last, &before].map(|one| one.as_ref().map_or(0, |one| one.ramped_unix_ms));
    let taken = experiment.taken_at(was.as_ref(), new.at_unix_ms);
    let mut allocation = Allocation {
        running: true,
        table,
        epochs: known.map_or_else(Epochs::default, |known| known.epochs.clone()),
        ramped_unix_ms: ramped[0].max(ramped[1]).max(taken),
        facts,
    };
    allocation.count_epoch(last.as_ref(), new);
    Ok(Some(allocation))
}

/// The table of an experiment: the last one with other weights, or a new one when it can't go on.
fn table(
    experiment: &Definition,
    before: Option<&Allocation>,
    facts: &Facts,
) -> Result<SlotTable, Vec<Mistake>> {
    let goes_on = before.filter(|before| {
        before.facts.salt == facts.salt && before.table.control() == experiment.control
    });
    let start = match goes_on {
        Some(before) => before.table.clone(),
        None => SlotTable::new(&experiment.control),
    };
    start
        .reallocate(&experiment.arms)
        .map_err(|error| vec![Mistake::at("/arms", error.to_string()).of(document(experiment))])
}

impl Allocation {
    /// Whether it ever had this arm.
    pub(super) fn had(&self, arm: &str) -> bool {
        let mut epochs = self.epochs.all().iter();
        epochs.any(|epoch| epoch.table.weights().contains_key(arm))
    }

    /// Where the exposure of a subject to an arm belongs; `None` when they never were in it.
    pub(super) fn place(&self, subject: &str, arm: &str, at_unix_ms: i64) -> Option<Place> {
        let salt = arms_salt(&self.facts.salt);
        self.epochs.place(&salt, subject, arm, at_unix_ms)
    }

    /// Another table, or a new start, begins an epoch.
    fn count_epoch(&mut self, last: Option<&Self>, new: &Bundle) {
        if last.is_none_or(|last| !last.running || last.table != self.table) {
            self.epochs.begin(Epoch {
                revision: new.revision,
                at_unix_ms: new.at_unix_ms,
                table: self.table.clone(),
            });
        }
    }

    /// Says what can't change now.
    fn holds(&self, experiment: &Definition, now: &Facts) -> Result<(), Vec<Mistake>> {
        let own = document(experiment);
        let mend = format!("stop {own} first; a new experiment begins with new people");
        let mut mistakes = Vec::new();
        let control = self.table.control();
        for (field, was, is) in [
            (
                "flag",
                Some(self.facts.flag.as_str()),
                Some(now.flag.as_str()),
            ),
            (
                "subject",
                Some(self.facts.subject.as_str()),
                Some(now.subject.as_str()),
            ),
            ("layer", self.facts.layer.as_deref(), now.layer.as_deref()),
            (
                "salt",
                Some(self.facts.salt.as_str()),
                Some(now.salt.as_str()),
            ),
            ("control", Some(control), Some(experiment.control.as_str())),
        ] {
            if was != is {
                let was = was.map_or("missing".to_owned(), |was| format!("`{was}`"));
                let message = format!("`{field}` was {was} and can't change while it runs");
                mistakes.push(
                    Mistake::at(format!("/{field}"), message)
                        .mend(&mend)
                        .of(&own),
                );
            }
        }
        mistakes.extend(self.facts.flag_holds(now, &own));
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(mistakes),
        }
    }
}

impl Facts {
    fn of(experiment: &Definition, bundle: &Bundle) -> Self {
        let flag = FlagText::find(bundle, &experiment.flag);
        let hash = |arm: &String| Some((arm.clone(), flag.as_ref()?.hash_of(arm)?));
        Self {
            flag: experiment.flag.clone(),
            subject: experiment.subject.clone(),
            layer: experiment.layer.clone(),
            salt: experiment.salt.clone(),
            fractional: flag.as_ref().map_or(String::new(), FlagText::fractional),
            variants: experiment.arms.keys().filter_map(hash).collect(),
        }
    }

    /// Says what of the flag can't change now.
    fn flag_holds(&self, now: &Self, experiment: &str) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mend = format!("stop {experiment} first");
        if self.fractional != now.fractional && self.flag == now.flag {
            let message = match now.fractional.is_empty() {
                true => format!(
                    "the flag `{}` can't go while {experiment} runs on it",
                    self.flag
                ),
                false => format!(
                    "the form of `fractional` was `{}` and can't change while {experiment} runs on the flag `{}`",
                    self.fractional, self.flag
                ),
            };
            mistakes.push(Mistake::at("", message).mend(&mend).of(experiment));
        }
        for (arm, hash) in &now.variants {
            if self.variants.get(arm).is_some_and(|was| was != hash) {
                let message = format!(
                    "the variant `{arm}` of the flag `{}` can't change while {experiment} shows it",
                    self.flag
                );
                let pointer = format!("/arms/{arm}");
                mistakes.push(Mistake::at(pointer, message).mend(&mend).of(experiment));
            }
        }
        mistakes
    }
}

/// A flag and its set, as their document has them.
struct FlagText {
    set: Value,
    key: String,
}

impl FlagText {
    fn find(bundle: &Bundle, key: &str) -> Option<Self> {
        let mut sets = bundle.of(Kind::Flags);
        sets.find_map(|(_, text)| {
            let set: Value = serde_json::from_str(text).ok()?;
            set["flags"].get(key)?;
            Some(Self {
                set,
                key: key.to_owned(),
            })
        })
    }

    fn fractional(&self) -> String {
        let form = self.set["metadata"]["fractional"].as_str();
        form.unwrap_or("v2").to_owned()
    }

    /// A short hash of a variant's value.
    fn hash_of(&self, variant: &str) -> Option<String> {
        let value = self.set["flags"][&self.key]["variants"].get(variant)?;
        let hash = Sha256::digest(value.to_string());
        Some(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The slots of every layer that has a running experiment or had one, and of experiments alone.
fn shares(catalog: &Catalog, new: &Bundle) -> Vec<(String, Share)> {
    let mut wanted: BTreeMap<String, Weights> = BTreeMap::new();
    for layer in catalog.layers.keys() {
        let name = format!("layer.{layer}");
        if new.get(Kind::Allocation, &name).is_some() {
            wanted.insert(name, Weights::new());
        }
    }
    for experiment in catalog.running() {
        let weights = wanted.entry(share_key(experiment)).or_default();
        weights.insert(experiment.name.clone(), experiment.traffic);
    }
    let share = |(name, weights): (String, Weights)| {
        let table = share_table(read(new, &name), weights)?;
        Some((name, Share { table }))
    };
    wanted.into_iter().filter_map(share).collect()
}

fn share_table(before: Option<Share>, mut weights: Weights) -> Option<SlotTable> {
    let taken: u16 = weights.values().sum();
    weights.insert(FREE.to_owned(), SLOTS.checked_sub(taken)?);
    let start = before.map_or_else(|| SlotTable::new(FREE), |before| before.table);
    start.reallocate(&weights).ok()
}
