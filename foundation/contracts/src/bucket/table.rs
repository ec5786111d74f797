use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{SLOTS, Slot};

/// The most arms of a table, the control among them.
const MAX_ARMS: usize = 250;

/// Which arm has which slot. When weights change, an arm that grows takes slots from the control only,
/// and one that shrinks gives to the control only: from 5 % to 10 % moves 500 slots and nobody else.
///
/// The slots of an arm lie side by side as far as they can. That is as good as any scattering: a slot is
/// a hash, so who is in the slots 9,500 to 9,999 is drawn by lot; and it keeps the table so small that
/// people can read it. What an arm gives back is what it took last, so that it gets the same people when
/// it grows again.
///
/// As JSON: `{"control": "off", "runs": [["off", 9500], ["on", 500]]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct SlotTable {
    /// The control is the first; the others are sorted.
    arms: Vec<String>,
    runs: Vec<Run>,
}

/// Slots side by side of one arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u16,
    arm: u8,
}

/// The arm of each slot, as its place among the arms.
type Spread = [u8; SLOTS as usize];

/// The place of the control among the arms.
const CONTROL: u8 = 0;

/// What can't be a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    /// The weights are not all slots.
    #[error("the weights sum to {0} slots, and there are {SLOTS}")]
    Sum(u64),
    /// There are too many arms.
    #[error("{0} arms are too many: {MAX_ARMS} are the most")]
    Arms(usize),
    /// A run of slots is empty.
    #[error("a run has no slot")]
    EmptyRun,
}

impl SlotTable {
    /// All slots for the control.
    pub fn new(control: impl Into<String>) -> Self {
        Self {
            arms: vec![control.into()],
            runs: vec![Run {
                first: 0,
                arm: CONTROL,
            }],
        }
    }

    /// The arm that gives and takes.
    pub fn control(&self) -> &str {
        &self.arms[usize::from(CONTROL)]
    }

    /// The arm of a slot.
    pub fn arm(&self, slot: Slot) -> &str {
        let run = self.runs.partition_point(|run| run.first <= slot.number()) - 1;
        &self.arms[usize::from(self.runs[run].arm)]
    }

    /// How many slots each arm has; an arm without a slot is not named, except the control.
    pub fn weights(&self) -> BTreeMap<&str, u16> {
        let mut weights = BTreeMap::from([(self.control(), 0)]);
        for (arm, length) in self.runs() {
            *weights.entry(arm).or_default() += length;
        }
        weights
    }

    /// How many slots have another arm in another table.
    pub fn moved(&self, other: &Self) -> u16 {
        let differs = |slot: &u16| self.arm(Slot(*slot)) != other.arm(Slot(*slot));
        (0..SLOTS).filter(differs).count() as u16
    }

    /// The table with other weights, in slots, of all arms: arms may come and go, the control stays.
    /// An arm that grows takes slots that the control had before; only when these are not enough, those
    /// that another arm has just given back.
    ///
    /// # Errors
    ///
    /// If the weights do not sum to [`SLOTS`], or if there are too many.
    pub fn reallocate(&self, weights: &BTreeMap<String, u16>) -> Result<Self, InvalidTable> {
        let sum = weights.values().map(|slots| u64::from(*slots)).sum();
        if sum != u64::from(SLOTS) {
            return Err(InvalidTable::Sum(sum));
        }
        let arms = self.arms_with(weights)?;
        let wanted = |arm: &String| weights.get(arm).copied().unwrap_or(0);
        let mut spread = self.spread(&arms);
        let changes: Vec<(u8, i32)> = arms
            .iter()
            .zip(0..)
            .skip(1)
            .map(|(arm, at)| (at, i32::from(wanted(arm)) - count(&spread, at)))
            .collect();
        let mut given = [false; SLOTS as usize];
        for &(arm, change) in changes.iter().filter(|(_, change)| *change < 0) {
            give(&mut spread, &mut given, arm, -change);
        }
        for &(arm, change) in changes.iter().filter(|(_, change)| *change > 0) {
            take(&mut spread, &given, arm, change);
        }
        Ok(Self::of(&arms, &spread))
    }

