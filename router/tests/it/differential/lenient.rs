//! A request as careless servers read it: each of their habits once, in all mixtures. Who can be fooled
//! by any of these is fooled by a request only when it means something else to them.

use super::reading::{Framing, Reading, Request};

/// The habits in which careless readers differ from each other.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A carriage return alone ends a line.
    cr_ends_lines: bool,
    /// `content-length` counts more than `transfer-encoding`.
    length_first: bool,
    /// Of two lengths, or two in a list, the last counts.
    last_length: bool,
    /// A line that begins with white space is a field of its own.
    unfolds_nothing: bool,
}

/// All mixtures of the habits.
pub fn readers() -> impl Iterator<Item = Habits> {
    (0..16u8).map(|mixture| Habits {
        cr_ends_lines: mixture & 1 > 0,
        length_first: mixture & 2 > 0,
        last_length: mixture & 4 > 0,
        unfolds_nothing: mixture & 8 > 0,
    })
}

/// Reads the request at the beginning of `bytes`.
pub fn lenient(bytes: &[u8], habits: Habits) -> Reading {
    let mut lines = Lines {
        bytes,
        at: 0,
        habits,
    };
    match lines.request() {
        Some(request) => Reading::Request(Box::new(request)),
        None => Reading::Incomplete,
    }
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    habits: Habits,
}

impl<'a> Lines<'a> {
    /// `None` when its end has not come.
    fn request(&mut self) -> Option<Request> {
        let mut first = self.line()?;
        while first.trim_ascii().is_empty() {
            first = self.line()?;
        }
        let text = String::from_utf8_lossy(first).into_owned();
        let mut words = text.split_ascii_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let http11 = !words.next().unwrap_or_default().ends_with("1.0");
        let fields = self.fields()?;
        let framing = self.framing(&fields);
        let body = match framing {
            Framing::Length(length) => self.take(length)?.to_vec(),
            Framing::Chunked => self.chunks()?,
        };
        Some(Request {
            method,
            target,
            fields,
            framing,
            body,
            http11,
            len: self.at,
        })
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let ends = |byte: &u8| *byte == b'\n' || (self.habits.cr_ends_lines && *byte == b'\r');
        let end = rest.iter().position(ends)?;
        self.at += end + 1;
        if rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n') {
            self.at += 1;
        }
        let line = &rest[..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn fields(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(fields);
            }
            let is_folded = matches!(line[0], b' ' | b'\t') && !self.habits.unfolds_nothing;
            match fields.last_mut().filter(|_| is_folded) {
                Some((_, value)) => value.extend_from_slice(line),
                None => fields.extend(field(line)),
            }
        }
    }

    fn framing(&self, fields: &[(String, Vec<u8>)]) -> Framing {
        let called = |wanted: &str| {
            let named = fields.iter().filter(move |(name, _)| is_same(name, wanted));
            let mut values: Vec<_> = named.map(|(_, value)| value.to_ascii_lowercase()).collect();
            if self.habits.last_length {
                values.reverse();
            }
            values
        };
        let chunked = called("transfer-encoding");
        let chunked = chunked.iter().any(|value| contains(value, b"chunked"));
        let length = called("content-length");
        let length = length.first().map(|value| self.number(value));
        match (length, chunked) {
            (Some(length), true) if self.habits.length_first => Framing::Length(length),
            (_, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        }
    }

    fn number(&self, value: &[u8]) -> usize {
        let mut parts = value.split(|byte| *byte == b',');
        let part = match self.habits.last_length {
            true => parts.next_back(),
            false => parts.next(),
        };
        as_number(part.unwrap_or_default(), 10)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = as_number(self.line()?, 16);
            if size == 0 {
                self.fields()?;
                return Some(body);
            }
            body.extend_from_slice(self.take(size)?);
            self.line()?;
        }
    }
}

/// As C's `strtol`: white space and a sign before it, and anything behind it.
fn as_number(value: &[u8], base: u32) -> usize {
    let text = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    let text = text.trim_start_matches(['+', '-']);
    let text = text
        .strip_prefix("0x")
        .filter(|_| base == 16)
        .unwrap_or(text);
    let digits = text
        .find(|sign: char| !sign.is_digit(base))
        .unwrap_or(text.len());
    usize::from_str_radix(&text[..digits], base).unwrap_or(usize::from(digits > 0) << 40)
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8_lossy(line[..colon].trim_ascii()).to_ascii_lowercase();
    let value = line[colon + 1..].split(|byte| *byte == 0).next();
    Some((name, value.unwrap_or_default().trim_ascii().to_vec()))
}

/// As for CGI, where every sign that is no letter and no digit becomes the same one.
fn is_same(name: &str, wanted: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (b == b'-' && !a.is_ascii_alphanumeric());
    name.len() == wanted.len() && name.bytes().zip(wanted.bytes()).all(same)
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    value.windows(part.len()).any(|window| window == part)
}
