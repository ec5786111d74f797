use hydrant_contracts::Version;
use hydrant_contracts::bucket::{SLOTS, Slot, SlotTable};

/// Who has which version, as requests ask it.
#[derive(Debug)]
pub(crate) struct Arms {
    versions: Box<[Version]>,
    /// How many slots each version has.
    weights: Box<[u16]>,
    runs: Box<[Run]>,
}

/// Slots side by side of one version.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u16,
    length: u16,
    arm: usize,
}

impl Arms {
    /// `None` when none of its arms is a version, which was never checked then.
    pub(super) fn new(table: &SlotTable) -> Option<Self> {
        let (mut versions, mut weights, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        let known = table.runs().filter_map(|(arm, length)| {
            let run = (arm.parse::<Version>().ok(), first, length);
            first += length;
            Some((run.0?, run.1, run.2))
        });
        for (version, first, length) in known {
            let at = versions.iter().position(|known| *known == version);
            let arm = at.unwrap_or(versions.len());
            if at.is_none() {
                versions.push(version);
                weights.push(0);
            }
            weights[arm] += length;
            runs.push(Run { first, length, arm });
        }
        (!runs.is_empty()).then(|| Self {
            versions: versions.into(),
            weights: weights.into(),
            runs: runs.into(),
        })
    }

    pub(crate) fn version(&self, arm: usize) -> &Version {
        &self.versions[arm]
    }

    /// Every version, and how many slots it has.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&Version, u16)> {
        self.versions.iter().zip(self.weights.iter().copied())
    }

    /// The arm that has a slot.
    pub(crate) fn of(&self, slot: Slot) -> usize {
        self.run(slot).arm
    }

    fn run(&self, slot: Slot) -> Run {
        let at = self.runs.partition_point(|run| run.first <= slot.number());
        self.runs[at.saturating_sub(1)]
    }

    /// The arm of the others, by their weights, that a slot falls to whose own one can't be had; `None` when none of
    /// them can. The same slot always falls to the same.
    pub(crate) fn instead_of(
        &self,
        slot: Slot,
        can_be_had: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let run = self.run(slot);
        let there = || {
            let others = (0..self.weights.len()).filter(|arm| *arm != run.arm);
            others
                .filter(|arm| can_be_had(*arm))
                .map(|arm| (arm, u32::from(self.weights[arm])))
        };
        let total: u32 = there().map(|(_, weight)| weight).sum();
        // Slots of a run lie side by side: stretched over all that is left they are spread by weight.
        let place = u32::from(slot.number() - run.first) * total / u32::from(run.length);
        let mut ends = there().scan(0, |end, (arm, weight)| {
            *end += weight;
            Some((arm, *end))
        });
        ends.find(|(_, end)| place < *end).map(|(arm, _)| arm)
    }
}

/// A share in percent, for people.
pub(crate) fn percent(slots: u16) -> f64 {
    f64::from(slots) * 100.0 / f64::from(SLOTS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn arms(weights: &[(&str, u16)]) -> Arms {
        let all: BTreeMap<String, u16> = weights
            .iter()
            .map(|(arm, slots)| ((*arm).to_owned(), *slots))
            .collect();
        Arms::new(&SlotTable::new(weights[0].0).reallocate(&all).unwrap()).unwrap()
    }

    fn slots() -> impl Iterator<Item = Slot> {
        (0..SLOTS).filter_map(Slot::new)
    }

    #[test]
    fn every_slot_has_the_arm_of_its_table() {
        let arms = arms(&[("1.0.0", 9000), ("1.1.0", 700), ("1.2.0", 300)]);
        let mut seen: BTreeMap<String, u16> = BTreeMap::new();
        for slot in slots() {
            *seen
                .entry(arms.version(arms.of(slot)).to_string())
                .or_default() += 1;
        }
        assert_eq!(seen.values().copied().collect::<Vec<_>>(), [9000, 700, 300]);
    }

    #[test]
    fn the_people_of_an_arm_that_is_gone_are_spread_over_the_others_by_weight() {
        let arms = arms(&[("1.0.0", 6000), ("1.1.0", 3000), ("1.2.0", 1000)]);
        let gone = arms
            .versions
            .iter()
            .position(|one| one.to_string() == "1.1.0")
            .unwrap();
        let mut seen = [0u32; 3];
        for slot in slots().filter(|slot| arms.of(*slot) == gone) {
            seen[arms.instead_of(slot, |_| true).unwrap()] += 1;
        }
        let by_version = |version: &str| {
            let at = arms
                .versions
                .iter()
                .position(|one| one.to_string() == version);
            seen[at.unwrap()]
        };
        assert_eq!(by_version("1.1.0"), 0);
        // 6 : 1 of the 3000.
        assert!((by_version("1.0.0") as i32 - 2571).abs() <= 2, "{seen:?}");
        assert!(slots().all(|slot| arms.instead_of(slot, |_| false).is_none()));
    }
}