    /// The arms of this table, and behind them the new ones, sorted.
    fn arms_with(&self, weights: &BTreeMap<String, u16>) -> Result<Vec<String>, InvalidTable> {
        let new = weights.keys().filter(|arm| !self.arms.contains(arm));
        let mut arms: Vec<String> = self.arms.iter().chain(new).cloned().collect();
        // What is given away and taken must not depend on the order in which arms came.
        arms[1..].sort_unstable();
        match arms.len() {
            0..=MAX_ARMS => Ok(arms),
            too_many => Err(InvalidTable::Arms(too_many)),
        }
    }

    /// The arms in the order of their slots, each with how many lie side by side. An arm may come again.
    pub fn runs(&self) -> impl Iterator<Item = (&str, u16)> {
        let ends = self.runs.iter().skip(1).map(|run| run.first);
        let runs = self.runs.iter().zip(ends.chain([SLOTS]));
        runs.map(|(run, end)| (self.arms[usize::from(run.arm)].as_str(), end - run.first))
    }
}

impl SlotTable {
    /// The arm of each slot, as its place among `arms`, which has all of the table's.
    fn spread(&self, arms: &[String]) -> Spread {
        let mut spread = [CONTROL; SLOTS as usize];
        let mut rest = spread.as_mut_slice();
        for (arm, length) in self.runs() {
            let (run, behind) = rest.split_at_mut(usize::from(length));
            let place = arms.iter().position(|one| one == arm);
            run.fill(place.map_or(CONTROL, |place| place as u8));
            rest = behind;
        }
        spread
    }

    fn of(arms: &[String], spread: &Spread) -> Self {
        let mut table = Self {
            arms: vec![arms[0].clone()],
            runs: Vec::new(),
        };
        let there = |at: usize| spread.contains(&(at as u8));
        let kept: Vec<usize> = (1..arms.len()).filter(|at| there(*at)).collect();
        table.arms.extend(kept.iter().map(|at| arms[*at].clone()));
        let place = |arm: u8| kept.iter().position(|at| *at == usize::from(arm));
        for (first, arms) in (0..SLOTS).zip(spread.iter().scan(None, with_last)) {
            if arms.0 != Some(arms.1) {
                let arm = place(arms.1).map_or(CONTROL, |place| place as u8 + 1);
                table.runs.push(Run { first, arm });
            }
        }
        table
    }
}

/// A slot's arm behind that of the slot before it.
fn with_last(last: &mut Option<u8>, arm: &u8) -> Option<(Option<u8>, u8)> {
    Some((last.replace(*arm), *arm))
}

fn count(spread: &Spread, arm: u8) -> i32 {
    spread.iter().filter(|one| **one == arm).count() as i32
}

/// The arm gives slots to the control: the lowest, which it took last.
fn give(spread: &mut Spread, given: &mut [bool; SLOTS as usize], arm: u8, slots: i32) {
    let own = (0..spread.len()).filter(|slot| spread[*slot] == arm);
    let lowest: Vec<usize> = own.take(slots as usize).collect();
    for slot in lowest {
        spread[slot] = CONTROL;
        given[slot] = true;
    }
}

/// The arm takes slots from the control: the highest, and what was just given only at last.
fn take(spread: &mut Spread, given: &[bool; SLOTS as usize], arm: u8, slots: i32) {
    let free = |fresh: bool| {
        let all = (0..spread.len()).rev();
        all.filter(move |slot| given[*slot] == fresh)
    };
    let candidates = free(false).chain(free(true));
    let highest: Vec<usize> = candidates
        .filter(|slot| spread[*slot] == CONTROL)
        .take(slots as usize)
        .collect();
    for slot in highest {
        spread[slot] = arm;
    }
}

/// A table as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    control: String,
    runs: Vec<(String, u16)>,
}

impl From<SlotTable> for Wire {
    fn from(table: SlotTable) -> Self {
        let runs = table.runs().map(|(arm, length)| (arm.to_owned(), length));
        Self {
            control: table.control().to_owned(),
            runs: runs.collect(),
        }
    }
}

