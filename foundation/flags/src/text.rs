//! JSON as people write it: read with every mistake at its line, and places found again by pointer.

use serde_json::Value;

use crate::Mistake;

/// The longest text that is read, in bytes.
pub const MAX_TEXT: usize = 4 << 20;

/// The most keys that are told to stand twice.
const MAX_TWICE: usize = 100;

/// A place in a text: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character in it.
    pub column: u32,
}

/// Reads a JSON text.
///
/// # Errors
///
/// The first mistake of its syntax, or all keys that stand twice in one object, each with its place.
/// Texts above [`MAX_TEXT`], and those nested deeper than 128, are refused.
pub fn read(text: &str) -> Result<Value, Vec<Mistake>> {
    if text.len() > MAX_TEXT {
        let message = format!("the text is longer than {MAX_TEXT} bytes");
        return Err(vec![
            Mistake::at("", message).mend("Split it into several documents."),
        ]);
    }
    let value = serde_json::from_str(text).map_err(|error| vec![not_json(text, &error)])?;
    let twice = Finder::all(text);
    if twice.is_empty() {
        return Ok(value);
    }
    Err(twice)
}

/// Where the value stands that a JSON pointer (RFC 6901) names; for a member of an object, where its key
/// stands. `None` when there is nothing, or the text is no JSON.
pub fn locate(text: &str, pointer: &str) -> Option<Place> {
    let mut finder = Finder::new(text);
    let at = finder.find(pointer)?;
    Some(place(text, at))
}

impl Mistake {
    /// The same, with line and column of what its pointer names in `text`; of the nearest thing around it
    /// when that is missing. One that has a line keeps it.
    #[must_use]
    pub fn located(self, text: &str) -> Self {
        if self.line > 0 {
            return self;
        }
        let mut pointer = self.pointer.as_str();
        let place = loop {
            match (locate(text, pointer), pointer.rfind('/')) {
                (None, Some(end)) => pointer = &pointer[..end],
                (found, _) => break found,
            }
        };
        match place {
            Some(place) => self.on(place),
            None => self,
        }
    }

    fn on(mut self, Place { line, column }: Place) -> Self {
        (self.line, self.column) = (line, column);
        self
    }
}

/// What makes a text no JSON, where, and how to mend it.
pub fn not_json(text: &str, error: &serde_json::Error) -> Mistake {
    let said = error.to_string();
    let message = said.split(" at line ").next().unwrap_or(&said);
    let before: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    // The parser stands behind the character that it can't take.
    let at = (before + error.column()).saturating_sub(1);
    let mend = mend_of(message, text.get(at..).unwrap_or_default());
    Mistake::at("", format!("it is not JSON: {message}"))
        .mend(mend)
        .on(place(text, at))
}

/// What people mostly meant, by what the parser says and the text from there on.
fn mend_of(message: &str, rest: &str) -> &'static str {
    match (message, rest.chars().next()) {
        (_, Some('/')) => "JSON has no comments: a flag's `metadata` can have a `description`.",
        (_, Some('\'')) => "Names and texts stand in double quotes.",
        ("trailing comma", _) | ("key must be a string", Some('}')) => {
            "Take the comma before it away: none stands behind the last one."
        }
        ("key must be a string", _) => "Names stand in double quotes.",
        ("recursion limit exceeded", _) => {
            "Lists and objects are nested no deeper than 127 levels: rules can stand in `$evaluators`."
        }
        _ if message.starts_with("expected `,`") => {
            "Look before it: a comma is missing, or a quote or bracket too many."
        }
        _ if message.starts_with("EOF") => "A quote or bracket that was opened is not closed.",
        _ => "",
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = memchr_count(before) + 1;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    Place {
        line: count(line),
        column: count(characters(&before[start..]) + 1),
    }
}

