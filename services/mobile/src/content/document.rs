//! An entry's document: read, checked, and made ready to answer from.

use hydrant_flags::{Mistake, Rule};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::content::image::Images;
use crate::content::locale::{self, is_locale};
use crate::content::ordered::Ordered;
use crate::content::schedule::{Schedule, parse_time};
use crate::content::types::{Type, Types};

/// The most locales that one entry has.
const MAX_LOCALES: usize = 200;

/// The longest name of a slot, in bytes.
const MAX_SLOT: usize = 100;

/// An entry as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    slot: String,
    #[serde(default)]
    priority: i64,
    when: Option<Value>,
    from: Option<String>,
    until: Option<String>,
    #[serde(default)]
    fallback: Vec<String>,
    locales: Option<Ordered<Value>>,
    draft: Option<Draft>,
}

/// What is to take the place of the published form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    from: Option<String>,
    until: Option<String>,
    #[serde(default)]
    fallback: Vec<String>,
    locales: Ordered<Value>,
}

/// An entry, ready to answer from.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) slot: Box<str>,
    pub(crate) priority: i64,
    pub(crate) when: Option<Rule>,
    /// `None` while it has never been published.
    pub(crate) published: Option<Form>,
    pub(crate) draft: Option<Form>,
}

/// What an entry says, and when.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) schedule: Schedule,
    /// The first locale of the list `fallback` that is declared, as a place in `locales`.
    fallback: Option<usize>,
    /// In the order of the text.
    pub(crate) locales: Vec<Localized>,
}

/// An entry in one locale.
#[derive(Debug)]
pub(crate) struct Localized {
    pub(crate) locale: Box<str>,
    /// As an app gets it.
    pub(crate) json: Box<str>,
}

impl Form {
    /// The text for who asks for this locale, and why it is this one.
    pub(crate) fn localized(&self, wanted: &str) -> Option<(&Localized, locale::Step)> {
        let declared = self.locales.iter().map(|one| &*one.locale);
        let (at, step) = locale::choose(declared, self.fallback, wanted)?;
        Some((&self.locales[at], step))
    }
}

impl Entry {
    /// Compiles the entry of this name and text.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub(crate) fn compile(
        name: &str,
        text: &str,
        types: &Types,
        images: &Images,
    ) -> Result<Self, Vec<Mistake>> {
        let id = format!("content/{name}");
        let document: Document = parse(&id, text).map_err(|mistake| vec![mistake])?;
        let mut check = Check {
            name,
            kind: &document.kind,
            fields: types.get(&document.kind),
            images,
            mistakes: Vec::new(),
        };
        let entry = check.entry(&document, types);
        if check.mistakes.is_empty() {
            return Ok(entry);
        }
        let found = check.mistakes.into_iter();
        Err(found.map(|one| placed(one, &id, text)).collect())
    }
}

impl Entry {
    /// Whether it refers to an image, published or draft.
    pub(crate) fn shows(&self, sha256: &str) -> bool {
        let forms = [&self.published, &self.draft].into_iter().flatten();
        let mut localized = forms.flat_map(|form| &form.locales);
        localized.any(|one| one.json.contains(&format!("/{sha256}/")))
    }
}

/// The check of one entry: gathers all that is wrong.
struct Check<'a> {
    name: &'a str,
    kind: &'a str,
    /// The type, when there is one of this name.
    fields: Option<&'a Type>,
    images: &'a Images,
    mistakes: Vec<Mistake>,
}

