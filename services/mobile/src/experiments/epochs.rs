//! Since when which table holds: what people saw belongs to the table that they saw it by.

use hydrant_contracts::bucket::{SLOTS, Slot, SlotTable, slot};
use serde::{Deserialize, Serialize};

use super::definition::Weights;

/// The most epochs that are kept.
const MAX_EPOCHS: usize = 100;

/// A time without a change of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Epoch {
    /// The revision that began it.
    pub(crate) revision: u64,
    pub(crate) at_unix_ms: i64,
    pub(crate) table: SlotTable,
}

/// The epochs of an experiment, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Epochs(Vec<Epoch>);

/// Where an exposure belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The revision that began the epoch.
    pub(crate) revision: u64,
    /// Whether it may be compared with the weights: the person is where the table of that time has
    /// them, and was there before. Who was just moved is exposed again, or, where an app holds on to
    /// what it had, for the last time in the old arm; neither says anything about the draw.
    pub(crate) compared: bool,
}

impl Epochs {
    pub(crate) fn all(&self) -> &[Epoch] {
        &self.0
    }

    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.0.push(epoch);
        let too_many = self.0.len().saturating_sub(MAX_EPOCHS);
        self.0.drain(..too_many);
    }

    /// Where the exposure of a subject to an arm belongs, at this time: to the newest epoch since then
    /// in which the arm had the subject's slot. `None` when that never was.
    pub(crate) fn place(&self, salt: &str, subject: &str, arm: &str, at: i64) -> Option<Place> {
        let slot = slot(salt, subject);
        let begun = self
            .0
            .partition_point(|epoch| epoch.at_unix_ms <= at)
            .max(1);
        let had = self.0.get(..begun)?;
        let place = had.iter().rposition(|epoch| epoch.table.arm(slot) == arm)?;
        Some(Place {
            revision: had[place].revision,
            compared: place + 1 == begun && self.stayed(place, slot),
        })
    }

    /// How many slots of each arm an epoch is compared by.
    pub(crate) fn compared(&self, place: usize) -> Weights {
        let table = &self.0[place].table;
        let mut weights = Weights::new();
        for slot in (0..SLOTS).filter_map(Slot::new) {
            if self.stayed(place, slot) {
                *weights.entry(table.arm(slot).to_owned()).or_default() += 1;
            }
        }
        weights
    }

    /// Whether a slot had the same arm in the epoch before.
    fn stayed(&self, place: usize, slot: Slot) -> bool {
        let before = place.checked_sub(1).map(|before| &self.0[before]);
        before.is_none_or(|before| before.table.arm(slot) == self.0[place].table.arm(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "experiment/checkout";

    /// 5 % from the time 100 on, 10 % from 200 on.
    fn epochs() -> Epochs {
        let weights = |on: u16| Weights::from([("off".into(), SLOTS - on), ("on".into(), on)]);
        let five = SlotTable::new("off").reallocate(&weights(500)).unwrap();
        let ten = five.reallocate(&weights(1000)).unwrap();
        let mut epochs = Epochs::default();
        for (revision, at_unix_ms, table) in [(7, 100, five), (9, 200, ten)] {
            epochs.begin(Epoch {
                revision,
                at_unix_ms,
                table,
            });
        }
        epochs
    }

    /// Somebody whose slots are among these.
    fn person(slots: std::ops::Range<u16>) -> String {
        let mut names = (0..).map(|n| format!("user-{n}"));
        names
            .find(|name| slots.contains(&slot(SALT, name).number()))
            .unwrap()
    }

    fn place(slots: std::ops::Range<u16>, arm: &str, at: i64) -> Option<(u64, bool)> {
        let place = epochs().place(SALT, &person(slots), arm, at)?;
        Some((place.revision, place.compared))
    }

    #[test]
    fn an_exposure_belongs_to_the_table_that_it_was_seen_by() {
        assert_eq!(place(0..9000, "off", 150), Some((7, true)));
        assert_eq!(place(0..9000, "off", 250), Some((9, true)));
        assert_eq!(place(9500..10_000, "on", 250), Some((9, true)));
        // A phone's clock may be slow.
        assert_eq!(place(9500..10_000, "on", 50), Some((7, true)));
        assert_eq!(place(0..9000, "on", 250), None, "they never were in it");
        assert_eq!(place(9000..9500, "on", 150), None, "not yet");
    }

    #[test]
    fn who_was_moved_is_not_compared() {
        assert_eq!(place(9000..9500, "on", 250), Some((9, false)));
        // An app that still shows what it had.
        assert_eq!(place(9000..9500, "off", 250), Some((7, false)));
        let weights = |off, on| Weights::from([("off".into(), off), ("on".into(), on)]);
        assert_eq!(epochs().compared(0), weights(9500, 500));
        assert_eq!(epochs().compared(1), weights(9000, 500));
    }

    #[test]
    fn what_never_ran_has_no_place() {
        assert_eq!(Epochs::default().place(SALT, "ann", "on", 5), None);
    }
}
