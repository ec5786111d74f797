use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{Context, Evaluation, EvaluationError, Mistake, Reason};

/// All flags of all flag sets, compiled.
#[derive(Debug, Default)]
pub struct Definitions {
    flags: Vec<Flag>,
    by_key: HashMap<String, usize>,
}

/// One flag, compiled.
#[derive(Debug)]
pub struct Flag {
    key: String,
    set: String,
    metadata: Map<String, Value>,
}

impl Definitions {
    /// Compiles flag sets: their names and their texts, in flagd's JSON. A key stands in one set only.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn compile<'a>(
        _sets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<Mistake>> {
        Ok(Self::default())
    }

    /// The flag with this key.
    pub fn get(&self, key: &str) -> Option<&Flag> {
        Some(&self.flags[*self.by_key.get(key)?])
    }

    /// All flags, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter()
    }
}

impl Flag {
    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The name of the flag set that it stands in.
    pub fn set(&self) -> &str {
        &self.set
    }

    /// What its definition says beside its value: that of the set, and its own on top.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Whether who has no key may see it: `"public": true` in its metadata.
    pub fn is_public(&self) -> bool {
        self.metadata.get("public") == Some(&Value::Bool(true))
    }

    /// Whether it is turned off.
    pub fn is_disabled(&self) -> bool {
        false
    }

    /// The value of a variant.
    pub fn variant(&self, _name: &str) -> Option<(&str, &Value)> {
        None
    }

    /// What it is for who asks.
    ///
    /// # Errors
    ///
    /// If its targeting fails.
    pub fn evaluate<'a>(
        &'a self,
        _context: &Context<'_>,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        Ok(Evaluation {
            variant: None,
            value: None,
            reason: Reason::Disabled,
        })
    }
}
