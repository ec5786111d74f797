//! Texts and documents with places that are filled in from a submission.

use std::fmt;
use std::path::Path;

use serde_json::Value;

/// The longest text, and the largest document, in bytes.
const MAX_TEXT: usize = 4096;
const MAX_DOCUMENT: u64 = 256 * 1024;
/// How deep a document is at most.
const MAX_DEPTH: usize = 32;

/// A text with places, as `{date}/{id}`. `{{` and `}}` stand for the braces themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Place(Place),
}

/// What may be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Id,
    Form,
    Store,
    User,
    Session,
    /// The day on which it was accepted, in UTC, as `2026-03-01`.
    Date,
    AcceptedAt,
    SubmittedAt,
    /// What the REST consumer calls it.
    Reference,
    /// The fields, or what stands in them at a JSON pointer.
    Fields(String),
    /// The list of attachments.
    Attachments,
}

/// A JSON document with places in its texts. A text that is one place and nothing else becomes the value, of
/// whatever type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document {
    /// JSON as it is.
    Fixed(String),
    Value(Place),
    Text(Template),
    List(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, to stand behind "has a … that".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("has more than {MAX_TEXT} bytes"));
        }
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            fixed.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                fixed.push_str(brace);
                rest = behind;
                continue;
            }
            let (name, behind) = match (brace, rest.split_once('}')) {
                ("{", Some(found)) => found,
                _ => return Err("has a brace without its other half; \"{{\" is a brace".into()),
            };
            if !fixed.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut fixed)));
            }
            parts.push(Part::Place(name.parse()?));
            rest = behind;
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            parts.push(Part::Text(fixed));
        }
        Ok(Self(parts))
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// What stands before the first place.
    pub(crate) fn fixed_beginning(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether there is no place in it.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether it names a folder that only one submission has, and that is within another.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn check_path(&self) -> Result<(), String> {
        let has_id = self.0.contains(&Part::Place(Place::Id));
        if !has_id {
            return Err("has no \"{id}\": each submission has a folder of its own".into());
        }
        let shape = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(_) => "x".into(),
        };
        let path: String = self.0.iter().map(shape).collect();
        let is_name = |name: &str| {
            let is_bad = |letter: char| letter.is_control() || letter == '\\';
            !name.is_empty() && !name.starts_with('.') && !name.contains(is_bad)
        };
        match path.split('/').all(is_name) {
            true => Ok(()),
            false => Err(
                "is not a path of names, as \"{date}/{id}\", none of which begins with a dot"
                    .into(),
            ),
        }
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "id" => Self::Id,
            "form" => Self::Form,
            "store" => Self::Store,
            "user" => Self::User,
            "session" => Self::Session,
            "date" => Self::Date,
            "acceptedAt" => Self::AcceptedAt,
            "submittedAt" => Self::SubmittedAt,
            "reference" => Self::Reference,
            "attachments" => Self::Attachments,
            "fields" => Self::Fields(String::new()),
            _ => match name.strip_prefix("fields") {
                Some(pointer) if pointer.starts_with('/') => Self::Fields(pointer.into()),
                _ => return Err(unknown(name)),
            },
        })
    }
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(50).collect();
    format!(
        "has a place `{{{}}}`, which is unknown; there are id, form, store, user, session, date, \
         acceptedAt, submittedAt, reference, attachments, fields and fields/NAME",
        name.escape_debug()
    )
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or says something that can't be.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        read(path).map_err(|error| {
            let path = path.display();
            format!("has a `body` that can't be used, {path}: {error}")
        })
    }

    fn of(value: &Value, depth: usize) -> Result<Self, String> {
        if depth > MAX_DEPTH {
            return Err("it is too deep".into());
        }
        Ok(match value {
            Value::String(text) => Self::of_text(text)?,
            Value::Array(list) => {
                let list = list.iter().map(|one| Self::of(one, depth + 1));
                Self::List(list.collect::<Result<_, _>>()?)
            }
            Value::Object(object) => {
                let both = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), Self::of(value, depth + 1)?))
                };
                let object = object.iter().map(both);
                Self::Object(object.collect::<Result<_, String>>()?)
            }
            fixed => Self::Fixed(fixed.to_string()),
        })
    }

    fn of_text(text: &str) -> Result<Self, String> {
        let shown = |why| format!("a text in it {why}");
        let template = Template::parse(text).map_err(shown)?;
        Ok(match template.parts() {
            [Part::Place(place)] => Self::Value(place.clone()),
            _ => Self::Text(template),
        })
    }
}

fn read(path: &Path) -> Result<Document, String> {
    let size = std::fs::metadata(path).map_err(text)?.len();
    if size > MAX_DOCUMENT {
        return Err("it has more than 256kB".into());
    }
    let document = std::fs::read_to_string(path).map_err(text)?;
    Document::of(&serde_json::from_str(&document).map_err(text)?, 0)
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_and_braces_are_told_apart() {
        let parts = |text| Template::parse(text).map(|template| template.0);
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(parts(""), Ok(vec![]));
        assert_eq!(parts("a{{b}}"), Ok(vec![text("a{b}")]));
        let expected = vec![
            Part::Place(Place::Date),
            text("/"),
            Part::Place(Place::Fields("/a/b".into())),
            text("."),
        ];
        assert_eq!(parts("{date}/{fields/a/b}."), Ok(expected));
        for (wrong, why) in [
            ("{id", "other half"),
            ("id}", "other half"),
            ("{", "other half"),
            ("{nothing}", "`{nothing}`, which is unknown"),
            ("{fieldsx}", "unknown"),
        ] {
            let error = parts(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_path_stays_within_its_folder_and_belongs_to_one_submission() {
        let check = |text| Template::parse(text).unwrap().check_path();
        for good in ["{id}", "{date}/{id}", "{store}/a-{id}.d"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "{date}",
            "/{id}",
            "{id}/",
            "../{id}",
            "a/../{id}",
            ".{id}",
            "a//{id}",
            "a\\{id}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_ends_well(text in "\\PC{0,40}|[{}a-z/]{0,40}") {
            let _ = Template::parse(&text);
        }
    }
}