impl TryFrom<Wire> for SlotTable {
    type Error = InvalidTable;

    fn try_from(wire: Wire) -> Result<Self, InvalidTable> {
        let sum = wire.runs.iter().map(|(_, slots)| u64::from(*slots)).sum();
        if sum != u64::from(SLOTS) {
            return Err(InvalidTable::Sum(sum));
        }
        if wire.runs.iter().any(|(_, slots)| *slots == 0) {
            return Err(InvalidTable::EmptyRun);
        }
        let others: BTreeSet<&String> = wire.runs.iter().map(|(arm, _)| arm).collect();
        let others = others.into_iter().filter(|arm| **arm != wire.control);
        let arms: Vec<String> = [&wire.control].into_iter().chain(others).cloned().collect();
        if arms.len() > MAX_ARMS {
            return Err(InvalidTable::Arms(arms.len()));
        }
        let mut spread = [CONTROL; SLOTS as usize];
        let mut first = 0;
        for (arm, slots) in &wire.runs {
            let end = first + usize::from(*slots);
            let place = arms.iter().position(|one| one == arm);
            spread[first..end].fill(place.map_or(CONTROL, |place| place as u8));
            first = end;
        }
        Ok(Self::of(&arms, &spread))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bucket::slot;

    fn weights(weights: &[(&str, u16)]) -> BTreeMap<String, u16> {
        let owned = |(arm, slots): &(&str, u16)| ((*arm).to_owned(), *slots);
        weights.iter().map(owned).collect()
    }

    fn table(weights_: &[(&str, u16)]) -> SlotTable {
        SlotTable::new("off")
            .reallocate(&weights(weights_))
            .unwrap()
    }

    fn json(table: &SlotTable) -> String {
        serde_json::to_string(table).unwrap()
    }

    #[test]
    fn a_table_reads_well() {
        let five = table(&[("off", 9500), ("on", 500)]);
        let text = r#"{"control":"off","runs":[["off",9500],["on",500]]}"#;
        assert_eq!(json(&five), text);
        let ten = five
            .reallocate(&weights(&[("off", 9000), ("on", 1000)]))
            .unwrap();
        assert_eq!(
            json(&ten),
            text.replace("9500", "9000").replace("500]]", "1000]]")
        );
        assert_eq!(ten.moved(&five), 500);
    }

    /// What the whole table is for.
    #[test]
    fn from_five_to_ten_percent_moves_five_percent_of_people_and_no_other() {
        let two = [[("off", 9500), ("on", 500)], [("off", 9000), ("on", 1000)]];
        let three = [
            [("off", 9000), ("blue", 500), ("red", 500)],
            [("off", 8500), ("blue", 1000), ("red", 500)],
        ];
        let cases = [
            (table(&two[0]), weights(&two[1])),
            (table(&three[0]), weights(&three[1])),
        ];
        for (before, weights) in cases {
            let after = before.reallocate(&weights).unwrap();
            let mut moved = 0;
            for person in 0..100_000 {
                let slot = slot("experiment/checkout", &format!("user-{person}"));
                let (from, to) = (before.arm(slot), after.arm(slot));
                if from != to {
                    assert_eq!(from, "off", "nobody else moves");
                    moved += 1;
                }
            }
            assert_eq!(after.moved(&before), 500);
            println!("{moved} of 100,000 people moved");
            assert!((4_700..5_300).contains(&moved), "{moved}");
        }
    }

    #[test]
    fn who_was_taken_back_comes_again() {
        let five = table(&[("off", 9500), ("on", 500)]);
        let none = five.reallocate(&weights(&[("off", 10_000)])).unwrap();
        assert_eq!(json(&none), r#"{"control":"off","runs":[["off",10000]]}"#);
        let again = none
            .reallocate(&weights(&[("off", 9500), ("on", 500)]))
            .unwrap();
        assert_eq!(again, five);
    }

    #[test]
    fn from_one_arm_to_another_goes_only_who_must() {
        let before = table(&[("off", 1000), ("a", 4500), ("b", 4500)]);
        let after = before
            .reallocate(&weights(&[("off", 1000), ("a", 2000), ("b", 7000)]))
            .unwrap();
        let direct = (0..SLOTS)
            .filter_map(Slot::new)
            .filter(|slot| before.arm(*slot) == "a" && after.arm(*slot) == "b");
        assert_eq!(direct.count(), 1500, "the control has 1,000 to give");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for text in [
            r#"{"control":"off","runs":[["off",9999]]}"#,
            r#"{"control":"off","runs":[["off",65535],["on",65535]]}"#,
            r#"{"control":"off","runs":[["off",10000],["on",0]]}"#,
            r#"{"control":"off","runs":[]}"#,
        ] {
            assert!(serde_json::from_str::<SlotTable>(text).is_err(), "{text}");
        }
        let all = table(&[("off", 10_000)]);
        let sum = all.reallocate(&weights(&[("off", 9999)]));
        assert_eq!(sum, Err(InvalidTable::Sum(9999)));
        let many: BTreeMap<String, u16> = (0..250).map(|n| (format!("arm-{n}"), 40)).collect();
        assert_eq!(all.reallocate(&many), Err(InvalidTable::Arms(251)));
    }

    /// Weights of up to four arms beside the control.
    fn any_weights() -> impl Strategy<Value = BTreeMap<String, u16>> {
        proptest::collection::vec(0..=SLOTS, 4).prop_map(|mut cuts| {
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([SLOTS]);
            let begins = [0].into_iter().chain(cuts.iter().copied());
            let names = ["off", "a", "b", "c", "d"].map(String::from);
            let sizes = begins.zip(ends).map(|(begin, end)| end - begin);
            names
                .into_iter()
                .zip(sizes)
                .filter(|(_, slots)| *slots > 0)
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn arms_have_what_they_should_and_only_the_control_gives_and_takes(
            steps in proptest::collection::vec(any_weights(), 1..6)
        ) {
            let mut before = SlotTable::new("off");
            for weights in &steps {
                let after = before.reallocate(weights).unwrap();
                check_step(&before, &after, weights)?;
                prop_assert_eq!(&after, &before.reallocate(weights).unwrap());
                let read: SlotTable = serde_json::from_str(&json(&after)).unwrap();
                prop_assert_eq!(&read, &after);
                before = after;
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"\{"control":"[ab]","runs":\[(\["[abc]",[0-9]{1,5}\],?){0,5}\]\}"#) {
            if let Ok(table) = serde_json::from_str::<SlotTable>(&text) {
                prop_assert_eq!(table.weights().values().sum::<u16>(), SLOTS);
            }
        }
    }

    fn check_step(
        before: &SlotTable,
        after: &SlotTable,
        wanted: &BTreeMap<String, u16>,
    ) -> Result<(), TestCaseError> {
        let (had, has) = (before.weights(), after.weights());
        for (arm, slots) in &has {
            prop_assert_eq!(*slots, wanted.get(*arm).copied().unwrap_or(0), "{}", arm);
        }
        let had = |arm: &str| had.get(arm).copied().unwrap_or(0);
        let mut direct = 0;
        for slot in (0..SLOTS).map(Slot) {
            let (from, to) = (before.arm(slot), after.arm(slot));
            let has = |arm: &str| has.get(arm).copied().unwrap_or(0);
            if from == to {
                continue;
            }
            if from != "off" {
                prop_assert!(has(from) < had(from), "{} gave and did not shrink", from);
            }
            if to != "off" {
                prop_assert!(has(to) > had(to), "{} took and did not grow", to);
            }
            direct += u16::from(from != "off" && to != "off");
        }
        let others = wanted.iter().filter(|(arm, _)| *arm != "off");
        let grown: u16 = others
            .map(|(arm, slots)| slots.saturating_sub(had(arm)))
            .sum();
        prop_assert_eq!(
            direct,
            grown.saturating_sub(had("off")),
            "past the control goes only who must"
        );
        Ok(())
    }
}
