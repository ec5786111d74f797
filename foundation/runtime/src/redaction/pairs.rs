use std::ops::Range;

use super::MASK;
use super::names::{MAX_NAME, Names};

/// Names whose values have spaces: they end with their line.
const WHOLE_LINES: [&str; 2] = ["authorization", "cookie"];

/// From so many numbers of a byte on, a list of them is the bytes of something.
const FEWEST_BYTES: usize = 8;

/// How deep brackets are counted.
const MAX_DEPTH: usize = 64;

/// Finds the values of secret names: `name=value`, `name: value`, `"name": "value"`, `("name", "value")`,
/// `--name value`, `<name>value</name>`, also as URLs and texts within texts write them, and bytes that are
/// shown as numbers.
pub(super) fn find(text: &str, names: &Names, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for at in 0..bytes.len() {
        if at < done || !is_mark(bytes[at]) {
            continue;
        }
        let value = match bytes[at] {
            b'[' => byte_list(bytes, at),
            b'-' => option(text, at, names),
            _ => pair(text, at, names),
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            done = value.end;
            found.push(value);
        }
    }
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'=' | b':' | b',' | b'>' | b'%' | b'-' | b'[')
}

fn pair(text: &str, at: usize, names: &Names) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let after = behind_mark(bytes, at)?;
    let (name, is_quoted) = name_before(text, at)?;
    // Between parts of a list, only a quoted one can be a name.
    if bytes[at] == b',' && !is_quoted || !is_secret(text, &name, names) {
        return None;
    }
    let is_header = bytes[at] == b':' && begins_line(bytes, name.start);
    let is_long = |part: &&str| contains(&text[name.clone()], part);
    let whole_line = is_header || WHOLE_LINES.iter().any(is_long);
    let start = value_start(text, after, is_quoted);
    let end = match bytes.get(start)? {
        b'"' | b'\'' | b'`' | b'\\' => quoted_end(bytes, start).unwrap_or(start),
        b'|' | b'>' if is_block(bytes, start + 1) => block_end(bytes, start + 1),
        _ if whole_line => line_end(bytes, start),
        _ => plain_end(bytes, start),
    };
    shown_otherwise(text, start..end)
}

/// What follows what stands between a name and its value; `None` when it does not stand there.
fn behind_mark(bytes: &[u8], at: usize) -> Option<usize> {
    let next = bytes.get(at + 1).copied();
    match bytes[at] {
        b'%' => match &bytes[at..] {
            [_, b'3', b'D' | b'd' | b'A' | b'a', ..] => Some(at + 3),
            _ => None,
        },
        // A path of a program, or the scheme of a URL.
        b':' if next == Some(b':') || at > 0 && bytes[at - 1] == b':' => None,
        b':' if bytes[at..].starts_with(b"://") => None,
        b'=' if matches!(next, Some(b'=' | b'>')) => Some(at + 2),
        _ => Some(at + 1),
    }
}

/// The name that ends here, and whether it is quoted.
fn name_before(text: &str, at: usize) -> Option<(Range<usize>, bool)> {
    let bytes = text.as_bytes();
    let mut end = at;
    while end > 0 && at - end < 8 && matches!(bytes[end - 1], b' ' | b'"' | b'\'' | b'`' | b'\\') {
        end -= 1;
    }
    let is_quoted = bytes[end..at]
        .iter()
        .any(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let begun = bytes[..end].iter().rev().take(MAX_NAME);
    let length = begun.take_while(|byte| is_name(**byte)).count();
    let mut start = end - length;
    // The `n` of a line break that is written as `\n` is none of the name.
    if start > 0 && bytes[start - 1] == b'\\' && length > 1 {
        start += 1;
    }
    (start < end).then_some((start..end, is_quoted))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']' | b'%')
}

/// Whether the name is secret, alone or with the word in front of it, as in `API key: …`.
fn is_secret(text: &str, name: &Range<usize>, names: &Names) -> bool {
    const SECOND: [&str; 8] = [
        "key", "number", "code", "no", "id", "value", "word", "phrase",
    ];
    let alone = &text[name.clone()];
    if names.has(alone) {
        return true;
    }
    if !SECOND
        .iter()
        .any(|second| second.eq_ignore_ascii_case(alone))
    {
        return false;
    }
    let before = text[..name.start].trim_end_matches(' ');
    let begun = before.bytes().rev().take(MAX_NAME - alone.len());
    let length = begun.take_while(|byte| is_name(*byte)).count();
    let both = format!("{}_{alone}", &before[before.len() - length..]);
    length > 0 && names.has(&both)
}

fn contains(name: &str, part: &str) -> bool {
    name.to_ascii_lowercase()
        .replace(['-', '_'], "")
        .contains(part)
}

/// Where the value begins. Behind a quoted name it may stand on a line of its own.
fn value_start(text: &str, after: usize, is_quoted: bool) -> usize {
    let is_space = |c: char| match is_quoted {
        true => c.is_whitespace(),
        false => c == ' ' || c == '\t',
    };
    text.len() - text[after..].trim_start_matches(is_space).len()
}

