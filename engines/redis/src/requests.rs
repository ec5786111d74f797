//! What is asked of Redis: scripts, so that each request is one atomic step, and what they answer.

use std::sync::LazyLock;
use std::time::Duration;

use hydrant_ports::state::{Put, Under};
use hydrant_ports::{EngineError, ErrorKind, Expect, Key, Prefix};
use redis::{Cmd, Value};

use crate::error::corrupt;
use crate::names::Names;

/// How large a value is told in a message; a larger one is fetched by who wants it.
const INLINE: usize = 16 << 10;
/// How many keys are looked at in one step: each step holds up the server.
const PAGE: usize = 256;
/// After how many bytes a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// The longest life that Redis is told; what is longer lasts as long.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A script that the server keeps by the digest of its text.
pub(crate) struct Script {
    text: String,
    digest: String,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!($file), "\n"),+)));
    };
}

script!(PUT, "scripts/common.lua", "scripts/put.lua");
script!(DELETE, "scripts/common.lua", "scripts/delete.lua");
script!(GET, "scripts/get.lua");
script!(LIST, "scripts/list.lua");
script!(RAISE, "scripts/raise.lua");
script!(SWEEP, "scripts/common.lua", "scripts/sweep.lua");

impl Script {
    fn new(text: &str) -> Self {
        let digest = redis::Script::new(text).get_hash().to_owned();
        let text = text.to_owned();
        Self { text, digest }
    }
}

/// A request, in the two forms that a script can be called in.
pub(crate) struct Request {
    script: Option<&'static Script>,
    arguments: Vec<Vec<u8>>,
    keys: usize,
}

impl Request {
    fn new(script: &'static Script, keys: &[&str]) -> Self {
        Self {
            script: Some(script),
            arguments: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            keys: keys.len(),
        }
    }

    /// A command as it is.
    fn plain(words: &[&str]) -> Self {
        Self {
            script: None,
            arguments: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            keys: 0,
        }
    }

    fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arguments.push(argument.as_ref().to_vec());
        self
    }

    /// The command; `in_full` where the server does not know the script.
    pub(crate) fn command(&self, in_full: bool) -> Cmd {
        let mut command = Cmd::new();
        match (self.script, in_full) {
            (None, _) => {}
            (Some(script), false) => {
                command.arg("EVALSHA").arg(&script.digest).arg(self.keys);
            }
            (Some(script), true) => {
                command.arg("EVAL").arg(&script.text).arg(self.keys);
            }
        }
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}

pub(crate) fn put(names: &Names, key: &Key, value: &[u8], options: &Put) -> Request {
    let name = key.as_str();
    let life = options
        .ttl
        .map(|ttl| ttl.min(LONGEST).as_micros().div_ceil(1000));
    let life = life.map(|ms| ms.to_string()).unwrap_or_default();
    let (mark, epoch) = fence(options.under.as_ref());
    on_entry(&PUT, names, name)
        .with(value)
        .with(expectation(options.expect))
        .with(life)
        .with(mark)
        .with(epoch)
        .with(INLINE.to_string())
}

pub(crate) fn delete(names: &Names, key: &Key, expect: Expect, under: Option<&Under>) -> Request {
    let (mark, epoch) = fence(under);
    on_entry(&DELETE, names, key.as_str())
        .with(expectation(expect))
        .with(mark)
        .with(epoch)
}

fn on_entry(script: &'static Script, names: &Names, name: &str) -> Request {
    let keys = [
        names.entry_of(name),
        names.names.clone(),
        names.ends.clone(),
        names.marks.clone(),
        names.counter.clone(),
    ];
    Request::new(script, &keys.each_ref().map(String::as_str))
        .with(&names.channel)
        .with(name)
}

pub(crate) fn get(names: &Names, key: &Key) -> Request {
    Request::new(&GET, &[&names.entry_of(key.as_str())])
}

