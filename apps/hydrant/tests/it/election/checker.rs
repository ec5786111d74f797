//! Decides whether a history is one of a fenced election: at every moment at most one epoch's
//! writes are accepted.
//!
//! What each rule stands on:
//!
//! - Moments are of one clock for all processes of the machine. A write's `sent` is taken before
//!   it is sent, an answer's `at` when it is there. So "sent behind an answer" is certain, and
//!   what overlaps is never held against anybody.
//! - Revisions of one key are in the order in which its writes were accepted: the state promises
//!   it. [`Rule::Order`] also takes the revisions of different keys as one order, where
//!   [`Numbering`] says that they are; else a history is held to [`Rule::KeyOrder`] and
//!   [`Rule::Stale`].
//! - A write without an answer may have happened. It counts as accepted once a read has seen its
//!   value, and else for nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::{History, Moment, Outcome, Write};

/// What a history must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every line of every process was recorded.
    Complete,
    /// Nobody but its one holder has a share in an epoch.
    OneHolder,
    /// An epoch is higher than every one that was known when its campaign began.
    Growth,
    /// Of one key: no write under a lower epoch is accepted behind one under a higher.
    KeyOrder,
    /// Of all keys together: the same.
    Order,
    /// No write is accepted that was sent when a higher epoch was known already.
    Stale,
    /// No two accepted writes have one revision.
    Revision,
    /// What was acknowledged is there, or a later write in its place.
    Durable,
    /// Only what was accepted, or may have been, is ever read.
    NothingElse,
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// About when.
    pub at: Moment,
    pub what: String,
}

/// What revisions of different keys say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The writes of all keys are numbered in one order, as in the embedded engine.
    OneForAll,
    /// Nothing.
    PerKey,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History, numbering: Numbering) -> Vec<Violation> {
    let mut found = Found::default();
    for gap in &history.gaps {
        found.add(Rule::Complete, 0, gap.clone());
    }
    let settled = settle(history);
    let accepted = in_order(&settled);
    holders(history, &accepted, &mut found);
    growth(history, &mut found);
    if numbering == Numbering::OneForAll {
        order(&accepted, &mut found);
    }
    key_order(&accepted, &mut found);
    stale(history, &accepted, &mut found);
    reads(history, &settled, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, at: Moment, what: String) {
        self.0.push(Violation { rule, at, what });
    }
}

/// The writes; of those without an answer, what a read has seen counts as accepted.
fn settle(history: &History) -> Vec<Write> {
    let seen: HashMap<&str, u64> = history
        .reads
        .iter()
        .map(|read| (read.value.as_str(), read.revision))
        .collect();
    let mut writes = history.writes.clone();
    for write in &mut writes {
        if let (Outcome::Unknown { .. }, Some(revision)) =
            (&write.outcome, seen.get(write.name.as_str()))
        {
            write.outcome = Outcome::Accepted {
                revision: *revision,
            };
            // Nobody heard an answer, so nobody knew of it.
            write.answered = None;
        }
    }
    writes
}

/// The accepted writes with their revisions, in the order of these.
fn in_order(writes: &[Write]) -> Vec<(u64, &Write)> {
    let revised = |write: &'_ Write| write.revision();
    let mut accepted: Vec<(u64, &Write)> = writes
        .iter()
        .filter_map(|write| Some((revised(write)?, write)))
        .collect();
    accepted.sort_by_key(|(revision, _)| *revision);
    accepted
}

fn holders(history: &History, accepted: &[(u64, &Write)], found: &mut Found) {
    let mut holders: HashMap<u64, &str> = HashMap::new();
    let mut elected: HashMap<u64, &str> = HashMap::new();
    for election in &history.elections {
        if let Some(other) = elected.insert(election.epoch, &election.who) {
            let what = format!(
                "epoch {} was given to {other} and to {}",
                election.epoch, election.who
            );
            found.add(Rule::OneHolder, election.at, what);
        }
        holders.entry(election.epoch).or_insert(&election.who);
    }
    let wrote = accepted.iter();
    let wrote = wrote.map(|(_, write)| (&write.who, write.epoch, write.sent));
    let told = history.observed.iter();
    let told = told.map(|(who, epoch)| (who, *epoch, 0));
    for (who, epoch, at) in wrote.chain(told) {
        let holder = holders.entry(epoch).or_insert(who);
        if holder != who {
            let what = format!("epoch {epoch} is {holder}'s, and {who} acted under it");
            found.add(Rule::OneHolder, at, what);
        }
    }
}

