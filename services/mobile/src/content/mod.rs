//! The content of one revision, compiled: entries in slots, each for an audience and a time, in
//! many locales.

pub(crate) mod api;
pub mod copy;
mod document;
pub mod edit;
mod explain;
mod image;
pub(crate) mod images;
pub(crate) mod locale;
mod ordered;
pub(crate) mod preview;
mod schedule;
pub(crate) mod service;
mod slot;
#[cfg(test)]
mod tests;
mod types;

use std::collections::HashMap;

use hydrant_flags::{Context, Mistake};

use crate::bundle::Bundle;
use crate::content::document::Entry;
use crate::content::image::Images;
use crate::content::slot::Slot;
use crate::content::types::Types;
use crate::documents::Kind;

pub(crate) use edit::published;
pub(crate) use explain::Explained;
pub(crate) use image::Image;
pub(crate) use preview::vault::make_tables;

/// All content, ready to answer from.
#[derive(Debug, Default)]
pub(crate) struct Content {
    slots: HashMap<Box<str>, Slot>,
    images: Images,
}

/// What a slot shows to somebody, and for how long at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen<'a> {
    /// The entry; `None` when the slot shows nothing now.
    pub(crate) entry: Option<ChosenEntry<'a>>,
    /// When the schedule of an entry in the slot next begins or ends, in milliseconds since 1970:
    /// the same question has the same answer until then. `None`: as long as the revision lives.
    pub(crate) valid_until: Option<i64>,
}

/// An entry in one locale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChosenEntry<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The locale that it is in.
    pub(crate) locale: &'a str,
    /// As an app gets it: `{"entry": NAME, "type": TYPE, "locale": LOCALE, "fields": {…}}`.
    pub(crate) json: &'a str,
}

impl Content {
    /// Compiles the content of a revision, drafts too where it has them.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let images = Images::compile(bundle.of(Kind::Image))?;
        let types = Types::compile(bundle.of(Kind::ContentType))?;
        let mut slots: HashMap<Box<str>, Slot> = HashMap::new();
        let mut mistakes = Vec::new();
        for (name, text) in bundle.of(Kind::Content) {
            match Entry::compile(name, text, &types, &images) {
                Ok(entry) => slots.entry(entry.slot.clone()).or_default().add(entry),
                Err(found) => mistakes.extend(found),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        slots.values_mut().for_each(Slot::sort);
        Ok(Self { slots, images })
    }

    /// Whether a rule of an audience may read the clock; schedules are another matter.
    pub(crate) fn uses_time(&self) -> bool {
        self.slots.values().any(Slot::uses_time)
    }

    /// What a slot shows to who asks: of the entries whose schedule holds and whose audience they
    /// belong to, the one with the highest priority, in the locale that suits best. Of two with
    /// the same priority, the one whose name comes first.
    pub(crate) fn entry_for(
        &self,
        slot: &str,
        context: &Context<'_>,
        locale: &str,
        now_unix_ms: i64,
    ) -> Chosen<'_> {
        let Some(slot) = self.slots.get(slot) else {
            return Chosen {
                entry: None,
                valid_until: None,
            };
        };
        Chosen {
            entry: slot.entry_for(context, locale, now_unix_ms),
            valid_until: slot.next_boundary(now_unix_ms),
        }
    }

    /// How each entry of a slot stands for who asks, the one that wins first.
    pub(crate) fn explain(
        &self,
        slot: &str,
        context: &Context<'_>,
        locale: &str,
        now_unix_ms: i64,
    ) -> Vec<Explained<'_>> {
        let slot = self.slots.get(slot);
        slot.map_or(Vec::new(), |slot| {
            slot.explain(context, locale, now_unix_ms)
        })
    }

    /// The entry of this name, wherever it stands.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        let mut entries = self.slots.values().flat_map(Slot::entries);
        entries.find(|entry| &*entry.name == name)
    }

    /// All entries, by slot and in the slot the one that wins first.
    pub(crate) fn entries(&self) -> Vec<&Entry> {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(name, _)| *name);
        slots
            .into_iter()
            .flat_map(|(_, slot)| slot.entries())
            .collect()
    }

    /// All images, by their SHA-256.
    pub(crate) fn images(&self) -> Vec<(&str, &Image)> {
        self.images.all()
    }

    /// The names of all slots, in no order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &str> {
        self.slots.keys().map(|name| &**name)
    }

    /// The image with this SHA-256, in hexadecimal.
    pub(crate) fn image(&self, sha256: &str) -> Option<&Image> {
        self.images.get(sha256)
    }
}
