//! Changes of an entry's text that leave the rest of it as its author wrote it.

use hydrant_sdk::{Code, Error};
use serde_json::value::{RawValue, to_raw_value};

use crate::bundle::Bundle;
use crate::content::ordered::Ordered;
use crate::documents::Kind;

/// The top of an entry's document, its parts as they were written.
type Parts = Ordered<Box<RawValue>>;

/// The members of an entry that make up its form, published or draft.
const FORM: [&str; 4] = ["from", "until", "fallback", "locales"];

/// A change of when an entry shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// As it is.
    #[default]
    Keep,
    /// No bound.
    Open,
    /// This time, as RFC 3339 has it.
    At(String),
}

/// The entry with its draft as the published form, and no draft. `from` and `until` change when it
/// shows on the way.
///
/// # Errors
///
/// If the text is no entry, or has no draft.
pub fn publish(text: &str, from: &Bound, until: &Bound) -> Result<String, Error> {
    let mut entry = read(text)?;
    let draft = entry.remove("draft").ok_or_else(no_draft)?;
    let mut draft: Parts = serde_json::from_str(draft.get()).map_err(|error| unreadable(&error))?;
    for name in FORM {
        match draft.remove(name) {
            Some(part) => entry.put(name, part),
            None => drop(entry.remove(name)),
        }
    }
    bind(&mut entry, from, until);
    pretty(&entry)
}

/// The entry without a published form. That becomes the draft, when there is none.
///
/// # Errors
///
/// If the text is no entry, or is not published.
pub fn unpublish(text: &str) -> Result<String, Error> {
    let mut entry = read(text)?;
    let form = take_form(&mut entry).ok_or_else(not_published)?;
    if entry.get("draft").is_none() {
        entry.put("draft", form);
    }
    pretty(&entry)
}

/// The entry with this draft; without one, with a copy of what is published as the draft.
///
/// # Errors
///
/// If the text is no entry, the draft is no JSON, or there is nothing to copy.
pub fn draft(text: &str, draft: Option<&str>) -> Result<String, Error> {
    let mut entry = read(text)?;
    let draft = match draft {
        Some(draft) => serde_json::from_str(draft).map_err(|error| unreadable(&error))?,
        None if entry.get("draft").is_some() => return Err(has_draft()),
        None => take_form(&mut entry.clone()).ok_or_else(not_published)?,
    };
    entry.put("draft", draft);
    pretty(&entry)
}

/// The entry without its draft.
///
/// # Errors
///
/// If the text is no entry, or has no draft.
pub fn discard(text: &str) -> Result<String, Error> {
    let mut entry = read(text)?;
    entry.remove("draft").ok_or_else(no_draft)?;
    pretty(&entry)
}

/// The entry with another schedule of its published form.
///
/// # Errors
///
/// If the text is no entry, or is not published.
pub fn schedule(text: &str, from: &Bound, until: &Bound) -> Result<String, Error> {
    let mut entry = read(text)?;
    entry.get("locales").ok_or_else(not_published)?;
    bind(&mut entry, from, until);
    pretty(&entry)
}

fn read(text: &str) -> Result<Parts, Error> {
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn bind(entry: &mut Parts, from: &Bound, until: &Bound) {
    for (name, bound) in [("from", from), ("until", until)] {
        match bound {
            Bound::Keep => {}
            Bound::Open => drop(entry.remove(name)),
            Bound::At(time) => entry.put(name, raw(time)),
        }
    }
}

/// Takes the published form out of an entry; `None` when it has none.
fn take_form(entry: &mut Parts) -> Option<Box<RawValue>> {
    entry.get("locales")?;
    let parts = FORM.into_iter();
    let form = parts.filter_map(|name| Some((name.to_owned(), entry.remove(name)?)));
    Some(raw(&Ordered(form.collect())))
}

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("texts and JSON become JSON")
}

/// As a person would write it. The order of members stays. A part that was only passed over so far may
/// be nested too deep for a reader, or have a number that is too large.
fn pretty(entry: &Parts) -> Result<String, Error> {
    let read = || {
        let text = serde_json::to_string(entry)?;
        serde_json::to_string_pretty(&serde_json::from_str::<Tree>(&text)?)
    };
    Ok(read().map_err(|error| unreadable(&error))? + "\n")
}

/// Any JSON, with the order of its members.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
enum Tree {
    Object(Ordered<Tree>),
    Array(Vec<Tree>),
    Leaf(serde_json::Value),
}