fn growth(history: &History, found: &mut Found) {
    let known = Known::of(
        history
            .elections
            .iter()
            .map(|election| (election.at, election.epoch)),
    );
    for election in &history.elections {
        let before = known.before(election.began);
        if election.epoch <= before {
            let what = format!(
                "{} was elected under epoch {} when {before} was known before its campaign",
                election.who, election.epoch
            );
            found.add(Rule::Growth, election.at, what);
        }
    }
    for pair in history.observed.windows(2) {
        if pair[1].1 < pair[0].1 {
            let what = format!("an observer saw epoch {} behind {}", pair[1].1, pair[0].1);
            found.add(Rule::Growth, 0, what);
        }
    }
}

fn order(accepted: &[(u64, &Write)], found: &mut Found) {
    for pair in accepted.windows(2) {
        if pair[0].0 == pair[1].0 {
            let what = format!("{} and {}", told(pair[0]), told(pair[1]));
            found.add(Rule::Revision, pair[1].1.sent, what);
        }
    }
    epochs_grow(Rule::Order, accepted, found);
}

fn key_order(accepted: &[(u64, &Write)], found: &mut Found) {
    let mut keys: BTreeMap<&str, Vec<(u64, &Write)>> = BTreeMap::new();
    for write in accepted {
        keys.entry(&write.1.key).or_default().push(*write);
    }
    for writes in keys.values() {
        epochs_grow(Rule::KeyOrder, writes, found);
    }
}

fn epochs_grow(rule: Rule, writes: &[(u64, &Write)], found: &mut Found) {
    let mut highest: Option<(u64, &Write)> = None;
    for write in writes {
        match highest {
            Some(high) if write.1.epoch < high.1.epoch => {
                let what = format!("{} was accepted behind {}", told(*write), told(high));
                found.add(rule, write.1.sent, what);
            }
            Some(high) if write.1.epoch == high.1.epoch => {}
            _ => highest = Some(*write),
        }
    }
}

/// A higher epoch is known once its holder has heard that it is elected, or that a write under it
/// was accepted: from then on, whatever is sent under a lower one must be refused, on every key.
fn stale(history: &History, accepted: &[(u64, &Write)], found: &mut Found) {
    let elected = history
        .elections
        .iter()
        .map(|election| (election.at, election.epoch));
    let wrote = accepted
        .iter()
        .filter_map(|(_, write)| Some((write.answered?, write.epoch)));
    let known = Known::of(elected.chain(wrote));
    for write in accepted {
        let before = known.before(write.1.sent);
        if write.1.epoch < before {
            let what = format!(
                "{} was accepted, sent when {before} was known",
                told(*write)
            );
            found.add(Rule::Stale, write.1.sent, what);
        }
    }
}

fn reads(history: &History, writes: &[Write], found: &mut Found) {
    let named: HashMap<&str, &Write> = writes
        .iter()
        .map(|write| (write.name.as_str(), write))
        .collect();
    let mut acknowledged: BTreeMap<&str, Known> = BTreeMap::new();
    for write in writes {
        if let (Some(revision), Some(at)) = (write.revision(), write.answered) {
            let of_key = acknowledged.entry(&write.key).or_default();
            of_key.0.push((at, revision));
        }
    }
    for known in acknowledged.values_mut() {
        known.settle();
    }
    for read in &history.reads {
        let least = acknowledged
            .get(read.key.as_str())
            .map_or(0, |known| known.before(read.began));
        if read.revision < least {
            let what = format!(
                "{} was read at revision {}, when {least} was acknowledged before",
                read.key, read.revision
            );
            found.add(Rule::Durable, read.at, what);
        }
        if read.revision == 0 {
            continue;
        }
        let write = named.get(read.value.as_str());
        let is_it =
            |write: &&&Write| write.key == read.key && write.revision() == Some(read.revision);
        if write.filter(is_it).is_none() {
            let what = format!(
                "`{}` stood at {} with revision {}, and no write that may have happened says so",
                read.value, read.key, read.revision
            );
            found.add(Rule::NothingElse, read.at, what);
        }
    }
}

