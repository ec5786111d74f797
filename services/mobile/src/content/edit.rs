//! Changes of an entry's text that leave the rest of it as its author wrote it.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::bundle::Bundle;
use crate::content::ordered::Ordered;
use crate::documents::Kind;

/// The top of an entry's document, its parts as they were written.
type Parts<'a> = Ordered<Cow<'a, RawValue>>;

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
    let mut parts: Parts<'_> = serde_json::from_str(text).ok()?;
    parts.get("locales")?;
    match parts.remove("draft") {
        None => Some(text.to_owned()),
        Some(_) => serde_json::to_string(&parts).ok(),
    }
}