fn unreadable(error: &serde_json::Error) -> Error {
    let message = format!("this is not an entry's JSON: {error}");
    Error::new(Code::InvalidArgument, "bad_entry", message)
}

fn no_draft() -> Error {
    Error::new(
        Code::FailedPrecondition,
        "no_draft",
        "the entry has no draft",
    )
    .mend("make one: `hydrant mobile content draft NAME`")
}

fn has_draft() -> Error {
    Error::new(
        Code::FailedPrecondition,
        "has_draft",
        "the entry has a draft already",
    )
    .mend("give a file to replace it, or `--discard` it first")
}

fn not_published() -> Error {
    Error::new(
        Code::FailedPrecondition,
        "not_published",
        "the entry is not published",
    )
    .mend("publish its draft: `hydrant mobile content publish NAME`")
}

/// The bundle as it may leave the service: without drafts, and without entries that are nothing
/// but one.
pub(crate) fn published(bundle: &Bundle) -> Bundle {
    let mut bundle = bundle.clone();
    if let Some(entries) = bundle.documents.get_mut(&Kind::Content) {
        entries.retain(|_, text| match without_draft(text) {
            Some(rest) => {
                *text = rest;
                true
            }
            None => false,
        });
    }
    bundle
}

/// An entry without its draft; `None` when nothing is published, or it can't be read.
fn without_draft(text: &str) -> Option<String> {
    let mut parts: Parts = serde_json::from_str(text).ok()?;
    parts.get("locales")?;
    match parts.remove("draft") {
        None => Some(text.to_owned()),
        Some(_) => serde_json::to_string(&parts).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ENTRY: &str = r#"{"slot": "a", "until": "U", "locales": {"zz": {"b": 1, "a": 1.50}, "aa": {}},
        "type": "t", "draft": {"from": "F", "locales": {"en": {"title": "new"}}}}"#;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn publishing_puts_the_draft_in_the_place_of_what_was_published() {
        let published = publish(ENTRY, &Bound::Keep, &Bound::At("V".into())).unwrap();
        assert_eq!(
            value(&published),
            json!({"slot": "a", "from": "F", "until": "V", "locales": {"en": {"title": "new"}}, "type": "t"})
        );
        let open = publish(ENTRY, &Bound::Open, &Bound::Keep).unwrap();
        assert_eq!(
            (value(&open).get("from"), value(&open).get("until")),
            (None, None)
        );
        assert_eq!(
            publish(&open, &Bound::Keep, &Bound::Keep)
                .unwrap_err()
                .reason,
            "no_draft"
        );
    }

    #[test]
    fn what_is_taken_back_is_a_draft_again_unless_there_is_one() {
        let discarded = discard(ENTRY).unwrap();
        let back = unpublish(&discarded).unwrap();
        assert_eq!(value(&back)["draft"]["until"], "U");
        assert_eq!(value(&back).get("locales"), None);
        assert_eq!(value(&unpublish(ENTRY).unwrap())["draft"]["from"], "F");
        assert_eq!(unpublish(&back).unwrap_err().reason, "not_published");
        let again = publish(&back, &Bound::Keep, &Bound::Keep).unwrap();
        assert_eq!(value(&again), value(&discarded));
    }

    #[test]
    fn a_draft_begins_as_a_copy_of_what_is_published() {
        let copied = draft(&discard(ENTRY).unwrap(), None).unwrap();
        assert_eq!(
            value(&copied)["draft"]["locales"],
            value(&copied)["locales"]
        );
        assert_eq!(draft(ENTRY, None).unwrap_err().reason, "has_draft");
        let given = draft(ENTRY, Some(r#"{"locales": {}}"#)).unwrap();
        assert_eq!(value(&given)["draft"], json!({"locales": {}}));
        assert!(draft(ENTRY, Some("{")).is_err());
    }

    #[test]
    fn the_order_of_members_stays() {
        let text = schedule(ENTRY, &Bound::At("F".into()), &Bound::Keep).unwrap();
        let order = [
            "slot",
            "until",
            "zz",
            "\"b\"",
            "\"a\": 1.5",
            "aa",
            "type",
            "draft",
            "\"from\": \"F\"\n}",
        ];
        let places: Vec<_> = order.iter().map(|part| text.find(part)).collect();
        assert!(
            places.is_sorted() && places[0].is_some(),
            "{places:?}: {text}"
        );
    }
}