fn memchr_count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// How many characters begin in these bytes of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One key or index of a pointer, unescaped.
fn steps(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let steps = pointer.strip_prefix('/')?.split('/');
    Some(
        steps
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

/// A key as a step of a pointer.
pub(crate) fn step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Walks over a text that is JSON. What is none ends the walk early, and never panics.
struct Finder<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Finder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// All keys that stand twice.
    fn all(text: &'a str) -> Vec<Mistake> {
        let (mut finder, mut twice) = (Self::new(text), Vec::new());
        finder.duplicates(&mut String::new(), &mut twice);
        twice
    }

    fn find(&mut self, pointer: &str) -> Option<usize> {
        let mut found = self.next_value()?;
        for step in steps(pointer)? {
            found = match self.peek()? {
                b'{' => self.member(&step)?,
                b'[' => self.item(step.parse().ok()?)?,
                _ => return None,
            };
        }
        Some(found)
    }

    /// Goes to a member's value, and says where its key begins.
    fn member(&mut self, wanted: &str) -> Option<usize> {
        self.at += 1;
        while self.next_value().is_some() && self.peek()? == b'"' {
            let start = self.at;
            let key = self.string()?;
            self.colon()?;
            if key == wanted {
                return Some(start);
            }
            self.skip()?;
            self.comma()?;
        }
        None
    }

    fn item(&mut self, wanted: usize) -> Option<usize> {
        self.at += 1;
        for _ in 0..wanted {
            self.next_value()?;
            self.skip()?;
            self.comma()?;
        }
        let start = self.next_value()?;
        (self.peek()? != b']').then_some(start)
    }

    /// Passes a value, and notes the keys that stand twice in it.
    fn duplicates(&mut self, pointer: &mut String, twice: &mut Vec<Mistake>) -> Option<()> {
        if twice.len() >= MAX_TWICE {
            return None;
        }
        self.next_value()?;
        self.deeper(|walk| match walk.peek()? {
            b'{' => walk.members(pointer, twice),
            b'[' => walk.items(pointer, twice),
            _ => walk.scalar(),
        })
    }

    fn members(&mut self, pointer: &mut String, twice: &mut Vec<Mistake>) -> Option<()> {
        let mut keys = std::collections::HashMap::new();
        self.at += 1;
        while self.next_value().is_some() && self.peek()? != b'}' {
            let start = self.at;
            let key = self.string()?;
            let length = pointer.len();
            *pointer += "/";
            *pointer += &step(&key);
            if let Some(first) = keys.insert(key.clone(), start)
                && twice.len() < MAX_TWICE
            {
                twice.push(self.duplicate(pointer, &key, first, start));
            }
            self.colon()?;
            self.duplicates(pointer, twice)?;
            pointer.truncate(length);
            self.comma();
        }
        self.at += 1;
        Some(())
    }

    fn duplicate(&self, pointer: &str, key: &str, first: usize, second: usize) -> Mistake {
        let first = place(self.text, first).line;
        let message = format!("the key `{key}` stands twice here; first on line {first}");
        Mistake::at(pointer, message)
            .mend("Keep one of them: which one counts is not defined.")
            .on(place(self.text, second))
    }

    fn items(&mut self, pointer: &mut String, twice: &mut Vec<Mistake>) -> Option<()> {
        self.at += 1;
        for index in 0.. {
            self.next_value()?;
            if self.peek()? == b']' {
                break;
            }
            let length = pointer.len();
            *pointer += &format!("/{index}");
            self.duplicates(pointer, twice)?;
            pointer.truncate(length);
            self.comma();
        }
        self.at += 1;
        Some(())
    }

    /// Passes a value, whatever is in it.
    fn skip(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            self.next_value()?;
            match self.peek()? {
                b'{' | b'[' => (open, self.at) = (open + 1, self.at + 1),
                b'}' | b']' => (open, self.at) = (open.checked_sub(1)?, self.at + 1),
                b',' | b':' => self.at += 1,
                _ => self.scalar()?,
            }
            if open == 0 {
                return Some(());
            }
        }
    }

    fn scalar(&mut self) -> Option<()> {
        if self.peek()? == b'"' {
            return self.quoted().map(|_| ());
        }
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            .count();
        self.at += length;
        (length > 0).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        serde_json::from_str(self.quoted()?).ok()
    }

    /// A string, in its quotes and with its escapes.
    fn quoted(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        loop {
            match bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    fn colon(&mut self) -> Option<()> {
        self.next_value()?;
        (self.peek()? == b':').then_some(())?;
        self.at += 1;
        self.next_value().map(|_| ())
    }

    /// Passes a comma; `None` when the object or array ends here.
    fn comma(&mut self) -> Option<()> {
        self.next_value()?;
        (self.peek()? == b',').then_some(())?;
        self.at += 1;
        self.next_value().map(|_| ())
    }

    /// Passes white space, and says where the next thing begins.
    fn next_value(&mut self) -> Option<usize> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += rest
            .iter()
            .take_while(|byte| b" \t\r\n".contains(byte))
            .count();
        self.peek().map(|_| self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// serde refuses deeper ones first; this holds when it does not.
    fn deeper(&mut self, walk: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let walked = (self.depth <= 256).then(|| walk(self)).flatten();
        self.depth -= 1;
        walked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "{\n  \"flags\": {\n    \"ä/b\": [1, {\"x\": \"é\", \"y\": null}]\n  }\n}\n";

    fn at(pointer: &str) -> Option<(u32, u32)> {
        locate(TEXT, pointer).map(|place| (place.line, place.column))
    }

    #[test]
    fn a_pointer_names_a_line_and_a_column_in_characters() {
        assert_eq!(at(""), Some((1, 1)));
        assert_eq!(at("/flags"), Some((2, 3)));
        assert_eq!(at("/flags/ä~1b"), Some((3, 5)));
        assert_eq!(at("/flags/ä~1b/0"), Some((3, 13)));
        assert_eq!(at("/flags/ä~1b/1/y"), Some((3, 27)));
    }

    #[test]
    fn what_is_not_there_has_no_place() {
        for pointer in [
            "/flag",
            "/flags/ä~1b/2",
            "/flags/ä~1b/x",
            "flags",
            "/flags/ä~1b/0/0",
        ] {
            assert_eq!(at(pointer), None, "{pointer}");
        }
        assert_eq!(locate("[", "/0"), None);
        assert_eq!(locate("", ""), None);
    }

    #[test]
    fn a_mistake_about_something_missing_stands_at_what_is_around_it() {
        let mistake = Mistake::at("/flags/ä~1b/1/z/q", "missing").located(TEXT);
        assert_eq!((mistake.line, mistake.column), (3, 16));
    }

    #[test]
    fn a_mistake_of_the_syntax_has_its_line_and_column() {
        let mistake = &read("{\n  \"é\": tru\n}").unwrap_err()[0];
        assert_eq!(
            (mistake.line, mistake.message.as_str()),
            (2, "it is not JSON: expected ident")
        );
        assert_eq!(mistake.column, 11, "{mistake}");
    }

    #[test]
    fn a_key_that_stands_twice_is_a_mistake_at_the_second() {
        let text = "{\"a\": [{\"b\": 1,\n \"\\u0062\": 2}], \"c\": {\"d\": {}}, \"a\": 3}";
        let mistakes = read(text).unwrap_err();
        let places: Vec<_> = mistakes
            .iter()
            .map(|it| (it.pointer.as_str(), it.line, it.column))
            .collect();
        assert_eq!(places, [("/a/0/b", 2, 2), ("/a", 2, 33)]);
    }

    #[test]
    fn too_long_and_too_deep_texts_are_refused() {
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&" ".repeat(MAX_TEXT + 1)).is_err());
    }

    /// Every value of a document, with its pointer.
    fn all<'a>(value: &'a Value, pointer: &str, found: &mut Vec<(String, &'a Value)>) {
        found.push((pointer.to_owned(), value));
        match value {
            Value::Array(items) => {
                let indices = items.iter().enumerate();
                indices.for_each(|(index, item)| all(item, &format!("{pointer}/{index}"), found));
            }
            Value::Object(members) => members
                .iter()
                .for_each(|(key, member)| all(member, &format!("{pointer}/{}", step(key)), found)),
            _ => {}
        }
    }

    pub(crate) fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-c~/\"\\\\é]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_is_found_where_it_stands(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            prop_assert_eq!(read(&text), Ok(value.clone()));
            let mut found = Vec::new();
            all(&value, "", &mut found);
            for (pointer, _) in found {
                prop_assert!(locate(&text, &pointer).is_some(), "{}", pointer);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:\\\\ 0-9a-eé\n]*", pointer in "(/[0-9a-e]?){0,3}") {
            let _ = read(&text);
            let _ = locate(&text, &pointer);
            let _ = Finder::all(&text);
        }
    }
}