/// A page of at most `limit` entries.
pub(crate) fn list(names: &Names, prefix: &Prefix, after: Option<&str>, limit: usize) -> Request {
    let prefix = prefix.as_str();
    let after = after.filter(|after| *after >= prefix);
    let least = match (after, prefix) {
        (Some(after), _) => format!("({after}"),
        (None, "") => "-".into(),
        (None, prefix) => format!("[{prefix}"),
    };
    // No key has a byte above those of ASCII.
    let mut greatest = match prefix {
        "" => b"+".to_vec(),
        prefix => format!("({prefix}").into_bytes(),
    };
    if !prefix.is_empty() {
        greatest.push(0xff);
    }
    Request::new(&LIST, &[&names.names, &names.counter])
        .with(&names.entry)
        .with(least)
        .with(greatest)
        .with(limit.min(PAGE).to_string())
        .with(PAGE_BYTES.to_string())
}

pub(crate) fn raise<'a>(names: &Names, marks: impl IntoIterator<Item = (&'a Key, u64)>) -> Request {
    let mut request = Request::new(&RAISE, &[&names.marks]);
    for (mark, epoch) in marks {
        request = request.with(mark.as_str()).with(padded(epoch));
    }
    request
}

pub(crate) fn sweep(names: &Names) -> Request {
    Request::new(&SWEEP, &[&names.names, &names.ends, &names.counter])
        .with(&names.channel)
        .with(&names.entry)
        .with(PAGE.to_string())
}

pub(crate) fn mark(names: &Names, mark: &Key) -> Request {
    Request::plain(&["HGET", &names.marks, mark.as_str()])
}

/// About `most` of the marks of a partition, behind a cursor; the first is "0".
pub(crate) fn some_marks(names: &Names, cursor: &str, most: usize) -> Request {
    Request::plain(&["HSCAN", &names.marks, cursor, "COUNT", &most.to_string()])
}

pub(crate) fn probe(names: &Names) -> Request {
    Request::plain(&["SET", &names.probe, "1"])
}

/// An epoch as a text that sorts as the number does: a script has no whole numbers above 2^53.
fn padded(epoch: u64) -> String {
    format!("{epoch:020}")
}

fn fence(under: Option<&Under>) -> (&str, String) {
    match under {
        Some(under) => (under.mark.as_str(), padded(under.epoch)),
        None => ("", "0".into()),
    }
}

fn expectation(expect: Expect) -> String {
    match expect {
        Expect::Any => "any".into(),
        Expect::Absent => "absent".into(),
        Expect::Revision(revision) => revision.to_string(),
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; the revision, or 0 when there was nothing to delete.
    Done(u64),
    /// The partition's mark is lower than the writer's epoch.
    Behind,
}

/// An entry as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) value: bytes::Bytes,
    pub(crate) under: Option<Under>,
    pub(crate) ttl: Option<Duration>,
}

/// Part of what is below a prefix in one partition.
#[derive(Debug)]
pub(crate) struct Page {
    /// The partition's revision when it was read.
    pub(crate) revision: u64,
    /// Behind which key the next page begins; `None` at the end.
    pub(crate) next: Option<String>,
    pub(crate) entries: Vec<Found>,
}

pub(crate) fn outcome(key: &Key, answer: Value) -> Result<Outcome, EngineError> {
    let mut words = texts(answer)?.into_iter();
    let kind = words.next().unwrap_or_default();
    let number = words.next().unwrap_or_default();
    match kind.as_slice() {
        b"ok" => Ok(Outcome::Done(number_of(&number)?)),
        b"behind" => Ok(Outcome::Behind),
        b"superseded" => Err(superseded(number_of(&number)?)),
        b"conflict" => {
            let found = match number.as_slice() {
                b"" => "absent".into(),
                number => format!("at revision {}", String::from_utf8_lossy(number)),
            };
            let message = format!("{key} is {found}, which the write did not expect");
            Err(EngineError::new(ErrorKind::Conflict, message))
        }
        _ => Err(corrupt("an unknown outcome of a write")),
    }
}

