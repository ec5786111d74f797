use std::fmt;
use std::path::Path;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::sources::snapshot::Failure;

/// The most that is told of one mistake, in characters.
const TOLD: usize = 200;
/// The largest schema, in bytes.
const MAX_SCHEMA: u64 = 1024 * 1024;

/// A JSON Schema that values of a source must fit.
pub(crate) struct Schema {
    text: String,
    validator: Validator,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads a schema. It stands alone: a `$ref` to another file or to the network is refused.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let refuse = |error: &dyn fmt::Display| {
            let error: String = error.to_string().chars().take(TOLD).collect();
            format!(
                "has a schema that can't be used, {}: {error}",
                path.display()
            )
        };
        let size = std::fs::metadata(path)
            .map_err(|error| refuse(&error))?
            .len();
        if size > MAX_SCHEMA {
            return Err(refuse(&"it has more than 1MB"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
        let schema: Value = serde_json::from_str(&text).map_err(|error| refuse(&error))?;
        // What comes from outside meets these patterns: an engine without backtracking takes a time
        // that is bounded by the text's length.
        let validator = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|error| refuse(&error))?;
        Ok(Self { text, validator })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Tells the place of the first mistake and the rule, never the value that stands there.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Failure> {
        let Err(error) = self.validator.validate(value) else {
            return Ok(());
        };
        let place = error.instance_path().to_string();
        let place = if place.is_empty() {
            "the whole"
        } else {
            &place
        };
        let told: String = format!("{place}: {}", error.masked())
            .chars()
            .take(TOLD)
            .collect();
        Err(Failure::new(
            format!("its value does not fit the schema, at {told}"),
            "mend the source, or its schema",
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn load(schema: &Value) -> Result<Schema, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.json");
        std::fs::write(&path, schema.to_string()).unwrap();
        Schema::load(&path)
    }

    #[test]
    fn the_place_is_told_and_the_value_is_not() {
        let schema = json!({"properties": {"price": {"type": "integer"}}});
        let schema = load(&schema).unwrap();
        assert!(schema.check(&json!({"price": 3})).is_ok());
        let failure = schema.check(&json!({"price": "canary"})).unwrap_err();
        assert!(failure.reason.contains("/price"), "{failure:?}");
        assert!(!failure.reason.contains("canary"), "{failure:?}");
    }

    #[test]
    fn a_schema_stands_alone() {
        for place in ["http://127.0.0.1:1/a", "file:///etc/passwd"] {
            let error = load(&json!({ "$ref": place })).unwrap_err();
            assert!(error.contains("can't be used"), "{error}");
        }
    }

    #[test]
    fn a_pattern_takes_a_time_that_is_bounded() {
        let schema = load(&json!({"pattern": "^(a+)+$"})).unwrap();
        let text = format!("{}!", "a".repeat(100_000));
        assert!(schema.check(&json!(text)).is_err());
    }
}