fn told((revision, write): (u64, &Write)) -> String {
    format!(
        "{} ({:?}, epoch {}, {} at revision {revision})",
        write.name, write.manner, write.epoch, write.key
    )
}

/// The highest number that was known by when.
#[derive(Default)]
struct Known(Vec<(Moment, u64)>);

impl Known {
    fn of(facts: impl Iterator<Item = (Moment, u64)>) -> Self {
        let mut known = Self(facts.collect());
        known.settle();
        known
    }

    /// Sorts the facts by time, and lets each be the highest so far.
    fn settle(&mut self) {
        self.0.sort_unstable();
        let mut highest = 0;
        for (_, number) in &mut self.0 {
            highest = highest.max(*number);
            *number = highest;
        }
    }

    /// The highest that was known before `moment`; 0 when none was.
    fn before(&self, moment: Moment) -> u64 {
        let facts = self.0.partition_point(|(at, _)| *at < moment);
        facts.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Event, Line, Manner, Read};
    use super::*;

    /// Writes down a history line by line.
    #[derive(Default)]
    struct Story {
        lines: Vec<Line>,
        numbers: HashMap<&'static str, u64>,
        observed: Vec<(String, u64)>,
    }

    impl Story {
        fn say(mut self, who: &'static str, event: Event) -> Self {
            let next = self.numbers.entry(who).or_default();
            let line = Line {
                who: who.into(),
                number: *next,
                event,
            };
            *next += 1;
            self.lines.push(line);
            self
        }

        fn elected(self, who: &'static str, epoch: u64, began: Moment, at: Moment) -> Self {
            self.say(who, Event::Elected { epoch, began, at })
        }

        fn sending(self, who: &'static str, epoch: u64, key: &str, at: Moment) -> Self {
            let (key, manner) = (key.into(), Manner::Raw);
            self.say(
                who,
                Event::Sending {
                    epoch,
                    key,
                    at,
                    manner,
                },
            )
        }

        /// Sent at `at`, answered one later.
        fn write(
            self,
            who: &'static str,
            epoch: u64,
            key: &str,
            at: Moment,
            outcome: Outcome,
        ) -> Self {
            let story = self.sending(who, epoch, key, at);
            let sending = story.numbers[who] - 1;
            let at = at + 1;
            story.say(
                who,
                Event::Answered {
                    sending,
                    at,
                    outcome,
                },
            )
        }

        fn read(
            self,
            who: &'static str,
            key: &str,
            at: Moment,
            revision: u64,
            value: &str,
        ) -> Self {
            self.say(
                who,
                Event::Read(Read {
                    key: key.into(),
                    began: at,
                    at: at + 1,
                    revision,
                    value: value.into(),
                }),
            )
        }

        fn observed(mut self, who: &str, epoch: u64) -> Self {
            self.observed.push((who.into(), epoch));
            self
        }

        fn broken(self) -> Vec<Rule> {
            let mut history = History::of(&self.lines);
            history.observed = self.observed;
            let found = check(&history, Numbering::OneForAll);
            let mut rules: Vec<Rule> = found.iter().map(|found| found.rule).collect();
            rules.sort_unstable();
            rules.dedup();
            rules
        }
    }

    fn accepted(revision: u64) -> Outcome {
        Outcome::Accepted { revision }
    }

    /// `a` leads under 1 and is stopped, `b` leads under 2, `a` goes on and is refused.
    fn handed_over() -> Story {
        Story::default()
            .elected("a", 1, 0, 10)
            .write("a", 1, "shared", 20, accepted(1))
            .write("a", 1, "own/1", 30, accepted(2))
            .elected("b", 2, 5, 100)
            .write("b", 2, "shared", 110, accepted(3))
    }

    #[test]
    fn a_fenced_history_is_good() {
        let story = handed_over()
            .write("a", 1, "shared", 120, Outcome::Refused)
            .write("a", 1, "own/1", 130, Outcome::Refused)
            .read("b", "own/1", 140, 2, "a/3")
            .read("b", "shared", 150, 3, "b/1")
            .observed("a", 1)
            .observed("b", 2)
            .observed("b", 2);
        assert_eq!(story.broken(), []);
    }

    #[test]
    fn an_empty_history_is_good() {
        assert_eq!(Story::default().broken(), []);
    }

