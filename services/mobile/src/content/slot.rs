use hydrant_flags::{Context, Rule};

use crate::content::ChosenEntry;
use crate::content::document::Entry;
use crate::content::schedule::{Phase, Schedule};

/// The entries that stand in one place of the app.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The one that wins first.
    entries: Vec<Entry>,
    /// When a schedule begins or ends, sorted.
    boundaries: Vec<i64>,
}

impl Slot {
    pub(crate) fn uses_time(&self) -> bool {
        let mut rules = self.entries.iter().flat_map(|entry| &entry.when);
        rules.any(Rule::uses_time)
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        let schedule = entry.published.as_ref().map(|form| form.schedule);
        let boundaries = schedule.into_iter().flat_map(Schedule::boundaries);
        self.boundaries.extend(boundaries);
        self.entries.push(entry);
    }

    /// After the last one was added.
    pub(crate) fn sort(&mut self) {
        self.boundaries.sort_unstable();
        let rank = |entry: &Entry| (std::cmp::Reverse(entry.priority), entry.name.clone());
        self.entries.sort_by_cached_key(rank);
    }

    pub(crate) fn entry_for(
        &self,
        context: &Context<'_>,
        locale: &str,
        now: i64,
    ) -> Option<ChosenEntry<'_>> {
        let entry = self.entries.iter().find(|one| one.is_shown(context, now))?;
        let (localized, _) = entry.published.as_ref()?.localized(locale)?;
        Some(ChosenEntry {
            name: &entry.name,
            locale: &localized.locale,
            json: &localized.json,
        })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The first boundary after `now`.
    pub(crate) fn next_boundary(&self, now: i64) -> Option<i64> {
        let past = self.boundaries.partition_point(|at| *at <= now);
        self.boundaries.get(past).copied()
    }
}

impl Entry {
    fn is_shown(&self, context: &Context<'_>, now: i64) -> bool {
        let form = self.published.as_ref();
        form.is_some_and(|form| form.schedule.phase(now) == Phase::Now) && self.is_for(context)
    }

    /// Whether who asks belongs to the audience.
    pub(crate) fn is_for(&self, context: &Context<'_>) -> bool {
        self.when.as_ref().is_none_or(|rule| rule.holds(context))
    }
}
