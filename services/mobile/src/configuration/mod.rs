//! The configuration of one revision, compiled: layers of values, each for some of the apps, merged
//! for the one that asks.

mod answers;
mod cohort;
pub(crate) mod explain;
pub(crate) mod layer;
mod memo;
mod menu;
pub(crate) mod merge;
pub(crate) mod range;
mod reach;
mod schema;
mod set;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hydrant_flags::{Context, Mistake};
use semver::Version;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::configuration::cohort::Cohorts;
use crate::configuration::layer::{Layer, Subject, When};
use crate::configuration::memo::Memo;
use crate::configuration::schema::Schema;
use crate::configuration::set::{LayerSet, MAX_LAYERS};
use crate::documents::{DocumentId, Kind};

pub(crate) use crate::configuration::answers::serve;
pub(crate) use crate::configuration::menu::Menu;

/// The name of the only `config-schema`.
const NAME: &str = "config";
/// The most sets of layers that are all checked on entry.
const MAX_SETS: usize = 4096;
/// The most mistakes that one change is told of.
const MAX_MISTAKES: usize = 20;

/// All layers, in the order in which they are merged.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    layers: Vec<Layer>,
    cohorts: Cohorts,
    schema: Schema,
    memo: Memo,
}

/// What an app gets.
#[derive(Debug, PartialEq)]
pub(crate) struct Merged {
    pub(crate) value: Value,
    /// The same, as it stands in an answer.
    pub(crate) json: Box<str>,
    /// Layers that were left out, because with them it would break the schema: the names.
    pub(crate) left_out: Vec<String>,
}

impl Configuration {
    /// Compiles the layers, the cohorts and the schema of a revision, and checks that whatever an
    /// app can get fits the schema.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, as far as the first step that finds something.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let schema = Schema::compile(bundle)?;
        Self::compile_layers(bundle, Kind::Config, Vec::new(), schema)
    }

    /// The same for the documents of any kind that has layers, on top of some that are built in.
    fn compile_layers(
        bundle: &Bundle,
        kind: Kind,
        built_in: Vec<Layer>,
        schema: Schema,
    ) -> Result<Self, Vec<Mistake>> {
        let cohorts = Cohorts::compile(bundle)?;
        let mut own: Vec<Layer> = gather(bundle, kind, |name, text| {
            let layer = Layer::parse(kind, name, text)?;
            known_cohorts(&layer.when, &cohorts)?;
            Ok(layer)
        })?;
        own.sort_by(|one, other| one.order().cmp(&other.order()));
        let layers: Vec<Layer> = built_in.into_iter().chain(own).collect();
        if layers.len() > MAX_LAYERS {
            let message = format!("there are more than {MAX_LAYERS} layers");
            return Err(vec![Mistake::at("", message).of(kind.as_str())]);
        }
        let configuration = Self {
            layers,
            cohorts,
            schema,
            memo: Memo::default(),
        };
        configuration.check(bundle)?;
        Ok(configuration)
    }

    /// What who asks gets: the layers that are for them, merged.
    pub(crate) fn merged_for(&self, context: &Context<'_>) -> Arc<Merged> {
        let set = self.layers_for(context);
        self.memo.get_or(set, || self.merge(set))
    }

    /// The layers that are for who asks, the lowest first.
    pub(crate) fn explained_for(&self, context: &Context<'_>) -> Vec<&Layer> {
        let set = self.layers_for(context);
        set.iter().map(|place| &self.layers[place]).collect()
    }

    /// All layers, the lowest first.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether which layers are for somebody may change with time.
    pub(crate) fn uses_time(&self) -> bool {
        self.cohorts.uses_time()
    }

    /// The cohorts that who asks is in.
    pub(crate) fn cohorts_of<'a>(
        &'a self,
        context: &'a Context<'_>,
    ) -> impl Iterator<Item = &'a str> {
        let names = self.cohorts.names();
        names.filter(|name| self.cohorts.has(name, context))
    }

    fn layers_for(&self, context: &Context<'_>) -> LayerSet {
        let text = |name: &str| context.attributes.get(name).and_then(Value::as_str);
        let version: Option<Version> = text("version").and_then(|text| text.parse().ok());
        let subject = Subject {
            platform: text("platform"),
            version: version.as_ref(),
            market: text("market"),
            locale: text("locale"),
            store: text("store"),
        };
        let is_in = |when: &When| {
            let cohorts = when.cohort.as_ref();
            cohorts.is_none_or(|names| names.iter().any(|name| self.cohorts.has(name, context)))
        };
        let places = self.layers.iter().enumerate();
        places
            .filter(|(_, layer)| layer.when.holds(&subject) && is_in(&layer.when))
            .map(|(place, _)| place)
            .collect()
    }

    /// Merges a set of layers. Where it would break the schema, which only a set can that was one of
    /// too many to be checked on entry, the highest layers are left out until it does not.
    fn merge(&self, set: LayerSet) -> Merged {
        let mut layers: Vec<&Layer> = set.iter().map(|place| &self.layers[place]).collect();
        let mut left_out = Vec::new();
        let value = loop {
            let value = merge::merge_all(layers.iter().map(|layer| &layer.values));
            match layers.pop_if(|_| !self.schema.fits(&value)) {
                Some(layer) => left_out.push(layer.name.clone()),
                None => break value,
            }
        };
        Merged {
            json: value.to_string().into(),
            value,
            left_out,
        }
    }

    /// Checks each layer by itself, then every set of layers that an app can get. When these are too
    /// many: each layer, and each two of them, over the layers without conditions.
    fn check(&self, bundle: &Bundle) -> Result<(), Vec<Mistake>> {
        let each = self
            .layers
            .iter()
            .flat_map(|layer| self.schema.check_layer(layer));
        let mistakes: Vec<Mistake> = each.take(MAX_MISTAKES).collect();
        let mistakes = match mistakes.is_empty() {
            true => self.check_merges(),
            false => mistakes,
        };
        let located = mistakes.into_iter().map(|mistake| located(mistake, bundle));
        let located: Vec<Mistake> = located.collect();
        if located.is_empty() {
            Ok(())
        } else {
            Err(located)
        }
    }

    fn check_merges(&self) -> Vec<Mistake> {
        let sets = reach::reachable(&self.layers, MAX_SETS);
        let sets = sets.unwrap_or_else(|| self.pairs());
        let mut mistakes: Vec<Mistake> = Vec::new();
        for set in sets {
            for mistake in self.schema.check_merge(&self.layers, set) {
                let is_told = |told: &Mistake| {
                    told.document == mistake.document && told.pointer == mistake.pointer
                };
                if !mistakes.iter().any(is_told) {
                    mistakes.push(mistake);
                }
            }
            if mistakes.len() >= MAX_MISTAKES {
                break;
            }
        }
        mistakes
    }

    fn pairs(&self) -> std::collections::BTreeSet<LayerSet> {
        let is_base = |place: &usize| self.layers[*place].when.is_for_all();
        let base: LayerSet = (0..self.layers.len()).filter(is_base).collect();
        let pair = |one: usize, other: usize| base.or([one, other].into_iter().collect());
        let all = 0..self.layers.len();
        let pairs = all
            .clone()
            .flat_map(|one| all.clone().map(move |other| (one, other)));
        pairs
            .map(|(one, other)| pair(one, other))
            .chain([base])
            .collect()
    }
}

