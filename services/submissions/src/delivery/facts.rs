//! What a submission tells its consumers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::forms::template::{Document, Part, Place, Template};
use crate::proto::{Attachment, Origin, Task};

/// A submission, to be told.
pub(super) struct Facts<'a> {
    task: &'a Task,
    origin: Origin,
    /// As it was sent: a number with many digits has them all.
    fields: &'a RawValue,
}

/// All of it, as consumers get it that want nothing else.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    id: &'a str,
    form: &'a str,
    store: &'a str,
    user: &'a str,
    accepted_at: String,
    submitted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    fields: &'a RawValue,
    attachments: Vec<Attached<'a>>,
}

#[derive(Serialize)]
struct Attached<'a> {
    /// Its file beside the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    name: &'a str,
    r#type: &'a str,
    size: u64,
    sha256: &'a str,
}

impl<'a> Facts<'a> {
    /// None if the fields are no JSON: then they are not what was accepted.
    pub(super) fn new(task: &'a Task) -> Option<Self> {
        Some(Self {
            task,
            origin: task.origin.as_option().cloned().unwrap_or_default(),
            fields: serde_json::from_str(&task.fields).ok()?,
        })
    }

    /// All of it; `files` are the names of the attachments' files, where there are some.
    pub(super) fn whole(&self, files: &[String]) -> String {
        let attachments = self.task.attachments.iter().enumerate();
        let whole = Whole {
            id: &self.task.id,
            form: &self.task.form,
            store: &self.origin.store,
            user: &self.origin.user,
            accepted_at: time(self.task.accepted_unix_ms),
            submitted_at: time(self.task.submitted_unix_ms),
            reference: self.task.reference.as_deref(),
            fields: self.fields,
            attachments: attachments
                .map(|(number, one)| attached(one, files.get(number).map(String::as_str)))
                .collect(),
        };
        json(&whole)
    }

    /// A text with its places filled in, each through `escape`.
    pub(super) fn text(&self, template: &Template, escape: fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(place) => escape(&self.value(place)),
        };
        template.parts().iter().map(part).collect()
    }

    /// A document with its places filled in.
    pub(super) fn document(&self, document: &Document) -> String {
        match document {
            Document::Fixed(json) => json.clone(),
            Document::Value(place) => self.json(place),
            Document::Text(template) => json(&self.text(template, str::to_owned)),
            Document::List(list) => {
                let list: Vec<_> = list.iter().map(|one| self.document(one)).collect();
                format!("[{}]", list.join(","))
            }
            Document::Object(object) => {
                let both = |(name, value): &(String, Document)| {
                    format!("{}:{}", json(name), self.document(value))
                };
                let object: Vec<_> = object.iter().map(both).collect();
                format!("{{{}}}", object.join(","))
            }
        }
    }

    /// What stands at a place, as text: a JSON text without its quotes, anything else as JSON.
    fn value(&self, place: &Place) -> String {
        let json = self.json(place);
        match serde_json::from_str::<Option<String>>(&json) {
            Ok(text) => text.unwrap_or_default(),
            Err(_) => json,
        }
    }

    fn json(&self, place: &Place) -> String {
        let task = self.task;
        match place {
            Place::Id => json(&task.id),
            Place::Form => json(&task.form),
            Place::Store => json(&self.origin.store),
            Place::User => json(&self.origin.user),
            Place::Session => json(&self.origin.session),
            Place::Date => json(&time(task.accepted_unix_ms).get(..10)),
            Place::AcceptedAt => json(&time(task.accepted_unix_ms)),
            Place::SubmittedAt => json(&time(task.submitted_unix_ms)),
            Place::Reference => json(&task.reference),
            Place::Fields(pointer) => look_up(self.fields, pointer)
                .map_or_else(|| "null".into(), |found| found.get().into()),
            Place::Attachments => {
                let attachments = task.attachments.iter();
                json(
                    &attachments
                        .map(|one| attached(one, None))
                        .collect::<Vec<_>>(),
                )
            }
        }
    }
}

/// What stands at a JSON pointer, as it was written.
fn look_up<'a>(value: &'a RawValue, pointer: &str) -> Option<&'a RawValue> {
    let names = pointer.split('/').skip(1);
    names.into_iter().try_fold(value, |value, name| {
        let name = name.replace("~1", "/").replace("~0", "~");
        match value.get().as_bytes().first() {
            Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get())
                .ok()?
                .remove(&name),
            Some(b'[') => {
                let mut list: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
                let index: usize = name.parse().ok()?;
                (index < list.len()).then(|| list.swap_remove(index))
            }
            _ => None,
        }
    })
}

fn attached<'a>(attachment: &'a Attachment, file: Option<&'a str>) -> Attached<'a> {
    Attached {
        file,
        name: &attachment.name,
        r#type: &attachment.r#type,
        size: attachment.size.unwrap_or(attachment.offset),
        sha256: attachment.sha256.as_deref().unwrap_or_default(),
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// A time as RFC 3339 has it, in UTC.
fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    pub(in crate::delivery) fn task(fields: &str) -> Task {
        Task {
            id: "3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50".into(),
            form: "demo".into(),
            fields: fields.into(),
            origin: Origin {
                store: "7/../\"x\"".into(),
                ..Default::default()
            }
            .into(),
            accepted_unix_ms: 1_772_366_400_000,
            submitted_unix_ms: 1_772_366_401_000,
            epoch: 1,
            attempt: 1,
            ..Default::default()
        }
    }

    #[test]
    fn places_are_filled_in_as_they_were_sent() {
        let task = task(r#"{"a": {"n": 12345678901234567890.10, "l": [true, "x\ny"]}, "t": "1"}"#);
        let facts = Facts::new(&task).unwrap();
        let text = |text: &str| facts.text(&Template::parse(text).unwrap(), str::to_owned);
        assert_eq!(
            text("{date}/{fields/a/n}"),
            "2026-03-01/12345678901234567890.10"
        );
        assert_eq!(
            text("{fields/a/l/1}|{fields/t}|{fields/none}|{reference}"),
            "x\ny|1||"
        );
        assert_eq!(text("{acceptedAt}"), "2026-03-01T12:00:00Z");
    }

    #[test]
    fn whatever_the_fields_say_the_body_is_json() {
        let task = task(r#"{"a": "\"}, {\"", "n": 1e400}"#);
        let facts = Facts::new(&task).unwrap();
        let document = Document::Object(vec![
            ("x".into(), Document::Value(Place::Fields("/a".into()))),
            (
                "y".into(),
                Document::Text(Template::parse("<{store}{fields/a}>").unwrap()),
            ),
            (
                "z".into(),
                Document::List(vec![Document::Value(Place::Fields("/q".into()))]),
            ),
        ]);
        let body: Value = serde_json::from_str(&facts.document(&document)).unwrap();
        assert_eq!(body["x"], "\"}, {\"");
        assert_eq!(body["y"], "<7/../\"x\"\"}, {\">");
        assert_eq!(body["z"][0], Value::Null);
        let whole = facts.whole(&[]);
        assert!(whole.contains("1e400"), "{whole}");
    }
}
