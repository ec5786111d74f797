//! Changes of a JSON text at one place, that leave the rest as a person wrote it.

use std::ops::Range;

/// A text that can't be changed so, as it is no JSON, or has no object at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSuchPlace;

/// One member of an object: where its name begins, and its value.
struct Member {
    name: String,
    start: usize,
    value: Range<usize>,
}

/// The text of the value at a path of names; `None` when there is none.
pub(crate) fn get<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    Some(&text[find(text, path)?])
}

/// The names in the object at a path, in their order.
pub(crate) fn names(text: &str, path: &[&str]) -> Vec<String> {
    let object = find(text, path).and_then(|at| members(text, at.start));
    let members = object.unwrap_or_default();
    members.into_iter().map(|member| member.name).collect()
}

/// The text with this value at a path: in the place of another one, or behind the last member of its
/// object. A value of several lines is moved in as far as the place is.
pub(crate) fn put(text: &str, path: &[&str], value: &str) -> Result<String, NoSuchPlace> {
    let (name, parent) = path.split_last().ok_or(NoSuchPlace)?;
    let value = value.trim();
    if let Some(at) = find(text, path) {
        let value = moved_in(value, indent_of(text, at.start));
        return Ok([&text[..at.start], &value, &text[at.end..]].concat());
    }
    let object = find(text, parent).ok_or(NoSuchPlace)?;
    let members = members(text, object.start).ok_or(NoSuchPlace)?;
    let name = serde_json::Value::from(*name).to_string();
    let (end, gap, close) = match members.last() {
        Some(last) => {
            let gap =
                &text[text[..last.start].rfind(['{', ',']).ok_or(NoSuchPlace)? + 1..last.start];
            (last.value.end, format!(",{gap}"), String::new())
        }
        None => {
            let outer = indent_of(text, object.start);
            (
                object.start + 1,
                format!("\n{outer}  "),
                format!("\n{outer}"),
            )
        }
    };
    let end_of_object = match members.is_empty() {
        true => object.end - 1,
        false => end,
    };
    let indent = gap.rsplit('\n').next().unwrap_or_default().replace(',', "");
    let value = moved_in(value, &indent);
    Ok([
        &text[..end],
        &gap,
        &name,
        ": ",
        &value,
        &close,
        &text[end_of_object..],
    ]
    .concat())
}

/// The text without the member at a path.
pub(crate) fn remove(text: &str, path: &[&str]) -> Result<String, NoSuchPlace> {
    let (name, parent) = path.split_last().ok_or(NoSuchPlace)?;
    let object = find(text, parent).ok_or(NoSuchPlace)?;
    let members = members(text, object.start).ok_or(NoSuchPlace)?;
    let at = members
        .iter()
        .position(|member| member.name == *name)
        .ok_or(NoSuchPlace)?;
    let cut = match (at, members.get(at + 1)) {
        // The next one takes its place.
        (_, Some(next)) => members[at].start..next.start,
        (0, None) => object.start + 1..object.end - 1,
        (at, None) => members[at - 1].value.end..members[at].value.end,
    };
    Ok([&text[..cut.start], &text[cut.end..]].concat())
}

fn find(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let start = skip_blank(text, 0);
    let mut at = start..value_end(text, start)?;
    for name in path {
        let members = members(text, at.start)?;
        at = members
            .into_iter()
            .find(|member| member.name == *name)?
            .value;
    }
    Some(at)
}

/// The members of the object that begins at `start`; `None` when there is no object.
fn members(text: &str, start: usize) -> Option<Vec<Member>> {
    let bytes = text.as_bytes();
    if bytes.get(start) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::new();
    let mut at = skip_blank(text, start + 1);
    while *bytes.get(at)? != b'}' {
        let end = value_end(text, at)?;
        let name = serde_json::from_str(text.get(at..end)?).ok()?;
        let colon = skip_blank(text, end);
        let value = skip_blank(text, colon + 1);
        let value = value..value_end(text, value)?;
        let next = skip_blank(text, value.end);
        members.push(Member {
            name,
            start: at,
            value,
        });
        at = match *bytes.get(next)? {
            b',' => skip_blank(text, next + 1),
            _ => next,
        };
    }
    Some(members)
}

