use serde_json::{Map, Value};

use crate::logic::{Node, Run, Shape, Val};
use crate::{Context, Evaluation, EvaluationError, Reason};

/// One flag, compiled.
#[derive(Debug)]
pub struct Flag {
    pub(crate) key: String,
    pub(crate) set: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) is_disabled: bool,
    pub(crate) variants: Box<[Variant]>,
    /// Its place among the variants.
    pub(crate) default: Option<usize>,
    pub(crate) targeting: Option<Node>,
    pub(crate) prepared: Prepared,
}

/// A variant, with what an answer writes of it.
#[derive(Debug)]
pub struct Variant {
    name: String,
    value: Value,
    name_json: Box<str>,
    value_json: Box<str>,
}

/// What does not change between answers, as JSON.
#[derive(Debug)]
pub(crate) struct Prepared {
    key: Box<str>,
    metadata: Box<str>,
}

impl Prepared {
    pub(crate) fn new(key: &str, metadata: &Map<String, Value>) -> Self {
        Self {
            key: Value::from(key).to_string().into(),
            metadata: Value::Object(metadata.clone()).to_string().into(),
        }
    }
}

impl Variant {
    pub(crate) fn new(name: &str, value: &Value) -> Self {
        Self {
            name: name.to_owned(),
            value: value.clone(),
            name_json: Value::from(name).to_string().into(),
            value_json: value.to_string().into(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Its name as JSON, in quotes.
    pub fn name_json(&self) -> &str {
        &self.name_json
    }

    /// Its value as JSON.
    pub fn value_json(&self) -> &str {
        &self.value_json
    }
}

impl Flag {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its key as JSON, in quotes.
    pub fn key_json(&self) -> &str {
        &self.prepared.key
    }

    /// The name of the flag set that it stands in.
    pub fn set(&self) -> &str {
        &self.set
    }

    /// What its definition says beside its value: that of the set, and its own on top.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Its metadata as JSON: an object, `{}` when there is none.
    pub fn metadata_json(&self) -> &str {
        &self.prepared.metadata
    }

    /// Whether who has no key may see it: `"public": true` in its metadata.
    pub fn is_public(&self) -> bool {
        self.metadata.get("public") == Some(&Value::Bool(true))
    }

    /// Whether it is turned off.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    /// All its variants, by name.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The value of a variant.
    pub fn variant(&self, name: &str) -> Option<(&str, &Value)> {
        let variant = self.find(name)?;
        Some((variant.name(), variant.value()))
    }

    /// A variant with what an answer writes of it.
    pub fn find(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// The variant for everybody whom targeting gives no other.
    pub fn default_variant(&self) -> Option<&Variant> {
        self.variants.get(self.default?)
    }

    /// What it is for who asks.
    ///
    /// # Errors
    ///
    /// If its targeting fails, or names a variant that is not there.
    pub fn evaluate<'a>(
        &'a self,
        context: &Context<'_>,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        if self.is_disabled {
            return Ok(nothing(Reason::Disabled));
        }
        let Some(targeting) = &self.targeting else {
            return Ok(self.by_default(Reason::Static));
        };
        let run = Run::new(&self.key, *context);
        match run.evaluate(targeting, &Val::Context) {
            Ok(Val::Null) => Ok(self.by_default(Reason::Default)),
            Ok(said) => self.chosen(&said, &run),
            Err(stop) => Err(self.failed(stop.to_string())),
        }
    }

    fn by_default(&self, reason: Reason) -> Evaluation<'_> {
        match self.default_variant() {
            Some(variant) => found(variant, reason),
            None => nothing(Reason::Default),
        }
    }

    fn chosen(&self, said: &Val<'_>, run: &Run<'_>) -> Result<Evaluation<'_>, EvaluationError> {
        let name = match said.shape() {
            Shape::Bool(true) => "true".into(),
            Shape::Bool(false) => "false".into(),
            _ => said
                .to_text(&run.budget)
                .map_err(|stop| self.failed(stop.to_string()))?,
        };
        match self.find(&name) {
            Some(variant) => Ok(found(variant, Reason::TargetingMatch)),
            None => Err(self.failed(format!(
                "it gives `{}`, and there is no such variant",
                short(&name)
            ))),
        }
    }

    fn failed(&self, why: String) -> EvaluationError {
        EvaluationError::General(format!("the targeting of `{}` fails: {why}", self.key))
    }
}

fn found(variant: &Variant, reason: Reason) -> Evaluation<'_> {
    Evaluation {
        variant: Some(&variant.name),
        value: Some(&variant.value),
        reason,
    }
}

fn nothing<'a>(reason: Reason) -> Evaluation<'a> {
    Evaluation {
        variant: None,
        value: None,
        reason,
    }
}

/// What came from outside is shown, but not all of it, and escaped.
fn short(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}
