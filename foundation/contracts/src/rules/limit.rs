//! How many requests of a rule go on.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parts::{Source, as_text};
use super::rule::{Mistake, is_default};
use crate::name::InvalidName;

/// The most requests of a rate, and of a burst.
const MAX_COUNT: u32 = 1_000_000;

/// How many requests each router lets through; what comes too soon is answered with 429.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many go on, on and on.
    pub rate: Rate,
    /// How many may come at once after a quiet time; as many as the rate says when left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub burst: Option<u32>,
    /// Which requests count together; all when left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: LimitBy,
}

/// A number of requests in a second, a minute or an hour: `100/s`, `5/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
}

/// Which requests count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitBy {
    /// All of the rule.
    #[default]
    All,
    /// Those of one caller, as a token proved it.
    Caller,
    /// Those of one client's address; with IPv6 those of one /64.
    Address,
    /// Those that say the same. Those that say nothing count together.
    Said(Source),
}

impl Limit {
    /// How many may come at once.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.rate.count)
    }

    pub(super) fn check(&self) -> Result<(), Mistake> {
        match self.burst {
            Some(burst) if !(1..=MAX_COUNT).contains(&burst) => {
                let message = format!("{burst} can't come at once");
                Err(("limit.burst", message, "write 1 to 1000000"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {}, {} at once", self.rate, self.burst())?;
        match &self.by {
            LimitBy::All => Ok(()),
            by => write!(f, ", for each {by}"),
        }
    }
}

impl Rate {
    /// The time from one request to the next.
    pub fn interval(self) -> Duration {
        let seconds = match self.unit {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
        };
        Duration::from_secs(seconds) / self.count.max(1)
    }
}

impl FromStr for Rate {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "write a whole number up to 1000000 and one of /s, /m and /h, as 100/s or 5/m";
        let refuse = || InvalidName::new("rate", text, rule);
        let (count, unit) = text.split_once('/').ok_or_else(refuse)?;
        let unit = match unit {
            "s" => Unit::Second,
            "m" => Unit::Minute,
            "h" => Unit::Hour,
            _ => return Err(refuse()),
        };
        let digits = count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count
            .parse()
            .ok()
            .filter(|count| digits && (1..=MAX_COUNT).contains(count));
        count.map(|count| Self { count, unit }).ok_or_else(refuse)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => "s",
            Unit::Minute => "m",
            Unit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for LimitBy {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "write 'all', 'caller', 'address', 'header NAME', 'cookie NAME' or 'query NAME'";
        match text {
            "all" => Ok(Self::All),
            "caller" => Ok(Self::Caller),
            "address" => Ok(Self::Address),
            said => said
                .parse()
                .map(Self::Said)
                .map_err(|_| InvalidName::new("way to count", text, rule)),
        }
    }
}

impl fmt::Display for LimitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Caller => f.write_str("caller"),
            Self::Address => f.write_str("address"),
            Self::Said(source) => source.fmt(f),
        }
    }
}

as_text!(Rate, LimitBy);