fn skip_blank(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count()
}

/// Where the value that begins at `start` ends.
fn value_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(start)? {
        b'"' => string_end(bytes, start),
        b'{' | b'[' => nest_end(bytes, start),
        b',' | b':' | b'}' | b']' => None,
        _ => {
            let ends = |byte: &u8| b",]}:".contains(byte) || byte.is_ascii_whitespace();
            let length = bytes[start..].iter().position(ends);
            Some(start + length.unwrap_or(bytes.len() - start))
        }
    }
}

fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn nest_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The blanks at the beginning of the line in which `at` is.
fn indent_of(text: &str, at: usize) -> &str {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let rest = &text[line..at];
    &rest[..rest.len() - rest.trim_start().len()]
}

/// The lines of a value behind the first, with blanks before them.
fn moved_in(value: &str, indent: &str) -> String {
    value.replace('\n', &format!("\n{indent}"))
}

/// The lines of a value behind the first, without the blanks that all of them have.
pub(crate) fn moved_out(value: &str) -> String {
    let blanks = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let rest = value.lines().skip(1).filter(|line| !line.trim().is_empty());
    let common = rest.map(blanks).min().unwrap_or(0);
    let mut lines = value.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| {
        text + "\n" + line.get(common..).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TEXT: &str = "\
{
  \"flags\": {
    \"b\": { \"state\": \"ENABLED\",   \"n\": 1 },
    \"a\": {\"x\": [1, {\"}\": \"\\\"\"}]}
  },
  \"empty\": {}
}
";

    #[test]
    fn one_place_changes_and_the_rest_stays() {
        let changed = put(TEXT, &["flags", "b", "state"], "\"DISABLED\"").unwrap();
        assert_eq!(changed, TEXT.replace("ENABLED", "DISABLED"));
        let added = put(TEXT, &["flags", "c"], "{\n  \"y\": 2\n}").unwrap();
        let expected = "]},\n    \"c\": {\n      \"y\": 2\n    }\n  },";
        assert_eq!(added, TEXT.replace("]}\n  },", expected));
        let filled = put(TEXT, &["empty", "z"], "null").unwrap();
        assert!(
            filled.ends_with("\"empty\": {\n    \"z\": null\n  }\n}\n"),
            "{filled}"
        );
        let inline = put(TEXT, &["flags", "b", "m"], "true").unwrap();
        assert!(inline.contains("\"n\": 1,   \"m\": true }"), "{inline}");
        for (path, left) in [(["flags", "b"], "a"), (["flags", "a"], "b")] {
            let removed = remove(TEXT, &path).unwrap();
            let value: Value = serde_json::from_str(&removed).unwrap();
            let names: Vec<_> = value["flags"].as_object().unwrap().keys().collect();
            assert_eq!(names, [left]);
        }
        assert_eq!(names(TEXT, &["flags"]), ["b", "a"]);
        assert_eq!(
            get(TEXT, &["flags", "a", "x"]),
            Some("[1, {\"}\": \"\\\"\"}]")
        );
        assert_eq!(moved_out("{\n      \"y\": 2\n    }"), "{\n  \"y\": 2\n}");
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for text in [
            "",
            "{",
            "{\"a",
            "{\"a\"",
            "{\"a\":",
            "[1",
            "{,}",
            "{\"a\":1 \"b\"}",
            "}",
            "\"\\",
            "{1:2}",
        ] {
            for path in [&["a"][..], &["a", "b"], &[]] {
                let _ = (get(text, path), put(text, path, "1"), remove(text, path));
            }
        }
        assert_eq!(put("[]", &["a"], "1"), Err(NoSuchPlace));
        assert_eq!(remove(TEXT, &["flags", "z"]), Err(NoSuchPlace));
    }
}
