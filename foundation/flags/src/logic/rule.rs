use std::sync::Arc;

use serde_json::Value;

use super::compile::Compiler;
use super::evaluate::Run;
use super::fractional::Form;
use super::node::Node;
use super::value::Val;
use crate::{Context, Mistake};

/// A condition or an expression in JSONLogic with flagd's operators, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    node: Arc<Node>,
    uses_time: bool,
}

impl Rule {
    /// Compiles an expression that stands on its own, as the targeting of an experiment.
    ///
    /// # Errors
    ///
    /// If an operator is not known, or has arguments that it can't have.
    pub fn compile(expression: &Value) -> Result<Self, Mistake> {
        let mut compiler = Compiler::new(None, Form::V2);
        let node = compiler.compile(expression, "");
        match compiler.findings.into_iter().next() {
            Some(finding) => Err(finding.mistake),
            None => Ok(Self {
                node: Arc::new(node),
                uses_time: compiler.uses_time,
            }),
        }
    }

    /// Whether it may say something else at another time.
    pub fn uses_time(&self) -> bool {
        self.uses_time
    }

    /// What it says, as JSON; null when it takes more steps than an evaluation has.
    pub fn evaluate(&self, context: &Context<'_>) -> Value {
        let run = Run::new("", *context);
        let said = run.evaluate(&self.node, &Val::Context);
        said.and_then(|value| value.to_json(&run.budget))
            .unwrap_or(Value::Null)
    }

    /// Whether what it says counts as true, as JSONLogic counts.
    pub fn holds(&self, context: &Context<'_>) -> bool {
        let run = Run::new("", *context);
        let said = run.evaluate(&self.node, &Val::Context);
        said.is_ok_and(|value| value.truthy())
    }
}
