//! How an attempt ended.

use std::time::Duration;

use hydrant_outbound::UnusableSecret;
use serde_json::Value;

/// A consumer has it.
#[derive(Debug)]
pub(super) struct Done {
    /// What the consumer calls it, if it is one that says so.
    pub(super) reference: Option<String>,
    /// What proves it, for the receipt: an object.
    pub(super) evidence: Value,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    /// For people; no secret and no field's value is in it.
    pub(super) reason: String,
    /// How long the consumer itself asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// What a failure says of the consumer and of the submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The consumer can't be reached, or takes nothing now: it says nothing of the submission.
    Away,
    /// The consumer was reached and did not manage it: its fault, or the submission's.
    Failing,
    /// The consumer is well and refuses the submission: no repeat helps.
    Refused,
    /// What is to be delivered can't be had now: it says nothing of the consumer.
    Ours,
}

impl Failure {
    pub(super) fn new(trouble: Trouble, reason: impl Into<String>) -> Self {
        Self {
            trouble,
            reason: reason.into(),
            retry_after: None,
        }
    }

    pub(super) fn away(reason: impl Into<String>) -> Self {
        Self::new(Trouble::Away, reason)
    }

    pub(super) fn failing(reason: impl Into<String>) -> Self {
        Self::new(Trouble::Failing, reason)
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::new(Trouble::Refused, reason)
    }

    pub(super) fn ours(reason: impl Into<String>) -> Self {
        Self::new(Trouble::Ours, reason)
    }
}

impl From<UnusableSecret> for Failure {
    fn from(unusable: UnusableSecret) -> Self {
        Self::ours(format!("{unusable}: {}", unusable.mend))
    }
}
