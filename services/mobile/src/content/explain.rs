//! Why a slot shows what it shows.

use hydrant_flags::Context;

use crate::content::document::Entry;
use crate::content::locale::Step;
use crate::content::schedule::{Phase, Schedule};
use crate::content::slot::Slot;

/// How an entry stands for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Explained<'a> {
    pub(crate) name: &'a str,
    pub(crate) priority: i64,
    /// `None` when it was never published.
    pub(crate) schedule: Option<(Schedule, Phase)>,
    /// Whether who asks belongs to the audience.
    pub(crate) audience: bool,
    /// Whether it is the one that is shown.
    pub(crate) shown: bool,
    /// The locale that it is or would be shown in, and why.
    pub(crate) locale: Option<(&'a str, Step)>,
}

impl Slot {
    /// All entries, the one that wins first.
    pub(crate) fn explain<'a>(
        &'a self,
        context: &Context<'_>,
        locale: &str,
        now: i64,
    ) -> Vec<Explained<'a>> {
        let winner = self.entry_for(context, locale, now);
        let winner = winner.map(|entry| entry.name);
        let explain = |entry: &'a Entry| {
            let form = entry.published.as_ref();
            let localized = form.and_then(|form| form.localized(locale));
            Explained {
                name: &entry.name,
                priority: entry.priority,
                schedule: form.map(|form| (form.schedule, form.schedule.phase(now))),
                audience: entry.is_for(context),
                shown: winner == Some(&entry.name),
                locale: localized.map(|(one, step)| (&*one.locale, step)),
            }
        };
        self.entries().map(explain).collect()
    }
}