pub(crate) fn superseded(known: u64) -> EngineError {
    let message = format!("a higher epoch is known: {known}");
    EngineError::new(ErrorKind::Superseded { known }, message)
}

pub(crate) fn found(key: &Key, answer: Value) -> Result<Option<Found>, EngineError> {
    let words = texts(answer)?;
    match words.is_empty() {
        true => Ok(None),
        false => entry(key.clone(), &mut words.into_iter()).map(Some),
    }
}

pub(crate) fn page(answer: Value) -> Result<Page, EngineError> {
    let mut words = texts(answer)?.into_iter();
    let revision = number_of(&words.next().unwrap_or_default())?;
    let next = words.next().unwrap_or_default();
    let next = text_of(next)?;
    let mut entries = Vec::with_capacity(words.len() / 6);
    while let Some(name) = words.next() {
        let key = text_of(name)?.parse()?;
        entries.push(entry(key, &mut words)?);
    }
    Ok(Page {
        revision,
        next: Some(next).filter(|next| !next.is_empty()),
        entries,
    })
}

/// The revision, value, mark, epoch and life of an entry.
fn entry(key: Key, words: &mut impl Iterator<Item = Vec<u8>>) -> Result<Found, EngineError> {
    let mut word = || words.next().ok_or_else(|| corrupt("half an entry"));
    let revision = number_of(&word()?)?;
    let value = word()?.into();
    let under = under(&text_of(word()?)?, &word()?)?;
    let left_ms = text_of(word()?)?;
    let left_ms: i64 = left_ms.parse().map_err(|_| corrupt("a time to live"))?;
    let ttl = u64::try_from(left_ms).ok().map(Duration::from_millis);
    Ok(Found {
        key,
        revision,
        value,
        under,
        ttl,
    })
}

/// A mark and an epoch; no mark is an empty text.
pub(crate) fn under(mark: &str, epoch: &[u8]) -> Result<Option<Under>, EngineError> {
    if mark.is_empty() {
        return Ok(None);
    }
    let mark = mark.parse()?;
    let epoch = number_of(epoch)?;
    Ok(Some(Under { mark, epoch }))
}

/// The next cursor, "0" at the end, and marks with their epochs.
pub(crate) fn marks(answer: Value) -> Result<(String, Vec<(Key, u64)>), EngineError> {
    let Value::Array(parts) = answer else {
        return Err(corrupt("no part of the marks"));
    };
    let Ok([Value::BulkString(cursor), marks]) = <[Value; 2]>::try_from(parts) else {
        return Err(corrupt("half of the marks"));
    };
    let mut words = texts(marks)?.into_iter();
    let mut marks = Vec::new();
    while let (Some(mark), Some(epoch)) = (words.next(), words.next()) {
        marks.push((text_of(mark)?.parse()?, number_of(&epoch)?));
    }
    Ok((text_of(cursor)?, marks))
}

/// A number that the server may not know, which is 0 then.
pub(crate) fn number(answer: Value) -> Result<u64, EngineError> {
    match answer {
        Value::Nil => Ok(0),
        Value::BulkString(text) if text.is_empty() => Ok(0),
        Value::BulkString(text) => number_of(&text),
        _ => Err(corrupt("no number")),
    }
}

fn texts(answer: Value) -> Result<Vec<Vec<u8>>, EngineError> {
    let Value::Array(values) = answer else {
        return Err(corrupt("no array"));
    };
    let text = |value| match value {
        Value::BulkString(text) => Ok(text),
        _ => Err(corrupt("no text in an array")),
    };
    values.into_iter().map(text).collect()
}

pub(crate) fn number_of(text: &[u8]) -> Result<u64, EngineError> {
    let digits = std::str::from_utf8(text).ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    number.ok_or_else(|| corrupt("a number"))
}

fn text_of(text: Vec<u8>) -> Result<String, EngineError> {
    String::from_utf8(text).map_err(|_| corrupt("a text"))
}
