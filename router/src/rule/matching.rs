//! Whether a request is one that a rule means.

use std::fmt;
use std::net::IpAddr;

use hydrant_contracts::Caller;
use hydrant_contracts::bucket::Slot;
use hydrant_contracts::rules::{Match, Percent};

use super::{Compiled, source};
use crate::path;

/// What stands for any value.
const ANY: &str = "*";

/// The header fields of a request.
pub(crate) trait Fields {
    /// Whether `accepts` any value of the fields of a name, which is in small letters. No further one is asked
    /// then.
    fn any(&self, name: &str, accepts: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What rules look at.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) method: &'a [u8],
    /// Path and query.
    pub(crate) target: &'a [u8],
    pub(crate) caller: &'a Caller,
    /// The client's; `None` where there is none, as in an explanation.
    pub(crate) address: Option<IpAddr>,
    pub(crate) fields: &'a dyn Fields,
    /// The path is that of a method, without tier and service.
    pub(crate) bare: bool,
}

/// Why a rule does not mean a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch<'r> {
    Path(&'r str),
    Host,
    Method,
    Caller,
    Header(&'r str),
    Query(&'r str),
    /// The request does not say whose it is.
    Nobody,
    /// It falls into another part.
    Share(Slot, Percent),
}

impl Compiled {
    /// Why the request is not meant; `None` when it is.
    pub(crate) fn mismatch(&self, asked: &Asked<'_>) -> Option<Mismatch<'_>> {
        let wanted = &self.kept.rule.matches;
        if !self.covers_path(asked) {
            return Some(Mismatch::Path(wanted.path.as_deref().unwrap_or_default()));
        }
        if let Some(mismatch) = mismatch_of_head(wanted, asked) {
            return Some(mismatch);
        }
        let users = wanted.users.as_ref()?;
        match source::slot(&users.by, &self.share_draw, asked) {
            None => Some(Mismatch::Nobody),
            Some(slot) if users.percent.covers(slot) => None,
            Some(slot) => Some(Mismatch::Share(slot, users.percent)),
        }
    }

    fn covers_path(&self, asked: &Asked<'_>) -> bool {
        let Some(own) = self.own_path(asked) else {
            return true;
        };
        let (path, _) = path::split_query(asked.target);
        match own.ends_with('/') {
            true => path.starts_with(own.as_bytes()),
            false => path == own.as_bytes(),
        }
    }
}

fn mismatch_of_head<'r>(wanted: &'r Match, asked: &Asked<'_>) -> Option<Mismatch<'r>> {
    let is_host = |host: &str| wanted.hosts.iter().any(|wanted| wanted.covers(host));
    if !wanted.hosts.is_empty() && !asked.host.is_some_and(is_host) {
        return Some(Mismatch::Host);
    }
    let mut methods = wanted.methods.iter();
    if !wanted.methods.is_empty() && !methods.any(|one| one.as_str().as_bytes() == asked.method) {
        return Some(Mismatch::Method);
    }
    let mut callers = wanted.callers.iter();
    if !wanted.callers.is_empty() && !callers.any(|one| one.covers(asked.caller)) {
        return Some(Mismatch::Caller);
    }
    let mut headers = wanted.headers.iter();
    let missing = headers.find(|(name, value)| {
        let is = &mut |found: &[u8]| *value == ANY || found == value.as_bytes();
        !asked.fields.any(name.as_str(), is)
    });
    if let Some((name, _)) = missing {
        return Some(Mismatch::Header(name.as_str()));
    }
    let mut query = wanted.query.iter();
    let missing = query.find(|(name, value)| !has_parameter(asked.target, name, value));
    missing.map(|(name, _)| Mismatch::Query(name))
}

fn has_parameter(target: &[u8], name: &str, value: &str) -> bool {
    let is = |found: &[u8]| value == ANY || unescaped(found).eq(value.bytes());
    parameters(target).any(|(key, found)| unescaped(key).eq(name.bytes()) && is(found))
}

/// The parameters of the query, as they were sent.
pub(super) fn parameters(target: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (_, query) = path::split_query(target);
    let pairs = query
        .get(1..)
        .unwrap_or_default()
        .split(|byte| *byte == b'&');
    pairs.map(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..at], pair.get(at + 1..).unwrap_or_default())
    })
}

/// Without escapes, as forms write them.
fn unescaped(text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).map(|digit| digit as u8);
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = digit(text.get(at + 1)).zip(digit(text.get(at + 2)));
        let (byte, length) = match (byte, escaped) {
            (b'%', Some((high, low))) => (high << 4 | low, 3),
            (b'+', _) => (b' ', 1),
            _ => (byte, 1),
        };
        at += length;
        Some(byte)
    })
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) if path.ends_with('/') => write!(f, "the path is not below {path}"),
            Self::Path(path) => write!(f, "the path is not {path}"),
            Self::Host => f.write_str("the host is another"),
            Self::Method => f.write_str("the method is another"),
            Self::Caller => f.write_str("the caller is another"),
            Self::Header(name) => write!(f, "the header {name} is another, or missing"),
            Self::Query(name) => write!(f, "the parameter {name} is another, or missing"),
            Self::Nobody => f.write_str("the request does not say whose it is"),
            Self::Share(slot, percent) => {
                write!(f, "slot {} is not among the first {percent}", slot.number())
            }
        }
    }
}
