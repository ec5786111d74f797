//! What must not be shown, in one set of rules for logs, audit rows, screens and errors: secrets and data
//! about people go out by the name of their field and by what they look like, and what is left can
//! neither forge a line nor be markup.

mod addresses;
mod escape;
mod names;
mod numbers;
mod pairs;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use names::Names;

/// What stands where something was taken out.
pub const MASK: &str = "[redacted]";

/// The variable with more names of fields, as `badge,employee_no`.
pub const NAMES: &str = "HYDRANT_REDACT";
/// The variable with more patterns, one a line.
pub const PATTERNS: &str = "HYDRANT_REDACT_PATTERNS";

/// How many names and patterns may be added.
const MAX_ADDED: usize = 100;
/// How large a compiled pattern may be, in bytes.
const MAX_COMPILED: usize = 256 * 1024;

/// Secrets that are known by how they begin: tokens of the well-known kinds, credentials of HTTP, and
/// private keys over all their lines.
const TOKENS: &str = concat!(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\z)",
    r"|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}",
    r"|(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{12,}",
    r"|hyk_[A-Za-z0-9_-]+",
    r"|h1\.(?:operator|(?:api|orchestration|service)/[a-z0-9-]+)\.[A-Za-z0-9_-]{16,}",
    r"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}",
    r"|xox[abeoprs]-[A-Za-z0-9-]{8,}|AIza[A-Za-z0-9_-]{30,}",
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}",
    // A word of plain lower case behind it is prose, as in "basic authentication".
    r"|(?:[Bb]earer|BEARER|[Bb]asic|BASIC|[Nn]egotiate)(?:[ +]|%20)+[a-z]*[A-Z0-9+/=_.~%-][A-Za-z0-9+/=_.~%-]*",
);

/// The rules. Cheap to ask for text that has nothing suspicious: one pass over its bytes.
#[derive(Debug)]
pub struct Redaction {
    names: Names,
    tokens: Regex,
    /// What an operator has added.
    added: Vec<Regex>,
}

/// A rule that can't be used, and why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidRule(String);

impl Default for Redaction {
    fn default() -> Self {
        Self::new(&[], &[]).expect("our own rules are good")
    }
}

impl Redaction {
    /// The rules that hold everywhere, and more names and patterns (regular expressions) of an
    /// operator, at most 100 of each. A name counts however it is written: `api_key` is `X-API-Key` too.
    pub fn new(names: &[String], patterns: &[String]) -> Result<Self, InvalidRule> {
        if names.len() > MAX_ADDED || patterns.len() > MAX_ADDED {
            return Err(InvalidRule(format!(
                "at most {MAX_ADDED} names and {MAX_ADDED} patterns can be added"
            )));
        }
        let added = patterns.iter().map(|pattern| compile(pattern));
        Ok(Self {
            names: Names::new(names)?,
            tokens: Regex::new(TOKENS).map_err(|error| InvalidRule(error.to_string()))?,
            added: added.collect::<Result<_, _>>()?,
        })
    }

