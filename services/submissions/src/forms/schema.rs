//! What the fields of a form must be like.

use std::fmt;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde::Serialize;
use serde_json::Value;

/// The most that is told of one mistake, in characters, and how many mistakes are told.
const TOLD: usize = 200;
const MISTAKES: usize = 20;
/// The largest schema, in bytes.
const MAX_SCHEMA: u64 = 1024 * 1024;

/// A JSON Schema.
pub(crate) struct Schema {
    document: Value,
    validator: Validator,
}

/// Where fields are not as they should be. The value that stands there is never told: it may be secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// The place, as a JSON pointer; empty for the whole.
    pub(crate) pointer: String,
    /// The rule.
    pub(crate) message: String,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads a schema. It stands alone: a `$ref` to another file or to the network is refused.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        read(path).map_err(|error| {
            let error: String = error.chars().take(TOLD).collect();
            let path = path.display();
            format!("has a schema that can't be used, {path}: {error}")
        })
    }

    /// As it stands in its file.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// The first mistakes of these fields; none when they fit.
    pub(crate) fn mistakes(&self, fields: &Value) -> Vec<Mistake> {
        let told = |error: jsonschema::ValidationError<'_>| Mistake {
            pointer: error
                .instance_path()
                .to_string()
                .chars()
                .take(TOLD)
                .collect(),
            message: error.masked().to_string().chars().take(TOLD).collect(),
        };
        let errors = self.validator.iter_errors(fields);
        errors.take(MISTAKES).map(told).collect()
    }
}

fn read(path: &Path) -> Result<Schema, String> {
    let size = std::fs::metadata(path).map_err(text)?.len();
    if size > MAX_SCHEMA {
        return Err("it has more than 1MB".into());
    }
    let document = std::fs::read_to_string(path).map_err(text)?;
    let document: Value = serde_json::from_str(&document).map_err(text)?;
    // What comes from outside meets these patterns: an engine without backtracking takes a time that is
    // bounded by the text's length.
    let validator = jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(&document)
        .map_err(text)?;
    Ok(Schema {
        document,
        validator,
    })
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}
