//! All documents about experiments of one revision, read and compared with each other.

use std::collections::BTreeMap;

use hydrant_contracts::bucket::SLOTS;
use hydrant_flags::Mistake;

use super::definition::{Definition, Holdout, Layer};
use super::fields::percent;
use crate::bundle::Bundle;
use crate::documents::Kind;

/// The documents of people, by their names.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) experiments: BTreeMap<String, Definition>,
    pub(crate) layers: BTreeMap<String, Layer>,
    pub(crate) holdouts: BTreeMap<String, Holdout>,
}

impl Catalog {
    /// Reads them, and checks that they agree.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn read(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let catalog = Self {
            experiments: read_all(bundle, Kind::Experiment, Definition::parse, &mut mistakes),
            layers: read_all(bundle, Kind::Layer, Layer::parse, &mut mistakes),
            holdouts: read_all(bundle, Kind::Holdout, Holdout::parse, &mut mistakes),
        };
        if mistakes.is_empty() {
            catalog.check(&mut mistakes);
        }
        locate_all(bundle, &mut mistakes);
        match mistakes.is_empty() {
            true => Ok(catalog),
            false => Err(mistakes),
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Definition> {
        self.experiments.values().filter(|one| one.is_running())
    }

    fn check(&self, mistakes: &mut Vec<Mistake>) {
        for experiment in self.experiments.values() {
            mistakes.extend(self.has_its_layer(experiment));
        }
        for holdout in self.holdouts.values() {
            mistakes.extend(self.has_its_layers(holdout));
        }
        mistakes.extend(self.twice(|one| &one.flag, "flag", "flag"));
        mistakes.extend(self.twice(|one| &one.salt, "salt", "salt"));
        mistakes.extend(self.too_full());
    }

    fn has_its_layer(&self, experiment: &Definition) -> Option<Mistake> {
        let layer = experiment.layer.as_ref()?;
        if self.layers.contains_key(layer) {
            return None;
        }
        let mistake = Mistake::at("/layer", format!("there is no layer `{layer}`"));
        let mistake = mistake.mend(format!("put the document layer/{layer} first, as {{}}"));
        Some(mistake.of(document(experiment)))
    }

    fn has_its_layers(&self, holdout: &Holdout) -> Option<Mistake> {
        let named = holdout.layers.iter().flatten();
        let missing = named
            .into_iter()
            .find(|layer| !self.layers.contains_key(*layer))?;
        let mistake = Mistake::at("/layers", format!("there is no layer `{missing}`"));
        let mistake = mistake.mend(format!("put the document layer/{missing} first, as {{}}"));
        Some(mistake.of(format!("holdout/{}", holdout.name)))
    }

    /// Running experiments that have the same of something that only one may have.
    fn twice<'a>(
        &'a self,
        what: impl Fn(&'a Definition) -> &'a String,
        field: &'static str,
        noun: &'static str,
    ) -> Vec<Mistake> {
        let mut first = BTreeMap::new();
        let mut mistakes = Vec::new();
        for experiment in self.running() {
            let value = what(experiment);
            let Some(other) = first.insert(value, experiment) else {
                continue;
            };
            let message = format!(
                "the experiment `{}` has the {noun} `{value}` too",
                other.name
            );
            let mistake = Mistake::at(format!("/{field}"), message);
            let mend = format!("stop experiment/{}, or choose another {noun}", other.name);
            mistakes.push(mistake.mend(mend).of(document(experiment)));
        }
        mistakes
    }

    /// Layers whose experiments want more than there is.
    fn too_full(&self) -> Vec<Mistake> {
        let mut taken: BTreeMap<&str, u32> = BTreeMap::new();
        let mut mistakes = Vec::new();
        for experiment in self.running() {
            let Some(layer) = &experiment.layer else {
                continue;
            };
            let sum = taken.entry(layer).or_default();
            let left = u32::from(SLOTS).saturating_sub(*sum);
            *sum += u32::from(experiment.traffic);
            if *sum > u32::from(SLOTS) {
                mistakes.push(no_room(experiment, layer, left));
            }
        }
        mistakes
    }
}

fn no_room(experiment: &Definition, layer: &str, left: u32) -> Mistake {
    let message = format!(
        "the layer `{layer}` has {} % left, and this wants {} %",
        percent(left),
        percent(u32::from(experiment.traffic))
    );
    let mistake = Mistake::at("/traffic", message);
    let mend = "want less, or stop another experiment of the layer";
    mistake.mend(mend).of(document(experiment))
}

pub(super) fn document(experiment: &Definition) -> String {
    format!("experiment/{}", experiment.name)
}

fn read_all<T>(
    bundle: &Bundle,
    kind: Kind,
    parse: impl Fn(&str, &str) -> Result<T, Vec<Mistake>>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, T> {
    let mut read = BTreeMap::new();
    for (name, text) in bundle.of(kind) {
        match parse(name, text) {
            Ok(one) => {
                read.insert(name.to_owned(), one);
            }
            Err(mut found) => mistakes.append(&mut found),
        }
    }
    read
}

/// Says in which lines the mistakes are.
pub(super) fn locate_all(bundle: &Bundle, mistakes: &mut [Mistake]) {
    for mistake in mistakes {
        let (kind, name) = mistake.document.split_once('/').unwrap_or_default();
        let text = kind.parse().ok().and_then(|kind| bundle.get(kind, name));
        if let Some(text) = text {
            *mistake = std::mem::take(mistake).located(text);
        }
    }
}
