//! The types of a configuration's keys: a JSON schema, which each layer and each merge has to fit.

use hydrant_flags::Mistake;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::configuration::layer::Layer;
use crate::configuration::merge::merge_all;
use crate::configuration::set::LayerSet;
use crate::configuration::{NAME, explain, parse};
use crate::documents;

/// The most mistakes that are told of one layer or one merge.
const MAX_TOLD: usize = 10;
/// The longest piece of a value that a message shows, in characters.
const MAX_SHOWN: usize = 60;

/// A JSON schema, compiled. Without a document everything fits.
#[derive(Debug, Default)]
pub(crate) struct Schema(Option<Validator>);

impl Schema {
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let kind = documents::Kind::ConfigSchema;
        if let Some((name, _)) = bundle.of(kind).find(|(name, _)| *name != NAME) {
            let mistake = Mistake::at("", "there is only one schema of the configuration")
                .of(format!("{kind}/{name}"))
                .mend(format!("put it as `{kind}/{NAME}`"));
            return Err(vec![mistake]);
        }
        let Some(text) = bundle.get(kind, NAME) else {
            return Ok(Self(None));
        };
        let of = |mistake: Mistake| mistake.located(text).of(format!("{kind}/{NAME}"));
        let compiled = parse(text).and_then(|schema| {
            let built = jsonschema::options().offline().build(&schema);
            built.map_err(|error| vec![told(&error)])
        });
        let validator =
            compiled.map_err(|mistakes| mistakes.into_iter().map(of).collect::<Vec<_>>())?;
        Ok(Self(Some(validator)))
    }

    /// A schema that is part of the program.
    pub(crate) fn built_in(schema: &Value) -> Self {
        Self(jsonschema::options().offline().build(schema).ok())
    }

    /// Whether a merged configuration fits.
    pub(crate) fn fits(&self, merged: &Value) -> bool {
        let schema = self.0.as_ref();
        schema.is_none_or(|schema| schema.is_valid(merged))
    }

    /// What is wrong with a layer whatever lies below and above: values that its keys can't have.
    /// What an object lacks is no mistake of a layer.
    pub(crate) fn check_layer(&self, layer: &Layer) -> Vec<Mistake> {
        let Some(schema) = &self.0 else {
            return Vec::new();
        };
        // Nulls remove: they are not there after the merge.
        let values = merge_all([&layer.values]);
        let errors = schema.iter_errors(&values);
        let own = errors.filter(is_about_one_value).take(MAX_TOLD);
        own.map(|error| in_layer(told(&error), layer)).collect()
    }

    /// What is wrong with layers merged, each thing told of the layer that brought it about.
    pub(crate) fn check_merge(&self, layers: &[Layer], set: LayerSet) -> Vec<Mistake> {
        let Some(schema) = &self.0 else {
            return Vec::new();
        };
        let merged: Vec<&Layer> = set.iter().map(|place| &layers[place]).collect();
        let value = merge_all(merged.iter().map(|layer| &layer.values));
        let errors = schema.iter_errors(&value).take(MAX_TOLD);
        errors.map(|error| blamed(told(&error), &merged)).collect()
    }
}

/// A mistake of a merge, told of the last layer that touched the place; of the last one of all when
/// none did, as where a value is missing.
fn blamed(mut mistake: Mistake, merged: &[&Layer]) -> Mistake {
    let names: Vec<&str> = merged.iter().map(|layer| layer.name.as_str()).collect();
    let explained = explain::explain(merged.iter().map(|layer| &layer.values));
    let own = format!("{}/", mistake.pointer);
    let touched = explained
        .iter()
        .filter(|(pointer, _)| **pointer == mistake.pointer || pointer.starts_with(&own));
    let layer = touched.map(|(_, one)| one.won.layer).max();
    mistake.message = format!("with the layers {}: {}", names.join(" + "), mistake.message);
    match layer.or(merged.len().checked_sub(1)) {
        Some(layer) => in_layer(mistake, merged[layer]),
        None => mistake.of(format!("{}/{NAME}", documents::Kind::ConfigSchema)),
    }
}

fn in_layer(mut mistake: Mistake, layer: &Layer) -> Mistake {
    mistake.pointer.insert_str(0, "/values");
    mistake.of(&layer.document)
}

fn told(error: &ValidationError<'_>) -> Mistake {
    let message: String = error.to_string();
    let short = match message.char_indices().nth(4 * MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    };
    Mistake::at(error.instance_path().as_str(), short)
}

/// Whether a value breaks the schema by itself, whatever else the configuration has.
fn is_about_one_value(error: &ValidationError<'_>) -> bool {
    let is_conditional = |keyword: &str| error.schema_path().as_str().contains(keyword);
    let own = matches!(
        error.kind(),
        Kind::AdditionalProperties { .. }
            | Kind::Constant { .. }
            | Kind::Enum { .. }
            | Kind::ExclusiveMaximum { .. }
            | Kind::ExclusiveMinimum { .. }
            | Kind::FalseSchema
            | Kind::Format { .. }
            | Kind::MaxItems { .. }
            | Kind::MaxLength { .. }
            | Kind::Maximum { .. }
            | Kind::MinItems { .. }
            | Kind::MinLength { .. }
            | Kind::Minimum { .. }
            | Kind::MultipleOf { .. }
            | Kind::Pattern { .. }
            | Kind::Type { .. }
            | Kind::UniqueItems
    );
    own && ![
        "/if",
        "/then",
        "/else",
        "/not",
        "/dependentSchemas",
        "/dependencies",
    ]
    .into_iter()
    .any(is_conditional)
}