fn known_cohorts(when: &When, cohorts: &Cohorts) -> Result<(), Vec<Mistake>> {
    let mut names = when.cohort.iter().flat_map(|names| names.iter());
    match names.find(|name| !cohorts.is_known(name)) {
        Some(name) => Err(vec![
            Mistake::at(
                "/when/cohort",
                format!("there is no cohort `{}`", name.escape_debug()),
            )
            .mend(format!(
                "put `cohort/{}` first, or in the same change",
                name.escape_debug()
            )),
        ]),
        None => Ok(()),
    }
}

/// A mistake, with its line in the document that it names.
fn located(mistake: Mistake, bundle: &Bundle) -> Mistake {
    let (kind, name) = mistake.document.split_once('/').unwrap_or_default();
    let kind = kind.parse().ok();
    match kind.and_then(|kind| bundle.get(kind, name)) {
        Some(text) => mistake.located(text),
        None => mistake,
    }
}

/// Compiles all documents of a kind; the mistakes of all of them.
fn gather<T>(
    bundle: &Bundle,
    kind: Kind,
    compile: impl Fn(&str, &str) -> Result<T, Vec<Mistake>>,
) -> Result<Vec<T>, Vec<Mistake>> {
    let (mut compiled, mut mistakes) = (Vec::new(), Vec::new());
    for (name, text) in bundle.of(kind) {
        match compile(name, text) {
            Ok(one) => compiled.push(one),
            Err(found) => mistakes.extend(
                found
                    .into_iter()
                    .map(|mistake| mistake.located(text).of(format!("{kind}/{name}"))),
            ),
        }
    }
    if mistakes.is_empty() {
        Ok(compiled)
    } else {
        Err(mistakes)
    }
}

/// Reads a document: its JSON, then its fields.
fn read<T: DeserializeOwned>(kind: Kind, name: &str, text: &str) -> Result<T, Vec<Mistake>> {
    parse(text)?;
    let id = DocumentId::new(kind, name).map_err(|error| vec![Mistake::at("", error)])?;
    crate::reading::read(&id, text).map_err(|mistake| vec![mistake])
}

fn parse(text: &str) -> Result<Value, Vec<Mistake>> {
    hydrant_flags::read(text)
}
