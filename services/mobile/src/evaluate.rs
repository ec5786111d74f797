//! A flag and the experiment on it, as one answer.

use hydrant_flags::{Context, EvaluationError, Flag, Reason};
use serde_json::Value;

use crate::compiled::Compiled;
use crate::experiments::Standing;

/// What a flag is for who asks. Borrowed from the revision: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) flag: &'a Flag,
    /// The variant; `None` when the flag is disabled or has no default.
    pub(crate) variant: Option<&'a str>,
    /// Its value; `None` means the caller's own default.
    pub(crate) value: Option<&'a Value>,
    pub(crate) reason: Reason,
    /// The experiment that decided; belongs into the answer's metadata.
    pub(crate) assigned: Option<Assigned<'a>>,
}

/// Which arm of which experiment somebody is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Assigned<'a> {
    /// Metadata `experiment`.
    pub(crate) experiment: &'a str,
    /// Metadata `arm`.
    pub(crate) arm: &'a str,
}

impl Compiled {
    /// What the flag with this key is for who asks. Allocates nothing.
    ///
    /// # Errors
    ///
    /// If there is no such flag, or its targeting fails.
    pub(crate) fn evaluate<'a>(
        &'a self,
        key: &str,
        context: &Context<'_>,
    ) -> Result<Answer<'a>, EvaluationError> {
        let flag = self.flags.get(key);
        let flag = flag.ok_or_else(|| EvaluationError::FlagNotFound(key.to_owned()))?;
        self.evaluate_flag(flag, context)
    }

    /// What a flag of this revision is for who asks: for who goes through all flags. Somebody in a
    /// running experiment gets its arm; for all others the flag's own targeting decides.
    ///
    /// # Errors
    ///
    /// If its targeting fails.
    pub(crate) fn evaluate_flag<'a>(
        &'a self,
        flag: &'a Flag,
        context: &Context<'_>,
    ) -> Result<Answer<'a>, EvaluationError> {
        if let Some(answer) = self.split(flag, context) {
            return Ok(answer);
        }
        let own = flag.evaluate(context)?;
        Ok(Answer {
            flag,
            variant: own.variant,
            value: own.value,
            reason: own.reason,
            assigned: None,
        })
    }

    /// The answer of the experiment on a flag, for who is in it.
    fn split<'a>(&'a self, flag: &'a Flag, context: &Context<'_>) -> Option<Answer<'a>> {
        if flag.is_disabled() {
            return None;
        }
        let experiment = self.experiments.on(flag.key())?;
        let Standing::In(_, arm) = experiment.standing(context) else {
            return None;
        };
        let (variant, value) = flag.variant(arm)?;
        Some(Answer {
            flag,
            variant: Some(variant),
            value: Some(value),
            reason: Reason::Split,
            assigned: Some(Assigned {
                experiment: &experiment.name,
                arm,
            }),
        })
    }
}
