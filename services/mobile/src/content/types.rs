//! Types of content: what fields an entry has, as a JSON schema.

use std::collections::HashMap;
use std::fmt;

use hydrant_flags::Mistake;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, ValidationError, Validator};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::content::document::{escape, parse, placed};

/// What a schema writes where a field is an image: `{"$ref": "hydrant:image"}`.
const IMAGE: &str = "hydrant:image";

/// The most mistakes that are told of one locale of an entry.
const MAX_MISTAKES: usize = 20;

/// The most memory that one compiled pattern of a schema may take, in bytes.
const MAX_PATTERN: usize = 256 * 1024;

/// All types, by name.
#[derive(Debug, Default)]
pub(crate) struct Types(HashMap<String, Type>);

/// One type, compiled.
pub(crate) struct Type(Validator);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: Value,
    #[serde(default, rename = "description")]
    _description: Option<String>,
}

impl Types {
    /// Compiles types: their names and their texts.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn compile<'a>(
        documents: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<Mistake>> {
        let mut types = HashMap::new();
        let mut mistakes = Vec::new();
        for (name, text) in documents {
            match Type::compile(name, text) {
                Ok(one) => drop(types.insert(name.to_owned(), one)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        match mistakes.is_empty() {
            true => Ok(Self(types)),
            false => Err(mistakes),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Type> {
        self.0.get(name)
    }

    /// The names of all types, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl Type {
    fn compile(name: &str, text: &str) -> Result<Self, Mistake> {
        let id = format!("content-type/{name}");
        let document: Document = parse(&id, text)?;
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN);
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_retriever(OwnSchemas)
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .build(&document.schema)
            .map(Self)
            .map_err(|error| placed(wrong_schema(&error), &id, text))
    }

    /// What is wrong with the fields of an entry that stand at `pointer` of its document.
    pub(crate) fn check(&self, fields: &Value, pointer: &str) -> Vec<Mistake> {
        let errors = self.0.iter_errors(fields).take(MAX_MISTAKES);
        errors.map(|error| wrong_field(&error, pointer)).collect()
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Type")
    }
}

fn wrong_schema(error: &ValidationError<'_>) -> Mistake {
    let pointer = format!("/schema{}", error.instance_path().as_str());
    Mistake::at(pointer, format!("it is not a JSON schema: {error}")).mend(
        "write it by JSON Schema 2020-12; it may refer to itself and to `hydrant:image`, and its \
         patterns have no look-around and no back references",
    )
}

fn wrong_field(error: &ValidationError<'_>, pointer: &str) -> Mistake {
    let mut place = format!("{pointer}{}", error.instance_path().as_str());
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind()
        && let Some(first) = unexpected.first()
    {
        place += &format!("/{}", escape(first));
    }
    Mistake::at(place, error.to_string()).mend("mend the field, or the schema of the type")
}

/// The schemas that every schema may refer to; nothing is fetched from anywhere.
struct OwnSchemas;

impl Retrieve for OwnSchemas {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        if uri.as_str() != IMAGE {
            return Err("schemas are not fetched: copy it in".into());
        }
        Ok(json!({
            "type": "object",
            "properties": {
                "$image": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
                "alt": { "type": "string" },
            },
            "required": ["$image"],
            "additionalProperties": false,
        }))
    }
}
