//! What fuzzers and tests by chance ask of everything that reads bytes from outside: each takes any bytes,
//! and panics when something is not as it always is.
//!
//! A release ends its process at a panic, so none may come of a document, a context or a file.

#[cfg(test)]
mod chance;
mod world;

use hydrant_flags::{Context, Mistake};
use semver::Version;
use serde_json::{Map, Value};

use crate::api::ofrep::write_flag;
use crate::api::parameters::Parameters;
use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::configuration::range::Range;
use crate::content::edit::{self, Bound};
use crate::content::images::scale;
use crate::content::locale;
use crate::content::preview::token::{Claims, Signer, may_be_token};
use crate::documents::Kind;
use crate::experiments::allocate;
use crate::sources::Sources;
use crate::sources::answer::Rules;

/// When it is in here, in milliseconds since 1970.
const NOW: i64 = 1_795_000_000_000;

/// A document of the kind that the first byte names, among others that are well: it is refused with
/// mistakes that have their places, or everybody gets an answer.
pub fn document(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    if let Ok(text) = std::str::from_utf8(text) {
        revision(kind, world::name_of(kind), text);
    }
}

/// One document of another revision: as it is entered, and as an instance meets it.
fn revision(kind: Kind, name: &str, text: &str) {
    let old = world::bundle();
    let mut new = old.clone();
    let of_kind = new.documents.entry(kind).or_default();
    of_kind.insert(name.to_owned(), text.to_owned());
    new.revision += 1;
    new.at_unix_ms += 1000;
    serve(&new);
    match allocate(old, &mut new) {
        Ok(()) => serve(&new),
        Err(mistakes) => are_told(&new, &mistakes),
    }
}

/// Compiles a revision, and asks it.
fn serve(bundle: &Bundle) {
    let unpacked = Bundle::unpack(&bundle.pack());
    assert_eq!(
        unpacked.ok().as_ref(),
        Some(bundle),
        "it is published as it is"
    );
    match Compiled::compile(bundle) {
        Ok(compiled) => {
            for attributes in world::contexts() {
                ask(&compiled, attributes);
            }
        }
        Err(mistakes) => are_told(bundle, &mistakes),
    }
}

/// Each mistake is in a document, and at a line that this has.
fn are_told(bundle: &Bundle, mistakes: &[Mistake]) {
    assert!(!mistakes.is_empty(), "what is refused says why");
    for mistake in mistakes {
        let (kind, name) = mistake.document.split_once('/').unwrap_or_default();
        let text = kind.parse().ok().and_then(|kind| bundle.get(kind, name));
        // The schema that is missing, and what is built in, are no documents of the bundle.
        let lines = text.map_or(u32::MAX as usize, |text| text.lines().count() + 1);
        assert!(mistake.line as usize <= lines, "{mistake:?}");
    }
}

/// Everything that an app can ask of a revision.
fn ask(compiled: &Compiled, attributes: &Map<String, Value>) {
    let context = Context {
        targeting_key: attributes.get("targetingKey").and_then(Value::as_str),
        attributes,
        now_unix: NOW / 1000,
    };
    let mut answer = Vec::new();
    for flag in compiled.flags.iter() {
        answer.clear();
        write_flag(&mut answer, compiled, flag, &context);
        is_json(&answer);
    }
    is_json(compiled.configuration.merged_for(&context).json.as_bytes());
    is_json(compiled.menu.json_for(&context).as_bytes());
    let locale = attributes.get("locale").and_then(Value::as_str);
    for slot in ["home", "none"] {
        let (content, locale) = (&compiled.content, locale.unwrap_or("en"));
        let chosen = content.entry_for(slot, &context, locale, NOW);
        chosen
            .entry
            .iter()
            .for_each(|entry| is_json(entry.json.as_bytes()));
        content.explain(slot, &context, locale, NOW);
    }
    for (definition, allocation) in compiled.experiments.running() {
        (0..allocation.epochs.all().len())
            .for_each(|epoch| drop(allocation.epochs.compared(epoch)));
        definition.due(0, NOW);
    }
}

fn is_json(answer: &[u8]) {
    let read = serde_json::from_slice::<Value>(answer);
    assert!(read.is_ok(), "{}", String::from_utf8_lossy(answer));
}

/// A query and a body, as an app asks `init`; and the context of a flag's evaluation.
pub fn question(bytes: &[u8]) {
    if let Ok(uri) = axum::http::Uri::try_from(bytes) {
        drop(Parameters::from_query(&uri).map(answered));
    }
    drop(Parameters::from_body(bytes).map(answered));
    if let Ok(Value::Object(attributes)) = serde_json::from_slice(bytes) {
        ask(world::compiled(), &attributes);
    }
}

fn answered(parameters: Parameters) {
    let context = parameters.context(NOW / 1000);
    ask(world::compiled(), context.attributes);
}

/// A range of versions, a version, and a locale, a line each.
pub fn matching(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let [range, version, wanted] = [(); 3].map(|()| lines.next().unwrap_or_default());
    if let (Ok(range), Ok(version)) = (Range::parse(range), version.parse::<Version>()) {
        range.contains(&version);
    }
    let chosen = locale::choose(["en", "de", "zh-Hant"].into_iter(), Some(1), wanted);
    assert!(chosen.is_some_and(|(at, _)| at < 3), "there is always one");
}

/// An entry, whose draft is made, published and taken back; what comes of it is again an entry.
pub fn entry(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let time = Bound::At("2026-12-01T00:00:00Z".into());
    for changed in [
        edit::publish(text, &time, &Bound::Open),
        edit::unpublish(text),
        edit::draft(text, None),
        edit::draft(text, Some(text)),
        edit::discard(text),
        edit::schedule(text, &Bound::Keep, &time),
    ]
    .into_iter()
    .flatten()
    {
        is_json(changed.as_bytes());
    }
}

/// The file of an image. What it may be made into is bounded: large ones are not looked at here.
pub fn image(bytes: &[u8]) {
    let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format();
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    if size.is_some_and(|(width, height)| u64::from(width) * u64::from(height) > 250_000) {
        return;
    }
    if let Ok(made) = scale::make(bytes) {
        assert!(made.variants.iter().all(|(one, _)| one.width <= made.width));
    }
}

/// The link of a preview: none but one that was signed opens anything.
pub fn preview(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    may_be_token(&text);
    let signer = Signer::new(b"secret");
    assert!(signer.open(&text, NOW).is_err());
    let claims = Claims {
        entry: text.chars().take(100).collect(),
        revision: None,
        made: NOW,
        expires: i64::MAX,
    };
    let opened = signer.open(&signer.sign(&claims), NOW);
    assert!(opened.is_err() || opened == Ok(claims));
}

/// What a source answers, packed in any way, of which a part is the value.
pub fn answer(bytes: &[u8]) {
    for (encoding, pointer) in [
        ("", ""),
        ("", "/a/0"),
        ("gzip", ""),
        ("br", ""),
        ("zstd", "/a"),
    ] {
        let rules = Rules::of(64 * 1024, pointer);
        if let Ok(value) = rules.value(bytes, encoding) {
            is_json(value.get().as_bytes());
        }
    }
}

/// A file of sources.
pub fn sources(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Sources::parse(
            "sources.toml".as_ref(),
            text,
            Some("http://127.0.0.1:1"),
        ));
    }
}

/// What stands in the shared state, for an instance that has just come.
pub fn published(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::unpack(bytes) {
        drop(Compiled::compile(&bundle));
    }
}
