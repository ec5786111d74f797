//! Cohorts: people with something in common, by a rule.

use std::collections::BTreeMap;

use hydrant_flags::{Context, Mistake, Rule};
use serde::Deserialize;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::configuration::{gather, read};
use crate::documents::Kind;

/// The cohorts of one revision.
#[derive(Debug, Default)]
pub(crate) struct Cohorts(BTreeMap<String, Rule>);

/// A document `cohort/…`, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default, rename = "description")]
    _description: Option<String>,
    rule: Value,
}

impl Cohorts {
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let one = |name: &str, text: &str| Ok((name.to_owned(), rule(name, text)?));
        let cohorts: Vec<_> = gather(bundle, Kind::Cohort, one)?;
        Ok(Self(cohorts.into_iter().collect()))
    }

    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether who is in a cohort may change with time.
    pub(crate) fn uses_time(&self) -> bool {
        self.0.values().any(Rule::uses_time)
    }

    /// Whether who asks is in a cohort; nobody is in one that is not there.
    pub(crate) fn has(&self, name: &str, context: &Context<'_>) -> bool {
        self.0.get(name).is_some_and(|rule| rule.holds(context))
    }
}

fn rule(name: &str, text: &str) -> Result<Rule, Vec<Mistake>> {
    let text: Text = read(Kind::Cohort, name, text)?;
    Rule::compile(&text.rule).map_err(|mut mistake| {
        mistake.pointer.insert_str(0, "/rule");
        vec![mistake]
    })
}