impl Check<'_> {
    fn entry(&mut self, document: &Document, types: &Types) -> Entry {
        if self.fields.is_none() {
            self.mistakes.push(no_such_type(self.kind, types));
        }
        if !is_slot(&document.slot) {
            self.mistakes.push(bad_slot(&document.slot));
        }
        let published = document.locales.as_ref().map(|locales| {
            let schedule = self.schedule("", document.from.as_deref(), document.until.as_deref());
            self.form("", schedule, &document.fallback, locales)
        });
        let draft = document.draft.as_ref().map(|draft| {
            let schedule = self.schedule("/draft", draft.from.as_deref(), draft.until.as_deref());
            self.form("/draft", schedule, &draft.fallback, &draft.locales)
        });
        if published.is_none() && draft.is_none() {
            let message = "it says nothing: it has neither `locales` nor a `draft`";
            self.mistakes.push(Mistake::at("", message));
        }
        Entry {
            name: self.name.into(),
            kind: self.kind.into(),
            slot: document.slot.as_str().into(),
            priority: document.priority,
            when: document.when.as_ref().and_then(|rule| self.rule(rule)),
            published,
            draft,
        }
    }

    fn rule(&mut self, rule: &Value) -> Option<Rule> {
        match Rule::compile(rule) {
            Ok(rule) => Some(rule),
            Err(mistake) => {
                let pointer = format!("/when{}", mistake.pointer);
                self.mistakes.push(Mistake { pointer, ..mistake });
                None
            }
        }
    }

    fn schedule(&mut self, at: &str, from: Option<&str>, until: Option<&str>) -> Schedule {
        let schedule = Schedule {
            from: self.time(from, format!("{at}/from")),
            until: self.time(until, format!("{at}/until")),
        };
        if let (Some(from), Some(until)) = (schedule.from, schedule.until)
            && until <= from
        {
            let message = "it ends before it begins";
            let mend = "give an `until` that is later than `from`";
            self.mistakes
                .push(Mistake::at(format!("{at}/until"), message).mend(mend));
        }
        schedule
    }

    fn time(&mut self, text: Option<&str>, pointer: String) -> Option<i64> {
        match parse_time(text?) {
            Ok(time) => Some(time),
            Err(message) => {
                let mend = "write it as 2026-12-01T00:00:00Z or 2026-12-01T00:00:00+01:00";
                self.mistakes.push(Mistake::at(pointer, message).mend(mend));
                None
            }
        }
    }

    fn form(
        &mut self,
        at: &str,
        schedule: Schedule,
        fallback: &[String],
        locales: &Ordered<Value>,
    ) -> Form {
        self.check_locales(at, locales);
        Form {
            schedule,
            fallback: self.fallback(at, fallback, locales),
            locales: locales
                .0
                .iter()
                .map(|(locale, fields)| self.localized(at, locale, fields))
                .collect(),
        }
    }

    fn check_locales(&mut self, at: &str, locales: &Ordered<Value>) {
        let pointer = format!("{at}/locales");
        if locales.0.is_empty() || locales.0.len() > MAX_LOCALES {
            let message = format!("an entry has 1 to {MAX_LOCALES} locales");
            self.mistakes.push(Mistake::at(&pointer, message));
        }
        for (n, (locale, _)) in locales.0.iter().enumerate() {
            let pointer = format!("{pointer}/{}", escape(locale));
            if !is_locale(locale) {
                self.mistakes.push(bad_locale(pointer, locale));
            } else if (locales.0[..n].iter()).any(|(one, _)| one.eq_ignore_ascii_case(locale)) {
                let message = format!("the locale `{locale}` is there twice");
                self.mistakes.push(Mistake::at(pointer, message));
            }
        }
    }

    fn fallback(&mut self, at: &str, list: &[String], locales: &Ordered<Value>) -> Option<usize> {
        for (n, locale) in list.iter().enumerate().filter(|(_, one)| !is_locale(one)) {
            let pointer = format!("{at}/fallback/{n}");
            self.mistakes.push(bad_locale(pointer, locale));
        }
        let place = |wanted: &String| {
            let mut declared = locales.0.iter();
            declared.position(|(locale, _)| locale.eq_ignore_ascii_case(wanted))
        };
        let found = list.iter().find_map(place);
        if found.is_none() && !list.is_empty() {
            let message = "the entry has none of these locales";
            let mend = "name one that stands in `locales`, or leave `fallback` out";
            self.mistakes
                .push(Mistake::at(format!("{at}/fallback"), message).mend(mend));
        }
        found
    }

    fn localized(&mut self, at: &str, locale: &str, fields: &Value) -> Localized {
        let pointer = format!("{at}/locales/{}", escape(locale));
        if let Some(kind) = self.fields {
            self.mistakes.extend(kind.check(fields, &pointer));
        }
        let fields = self.images.expand(fields, &pointer);
        let fields = fields.unwrap_or_else(|mistakes| {
            self.mistakes.extend(mistakes);
            Value::Null
        });
        let shown = json!({
            "entry": self.name, "type": self.kind, "locale": locale, "fields": fields,
        });
        Localized {
            locale: locale.into(),
            json: shown.to_string().into(),
        }
    }
}

fn no_such_type(kind: &str, types: &Types) -> Mistake {
    let message = format!("there is no type `{}`", kind.escape_debug());
    let known = types.names();
    let mend = match known.is_empty() {
        true => "put it first: `hydrant mobile content type NAME FILE -m 'why'`".to_owned(),
        false => format!("the types are: {}", known.join(", ")),
    };
    Mistake::at("/type", message).mend(mend)
}

fn is_slot(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_SLOT).contains(&text.len()) && text.bytes().all(is_good)
}

fn bad_slot(text: &str) -> Mistake {
    let message = format!("`{}` can't be a slot", text.escape_debug());
    Mistake::at("/slot", message).mend(format!(
        "a slot has 1 to {MAX_SLOT} of the characters a-z, A-Z, 0-9, '-', '_' and '.'"
    ))
}

fn bad_locale(pointer: String, text: &str) -> Mistake {
    let message = format!("`{}` is not a language tag", text.escape_debug());
    Mistake::at(pointer, message).mend("write it as en or en-US")
}

/// Reads a document; what is wrong with its form is told with its line.
pub(crate) fn parse<T: DeserializeOwned>(id: &str, text: &str) -> Result<T, Mistake> {
    serde_json::from_str(text).map_err(|error| {
        let whole = error.to_string();
        let message = whole.split(" at line ").next().unwrap_or_default();
        Mistake {
            line: error.line() as u32,
            column: error.column() as u32,
            ..Mistake::at("", message).of(id)
        }
    })
}

/// The mistake with its document, and the line of what it points at.
pub(crate) fn placed(mistake: Mistake, id: &str, text: &str) -> Mistake {
    match hydrant_flags::locate(text, &mistake.pointer) {
        Some(place) => Mistake {
            line: place.line,
            column: place.column,
            ..mistake
        },
        None => mistake,
    }
    .of(id)
}

/// A name as it stands in a JSON pointer.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