    #[test]
    fn what_overlaps_an_election_is_held_against_nobody() {
        // Sent before the answer of Campaign was there, and accepted before the successor wrote.
        let story = Story::default()
            .elected("a", 1, 0, 10)
            .elected("b", 2, 5, 100)
            .write("a", 1, "own/1", 99, accepted(1))
            .write("b", 2, "own/2", 101, accepted(2));
        assert_eq!(story.broken(), []);
    }

    #[test]
    fn a_late_write_on_a_key_of_the_successor_is_found() {
        let story = handed_over().write("a", 1, "shared", 120, accepted(4));
        assert_eq!(story.broken(), [Rule::KeyOrder, Rule::Order, Rule::Stale]);
    }

    #[test]
    fn a_late_write_on_a_key_that_the_successor_never_touched_is_found() {
        let story = handed_over().write("a", 1, "own/1", 120, accepted(4));
        assert_eq!(story.broken(), [Rule::Order, Rule::Stale]);
    }

    #[test]
    fn a_late_write_before_the_first_one_of_the_successor_is_found() {
        let story = Story::default()
            .elected("a", 1, 0, 10)
            .elected("b", 2, 5, 100)
            .write("a", 1, "own/1", 120, accepted(1));
        assert_eq!(story.broken(), [Rule::Stale]);
    }

    #[test]
    fn a_write_that_was_long_on_its_way_is_found() {
        // Sent in time, but accepted behind a write of the successor.
        let story = handed_over()
            .sending("a", 1, "own/1", 90)
            .read("b", "own/1", 200, 4, "a/5");
        assert_eq!(story.broken(), [Rule::Order]);
    }

    #[test]
    fn an_unanswered_write_counts_once_it_is_seen() {
        let unseen = handed_over().sending("a", 1, "own/1", 120);
        assert_eq!(unseen.broken(), []);
        let seen = handed_over()
            .sending("a", 1, "own/1", 120)
            .read("b", "own/1", 200, 4, "a/5");
        assert_eq!(seen.broken(), [Rule::Order, Rule::Stale]);
    }

    #[test]
    fn an_epoch_of_two_is_found() {
        let twice = handed_over().elected("c", 2, 50, 105);
        assert_eq!(twice.broken(), [Rule::OneHolder]);
        let borrowed = handed_over().write("c", 2, "shared", 120, accepted(4));
        assert_eq!(borrowed.broken(), [Rule::OneHolder]);
        let told = handed_over().observed("c", 2);
        assert_eq!(told.broken(), [Rule::OneHolder]);
    }

    #[test]
    fn an_epoch_that_goes_back_is_found() {
        let story = handed_over().elected("c", 1, 200, 210);
        assert_eq!(story.broken(), [Rule::OneHolder, Rule::Growth]);
        let observed = handed_over().observed("b", 2).observed("a", 1);
        assert_eq!(observed.broken(), [Rule::Growth]);
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_is_found() {
        let gone = handed_over().read("b", "own/1", 200, 0, "");
        assert_eq!(gone.broken(), [Rule::Durable]);
        let older = handed_over().read("b", "shared", 200, 1, "a/1");
        assert_eq!(older.broken(), [Rule::Durable]);
        // While it was under way it need not be there.
        let meanwhile = handed_over().read("b", "shared", 111, 1, "a/1");
        assert_eq!(meanwhile.broken(), []);
    }

    #[test]
    fn a_refused_write_that_is_there_is_found() {
        let story = handed_over()
            .write("a", 1, "own/1", 120, Outcome::Refused)
            .read("b", "own/1", 200, 4, "a/5");
        assert_eq!(story.broken(), [Rule::NothingElse]);
        let foreign = handed_over().read("b", "own/1", 200, 4, "somebody else");
        assert_eq!(foreign.broken(), [Rule::NothingElse]);
    }

    #[test]
    fn a_revision_that_is_given_twice_is_found() {
        let story = handed_over().write("b", 2, "own/2", 120, accepted(3));
        assert_eq!(story.broken(), [Rule::Revision]);
    }

    #[test]
    fn a_line_that_was_lost_is_found() {
        let mut story = handed_over();
        story.lines.remove(2);
        assert!(story.broken().contains(&Rule::Complete));
    }
}