    /// The rules of this process: those of [`Redaction::share`], else what its environment adds.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(Self::from_env)
    }

    /// Makes these the rules of this process. Without effect once they have been asked for.
    pub fn share(self) {
        let _ = SHARED.set(self);
    }

    /// What the node has put into the environment was checked there; what somebody else has and can't
    /// be used leaves the rules that hold everywhere.
    fn from_env() -> Self {
        let list = |name, separator| {
            let text: String = std::env::var(name).unwrap_or_default();
            let parts = text.split(separator).map(str::trim);
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        Self::new(&list(NAMES, ','), &list(PATTERNS, '\n')).unwrap_or_else(|error| {
            eprintln!("hydrant: {NAMES} and {PATTERNS} are left out: {error}");
            Self::default()
        })
    }

    /// Whether what stands under this name is never shown: `password`, `X-Api-Key`, `cardNumber`.
    pub fn is_secret_name(&self, name: &str) -> bool {
        self.names.has(name)
    }

    /// The text without what must not be shown. Line breaks and markup stay: see [`Redaction::line`].
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.masked(text, Look::at(text))
    }

    /// The text as a part of a line: without what must not be shown, and without what could forge a
    /// line, steer a terminal or be markup.
    pub fn line<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let look = Look::at(text);
        match self.masked(text, look) {
            masked if !look.has(Look::ESCAPED) => masked,
            Cow::Borrowed(text) => escape::escaped(text),
            Cow::Owned(text) => Cow::Owned(escape::escaped(&text).into_owned()),
        }
    }

    /// The value of a field, as [`Redaction::line`] shows its texts.
    pub fn field(&self, name: &str, mut value: Value) -> Value {
        self.clean(name, &mut value);
        value
    }

    /// All fields of a document, however deep, by their names and by what their texts and numbers look
    /// like. Names are cleaned as texts are.
    pub fn document(&self, value: &mut Value) {
        self.clean("", value);
    }

    fn clean(&self, name: &str, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            _ if self.is_secret_name(name) => *value = MASK.into(),
            Value::String(text) => {
                if let Cow::Owned(clean) = self.line(text) {
                    *text = clean;
                }
            }
            Value::Number(number) => {
                if numbers::is_long(number) && self.is_number_shown(number) == Some(false) {
                    *value = MASK.into();
                }
            }
            Value::Array(values) => {
                for value in values {
                    self.clean("", value);
                }
            }
            Value::Object(fields) => {
                let all = std::mem::take(fields);
                fields.extend(all.into_iter().map(|(name, mut value)| {
                    self.clean(&name, &mut value);
                    match self.line(&name) {
                        Cow::Owned(clean) => (clean, value),
                        Cow::Borrowed(_) => (name, value),
                    }
                }));
            }
        }
    }

    fn is_number_shown(&self, number: &serde_json::Number) -> Option<bool> {
        // A card's number may have been read as a float.
        let text = match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => format!("{float:.0}"),
            None => number.to_string(),
        };
        Some(self.text(&text) == text)
    }

    fn masked<'a>(&self, text: &'a str, look: Look) -> Cow<'a, str> {
        let mut found = Vec::new();
        if look.has(Look::PAIR) {
            pairs::find(text, &self.names, &mut found);
        }
        if look.has(Look::ADDRESS) {
            addresses::find(text, &mut found);
        }
        if look.digits >= numbers::FEWEST {
            numbers::find(text, &mut found);
        }
        for pattern in std::iter::once(&self.tokens).chain(&self.added) {
            let matches = pattern.find_iter(text).map(|found| found.range());
            found.extend(matches.filter(|range| !range.is_empty()));
        }
        match found.is_empty() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(without(text, found)),
        }
    }
}

static SHARED: OnceLock<Redaction> = OnceLock::new();

fn compile(pattern: &str) -> Result<Regex, InvalidRule> {
    let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
    let regex = built.map_err(|error| {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        InvalidRule(format!(
            "`{}` is not a pattern: {why}",
            pattern.escape_debug()
        ))
    })?;
    match regex.is_match("") {
        false => Ok(regex),
        true => Err(InvalidRule(format!(
            "the pattern `{pattern}` fits everything, also nothing"
        ))),
    }
}

/// The text with a mask in the place of each of the ranges.
fn without(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut shown = String::with_capacity(text.len());
    let mut done = 0;
    for range in ranges {
        if range.end <= done {
            continue;
        }
        if range.start > done || done == 0 {
            shown.push_str(&text[done..range.start.max(done)]);
            shown.push_str(MASK);
        }
        done = range.end;
    }
    shown + &text[done..]
}

/// What there is in a text, by which most rules need no look at it.
#[derive(Clone, Copy)]
struct Look {
    classes: u8,
    digits: usize,
}

impl Look {
    /// Control characters, markup, and what is not ASCII.
    const ESCAPED: u8 = 1;
    /// What may stand between a name and its value.
    const PAIR: u8 = 2;
    /// What an e-mail address or the credentials of a URL have.
    const ADDRESS: u8 = 4;
    const DIGIT: u8 = 8;

    fn at(text: &str) -> Self {
        let (mut classes, mut digits) = (0, 0);
        for byte in text.bytes() {
            let class = CLASSES[usize::from(byte)];
            classes |= class;
            digits += usize::from(class >> 3);
        }
        Self { classes, digits }
    }

    fn has(self, class: u8) -> bool {
        self.classes & class != 0
    }
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0..=31 | 127.. | b'<' => Look::ESCAPED,
            b'>' => Look::ESCAPED | Look::PAIR,
            b'=' | b':' | b',' => Look::PAIR,
            b'-' | b'[' => Look::PAIR,
            b'@' => Look::ADDRESS,
            b'%' => Look::ADDRESS | Look::PAIR,
            b'0'..=b'9' => Look::DIGIT,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
