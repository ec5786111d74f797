//! What becomes of requests beyond which version gets them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::parts::{Span, as_text};
use super::rule::{Mistake, is_default};
use crate::name::InvalidName;

/// The most tries of a request, the first one counted.
const MAX_ATTEMPTS: u8 = 4;
/// The most reasons to try again.
const MAX_REASONS: usize = 32;

/// What is tried again at another instance, and how often. It is always within the retry budget and the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often a request is tried at most, the first try counted.
    #[serde(default = "most", skip_serializing_if = "is_most")]
    pub attempts: u8,
    /// After what.
    #[serde(default = "failures", skip_serializing_if = "is_failures")]
    pub on: Vec<RetryOn>,
    /// How long a try may wait for the head of an answer. Then another instance is asked, if that is safe.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per_try_timeout: Option<Span>,
    /// Requests too that are not safe to repeat: an instance may do the same twice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub non_idempotent: bool,
}

/// After what a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    /// The instance got nothing of it.
    Connect,
    /// The connection broke before an answer, or what came is not HTTP.
    Reset,
    /// This status of the answer.
    Status(u16),
}

const fn most() -> u8 {
    MAX_ATTEMPTS
}

fn is_most(attempts: &u8) -> bool {
    *attempts == most()
}

fn failures() -> Vec<RetryOn> {
    vec![RetryOn::Connect, RetryOn::Reset]
}

fn is_failures(on: &Vec<RetryOn>) -> bool {
    *on == failures()
}

impl Retry {
    pub(super) fn check(&self, timeout: Option<Span>) -> Result<(), Mistake> {
        if !(1..=MAX_ATTEMPTS).contains(&self.attempts) {
            let message = format!("a request is not tried {} times", self.attempts);
            return Err((
                "retry.attempts",
                message,
                "write 1 to 4, the first try counted",
            ));
        }
        if self.on.is_empty() && self.per_try_timeout.is_none() && self.attempts > 1 {
            let mend = "name what is, or write attempts = 1";
            return Err(("retry.on", "nothing is tried again".into(), mend));
        }
        if self.on.len() > MAX_REASONS {
            let message = format!("{} reasons are too many", self.on.len());
            return Err(("retry.on", message, "write at most 32"));
        }
        match (timeout, self.per_try_timeout) {
            (Some(all), Some(one)) if one >= all => Err((
                "retry.per_try_timeout",
                format!("nothing of the rule's timeout, {all}, is left after the first try"),
                "write a shorter one",
            )),
            _ => Ok(()),
        }
    }

    /// Whether an answer with this status is thrown away and asked for again.
    pub fn covers_status(&self, status: u16) -> bool {
        self.on.contains(&RetryOn::Status(status))
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut on: Vec<_> = self.on.iter().map(RetryOn::to_string).collect();
        if let Some(span) = self.per_try_timeout {
            on.push(format!("no answer within {span}"));
        }
        match self.attempts {
            1 if self.per_try_timeout.is_some() => {
                write!(f, "tried once, given up on {}", on.join(", "))
            }
            1 => f.write_str("tried once"),
            attempts => write!(
                f,
                "tried at most {attempts} times, again on {}",
                on.join(", ")
            ),
        }?;
        match self.non_idempotent {
            true => f.write_str(", also what is not safe to repeat"),
            false => Ok(()),
        }
    }
}

impl FromStr for RetryOn {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "write connect, reset or a status from 400 to 599, as \"503\"";
        let status = || text.parse().ok().filter(|code| (400..600).contains(code));
        match text {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            _ => status()
                .map(Self::Status)
                .ok_or_else(|| InvalidName::new("reason to try again", text, rule)),
        }
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Status(status) => status.fmt(f),
        }
    }
}

as_text!(RetryOn);