/// The end of what begins with a quotation mark, which may have as many backslashes before it as texts
/// within texts need. `None` when a backslash stands there for something else.
fn quoted_end(bytes: &[u8], start: usize) -> Option<usize> {
    let backslashes = |at: usize| {
        bytes[..at]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count()
    };
    let opening = start + bytes[start..].iter().position(|byte| *byte != b'\\')?;
    let (quote, depth) = (bytes[opening], opening - start);
    if !matches!(quote, b'"' | b'\'' | b'`') {
        return Some(plain_end(bytes, start));
    }
    let mut at = opening + 1;
    while at < bytes.len() {
        let escapes = if bytes[at] == quote {
            backslashes(at)
        } else {
            usize::MAX
        };
        let is_end = match depth {
            0 => escapes != usize::MAX && escapes.is_multiple_of(2),
            _ => escapes <= depth,
        };
        if is_end {
            return Some(at + 1);
        }
        at += 1;
    }
    Some(bytes.len())
}

/// The end of a value without quotation marks: at a space or a `&`, with brackets and what they hold.
fn plain_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'(' | b'[' | b'{' => depth = (depth + 1).min(MAX_DEPTH),
            b')' | b']' | b'}' if depth == 0 => return at,
            b')' | b']' | b'}' if depth == 1 => return at + 1,
            b')' | b']' | b'}' => depth -= 1,
            b'"' | b'\'' if depth > 0 => {
                at = quoted_end(bytes, at).unwrap_or(at + 1);
                continue;
            }
            b'"' | b'&' | b'<' if depth == 0 => return at,
            b'%' if depth == 0 && bytes[at..].starts_with(b"%26") => return at,
            b',' | b';' if depth == 0 && ends_word(bytes, at + 1) => return at,
            b' ' if depth == 0
                && bytes[at + 1..].starts_with(b"{")
                && bytes[start].is_ascii_uppercase() => {}
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Whether a name is the first of its line, as in headers and in YAML: there the value is the rest of it.
fn begins_line(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].iter().rev();
    let mut before = before.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'-'));
    matches!(before.next(), None | Some(b'\n' | b'\r'))
}

fn ends_word(bytes: &[u8], at: usize) -> bool {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\\');
    bytes.get(at).is_none_or(ends)
}

/// The end of the line, or of the text in quotation marks that holds it.
fn line_end(bytes: &[u8], start: usize) -> usize {
    let is_end = |at: usize| match &bytes[at..] {
        [b'\n' | b'\r' | b'<', ..] | [b'\\', b'n' | b'r', ..] => true,
        [b'"' | b'\'', rest @ ..] => {
            let next = rest.first();
            next.is_none_or(|next| next.is_ascii_whitespace() || b",;)]}".contains(next))
        }
        _ => false,
    };
    (start..bytes.len())
        .find(|at| is_end(*at))
        .unwrap_or(bytes.len())
}

/// Whether a text of YAML in lines of its own begins.
fn is_block(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b'\n' | b'-' | b'+' | b'\r'))
}

/// The end of the lines that are moved to the right.
fn block_end(bytes: &[u8], start: usize) -> usize {
    let breaks = (start..bytes.len()).filter(|at| bytes[*at] == b'\n');
    let mut breaks = breaks.filter(|at| !matches!(bytes.get(at + 1), Some(b' ' | b'\t' | b'\n')));
    // The first break begins the block.
    breaks.next().unwrap_or(bytes.len())
}

/// `--password hunter2`
fn option(text: &str, at: usize, names: &Names) -> Option<Range<usize>> {
    let name = text[at..].strip_prefix("--")?;
    let length = name
        .bytes()
        .take(MAX_NAME)
        .take_while(|byte| is_name(*byte))
        .count();
    let start = at + 2 + length + 1;
    if length == 0 || name.as_bytes().get(length) != Some(&b' ') || !names.has(&name[..length]) {
        return None;
    }
    let end = match text.as_bytes().get(start)? {
        b'"' | b'\'' => quoted_end(text.as_bytes(), start)?,
        // The next option: this one has no value.
        b'-' => return None,
        _ => plain_end(text.as_bytes(), start),
    };
    shown_otherwise(text, start..end)
}

/// `[104, 117, 110, 116, 101, 114, 50, 33]`
fn byte_list(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b',' | b' ');
    let inside = bytes[at + 1..].iter().take_while(|byte| is_part(byte));
    let end = at + 1 + inside.count();
    if bytes.get(end) != Some(&b']') {
        return None;
    }
    let inside = str::from_utf8(&bytes[at + 1..end]).ok()?;
    let is_byte = |part: &str| part.trim().parse::<u8>().is_ok();
    let count = inside.split(',').take_while(|part| is_byte(part)).count();
    let all = inside.split(',').count();
    (count == all && count >= FEWEST_BYTES).then_some(at..end + 1)
}

/// What tells that there is nothing, or that it was taken out, stays.
fn shown_otherwise(text: &str, value: Range<usize>) -> Option<Range<usize>> {
    let told = text[value.clone()].trim_end_matches(',');
    let is_nothing = ["null", "None", "true", "false", "\"\"", "''"].contains(&told);
    (!is_nothing && !told.starts_with(MASK)).then_some(value)
}
