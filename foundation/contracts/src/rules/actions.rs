//! What becomes of requests beyond which version gets them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::parts::{Span, as_text};
use super::rule::{MAX_ITEMS, Mistake, is_default};
use crate::instance::Instance;
use crate::name::{InstanceId, InvalidName, ServerName, Version, ZoneName};

/// The most tries of a request, the first one counted.
const MAX_ATTEMPTS: u8 = 4;

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
        if self.on.len() > MAX_ITEMS {
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

/// Where nothing is sent as long as there is anything else that is well and has room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Avoid {
    /// Every instance on these servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub servers: Vec<ServerName>,
    /// Every instance in these zones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zones: Vec<ZoneName>,
}

impl Avoid {
    pub(super) fn check(&self) -> Result<(), Mistake> {
        match self.servers.len().max(self.zones.len()) {
            0 => Err((
                "avoid",
                "it names no server and no zone".into(),
                "write servers = [\"web-2\"] or zones = [\"eu-1\"]",
            )),
            most if most > MAX_ITEMS => {
                let message = format!("{most} are too many");
                Err(("avoid", message, "name at most 32"))
            }
            _ => Ok(()),
        }
    }

    /// Whether an instance on this server, which stands in this zone, is avoided.
    pub fn covers(&self, server: &str, zone: Option<&ZoneName>) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|avoided| avoided.as_str() == server)
            || zone.is_some_and(|zone| self.zones.contains(zone))
    }
}

impl fmt::Display for Avoid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|name| format!("server {name}"));
        let zones = self.zones.iter().map(|name| format!("zone {name}"));
        let all: Vec<_> = servers.chain(zones).collect();
        f.write_str(&all.join(", "))
    }
}

/// Who gets all requests: the instances of one version, those on one server, or one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The instances of a version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: Option<Version>,
    /// The instances on a server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub server: Option<ServerName>,
    /// One instance.
    #[serde(default, skip_serializing_if = "is_default")]
    pub instance: Option<InstanceId>,
    /// What becomes of requests when none of them is well and has room.
    #[serde(rename = "else")]
    pub otherwise: Else,
}

/// What becomes of a request that does not get what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Else {
    /// Any other instance of the service gets it.
    Others,
    /// It is answered with 503.
    Refuse,
}

impl Pin {
    pub(super) fn check(&self) -> Result<(), Mistake> {
        let named = [
            self.version.is_some(),
            self.server.is_some(),
            self.instance.is_some(),
        ];
        match named.into_iter().filter(|named| *named).count() {
            1 => Ok(()),
            count => Err((
                "pin",
                format!("it names {count} places"),
                "write one of version, server and instance",
            )),
        }
    }

    /// Whether the instance is one of them.
    pub fn covers(&self, instance: &Instance) -> bool {
        let server = self.server.as_ref();
        self.version
            .as_ref()
            .is_none_or(|version| *version == instance.version)
            && server.is_none_or(|server| server.as_str() == instance.server)
            && self.instance.as_ref().is_none_or(|id| *id == instance.id)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.iter().map(|name| format!("version {name}"));
        let server = self.server.iter().map(|name| format!("server {name}"));
        let instance = self.instance.iter().map(|name| format!("instance {name}"));
        let all: Vec<_> = version.chain(server).chain(instance).collect();
        f.write_str(&all.join(", "))
    }
}
