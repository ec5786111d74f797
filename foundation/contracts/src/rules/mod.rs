//! Rules of traffic: which requests of a service, and what becomes of them. They are data, written in TOML,
//! checked before they are kept, and compiled by each router into its snapshot.

mod actions;
mod file;
mod limit;
mod parts;
mod rule;
mod set;

pub use actions::{Avoid, Else, Pin, Retry, RetryOn};
pub use file::{InvalidRules, parse};
pub use limit::{Limit, LimitBy, Rate};
pub use parts::{
    CallerPattern, HeaderName, HeaderText, HostPattern, HttpMethod, Percent, RuleName, Salt,
    Source, Span,
};
pub use rule::{HeaderChanges, Match, Redirect, Rule, Share};
pub use set::{Change, ChangeKind, KeptRule, RuleSet, Signature};

/// The most rules of a fleet.
pub const MAX_RULES: usize = 1000;
