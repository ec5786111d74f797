use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::MAX_RULES;
use super::parts::RuleName;
use super::rule::Rule;
use crate::bucket::SlotTable;
use crate::error::{Code, Error};

/// The longest name of an author, and the longest reason, in bytes.
const MAX_SIGNED: (usize, usize) = (100, 1000);

/// All rules of a fleet, as one value: so that a change of several is one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// Counts the changes; 0 when there never was a rule.
    pub epoch: u64,
    /// In the order in which they are asked.
    pub rules: Vec<KeptRule>,
}

/// A rule with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRule {
    /// The rule.
    pub rule: Rule,
    /// Who has which version. It hangs on what was before, so that a change of weights moves as few people as it
    /// can.
    pub slots: Option<SlotTable>,
    /// Who changed it last, why and when.
    pub signature: Signature,
    /// The epoch of its last change.
    pub epoch: u64,
}

/// Who changes something, why and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Who.
    pub author: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub changed_unix_ms: i64,
}

/// What a change does to one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The rule.
    pub name: RuleName,
    /// As it was; `None` when it is new.
    pub before: Option<Rule>,
    /// As it will be; `None` when it goes.
    pub after: Option<Rule>,
    /// How many slots get another version, where it had weights and has some.
    pub moved: Option<u16>,
}

/// What becomes of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It goes.
    Removed,
}

impl ChangeKind {
    /// As people and programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Removed => "removed",
        }
    }
}

impl Change {
    /// What becomes of the rule.
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, _) => ChangeKind::Added,
            (Some(_), Some(_)) => ChangeKind::Changed,
            (Some(_), None) => ChangeKind::Removed,
        }
    }
}

impl Signature {
    /// Checks that somebody and something is said, on one line each.
    pub fn check(&self) -> Result<(), Error> {
        for (what, text, most) in [
            ("author", &self.author, MAX_SIGNED.0),
            ("reason", &self.reason, MAX_SIGNED.1),
        ] {
            if text.trim().is_empty() || text.len() > most || text.chars().any(char::is_control) {
                let message = format!("a change of rules needs its {what}");
                return Err(Error::new(Code::InvalidArgument, "not_signed", message)
                    .mend(format!("write one line of at most {most} bytes")));
            }
        }
        Ok(())
    }
}

impl RuleSet {
    /// A rule, by its name.
    pub fn get(&self, name: &str) -> Option<&KeptRule> {
        let mut rules = self.rules.iter();
        rules.find(|kept| kept.rule.name.as_str() == name)
    }

    /// The set with these rules too, which replace those of their names, and what that changes. With `prune` the
    /// others go. Nothing has changed when there is no change: the epoch is as before.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub fn apply(
        &self,
        rules: Vec<Rule>,
        prune: bool,
        by: &Signature,
    ) -> Result<(Self, Vec<Change>), Error> {
        let named: BTreeSet<RuleName> = rules.iter().map(|rule| rule.name.clone()).collect();
        let (mut kept, gone): (Vec<_>, Vec<_>) = (self.rules.iter().cloned())
            .partition(|kept| !prune || named.contains(&kept.rule.name));
        let mut changes: Vec<_> = gone.into_iter().map(removed).collect();
        for rule in rules {
            let before = kept.iter().position(|kept| kept.rule.name == rule.name);
            let before = before.map(|at| kept.swap_remove(at));
            if let Some(same) = before.as_ref().filter(|before| before.rule == rule) {
                kept.push(same.clone());
                continue;
            }
            let (next, change) = changed(before, rule, by, self.epoch + 1);
            kept.push(next);
            changes.push(change);
        }
        self.with(kept, changes)
    }

    /// The set without these rules.
    ///
    /// # Errors
    ///
    /// If there is no rule of a name.
    pub fn remove(&self, names: &[String]) -> Result<(Self, Vec<Change>), Error> {
        if let Some(unknown) = names.iter().find(|name| self.get(name).is_none()) {
            let unknown: String = unknown
                .chars()
                .take(80)
                .flat_map(char::escape_debug)
                .collect();
            let message = format!("there is no rule `{unknown}`");
            return Err(Error::new(Code::NotFound, "no_such_rule", message)
                .mend("see which there are: `hydrant rules list`"));
        }
        let is_named = |kept: &KeptRule| names.iter().any(|name| *name == kept.rule.name.as_str());
        let (gone, kept): (Vec<_>, Vec<_>) = self.rules.iter().cloned().partition(is_named);
        self.with(kept, gone.into_iter().map(removed).collect())
    }

    fn with(
        &self,
        mut rules: Vec<KeptRule>,
        mut changes: Vec<Change>,
    ) -> Result<(Self, Vec<Change>), Error> {
        if rules.len() > MAX_RULES {
            let message = format!(
                "{} rules are too many: {MAX_RULES} are the most",
                rules.len()
            );
            return Err(
                Error::new(Code::FailedPrecondition, "too_many_rules", message)
                    .mend("remove some: `hydrant rules remove NAME`"),
            );
        }
        rules.sort_by_cached_key(|kept| (Reverse(kept.rule.priority), kept.rule.name.clone()));
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        let epoch = self.epoch + u64::from(!changes.is_empty());
        Ok((Self { epoch, rules }, changes))
    }
}

fn removed(kept: KeptRule) -> Change {
    Change {
        name: kept.rule.name.clone(),
        before: Some(kept.rule),
        after: None,
        moved: None,
    }
}

fn changed(before: Option<KeptRule>, rule: Rule, by: &Signature, epoch: u64) -> (KeptRule, Change) {
    let table = before.as_ref().and_then(|before| before.slots.clone());
    let slots = slots(table.as_ref(), &rule);
    let change = Change {
        name: rule.name.clone(),
        before: before.map(|before| before.rule),
        after: Some(rule.clone()),
        moved: table
            .as_ref()
            .zip(slots.as_ref())
            .map(|(before, now)| before.moved(now)),
    };
    let kept = KeptRule {
        rule,
        slots,
        signature: by.clone(),
        epoch,
    };
    (kept, change)
}

/// Who has which version, when `before` had it. The first table gives all to the version with the highest weight,
/// of which the others take theirs.
fn slots(before: Option<&SlotTable>, rule: &Rule) -> Option<SlotTable> {
    let heaviest = rule
        .weights
        .iter()
        .max_by_key(|(_, weight)| weight.slots())?;
    let weights: BTreeMap<String, u16> = (rule.weights.iter())
        .map(|(version, weight)| (version.to_string(), weight.slots()))
        .collect();
    let first = || SlotTable::new(heaviest.0.to_string());
    let table = before.cloned().unwrap_or_else(first);
    // A rule's weights are all slots, and few; only what was before can be too much.
    let next = table.reallocate(&weights);
    next.or_else(|_| first().reallocate(&weights)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::bucket::slot;

    fn by(author: &str) -> Signature {
        Signature {
            author: author.into(),
            reason: "a test".into(),
            changed_unix_ms: 1,
        }
    }

    fn weights(text: &str) -> Vec<Rule> {
        let rule =
            format!("[[rule]]\nname = \"a\"\nservice = \"api/shop\"\nweights = {{ {text} }}");
        parse(&rule).unwrap()
    }

    fn named(name: &str, priority: i16) -> Rule {
        let text = format!(
            "[[rule]]\nname = \"{name}\"\nservice = \"api/shop\"\npriority = {priority}\ntimeout = \"1s\""
        );
        parse(&text).unwrap().remove(0)
    }

    fn arms(set: &RuleSet) -> Vec<String> {
        let table = set.rules[0].slots.as_ref().unwrap();
        (0..20_000)
            .map(|user| {
                table
                    .arm(slot("rule/a", &format!("user-{user}")))
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn weights_move_exactly_who_has_to_move_also_among_three() {
        let step = |set: &RuleSet, text| set.apply(weights(text), false, &by("ann")).unwrap();
        let (first, changes) = step(
            &RuleSet::default(),
            "\"1.0.0\" = 90, \"1.1.0\" = 5, \"1.2.0\" = 5",
        );
        assert_eq!((first.epoch, changes[0].moved), (1, None));
        let (second, changes) = step(&first, "\"1.0.0\" = 85, \"1.1.0\" = 10, \"1.2.0\" = 5");
        assert_eq!((second.epoch, changes[0].moved), (2, Some(500)));
        for (before, now) in arms(&first).iter().zip(arms(&second)) {
            let moved = before != &now;
            assert!(
                !moved || (before == "1.0.0" && now == "1.1.0"),
                "{before} {now}"
            );
        }
        // What had all is gone; what comes takes from what is left.
        let (third, changes) = step(&second, "\"1.1.0\" = 50, \"1.2.0\" = 50");
        assert_eq!(changes[0].moved, Some(8500));
        let (_, changes) = step(&third, "\"1.1.0\" = 50, \"1.2.0\" = 45, \"1.3.0\" = 5");
        assert_eq!(changes[0].moved, Some(500));
    }

    #[test]
    fn applying_the_same_again_is_no_change() {
        let (set, _) = RuleSet::default()
            .apply(weights("\"1.0.0\" = 100"), false, &by("ann"))
            .unwrap();
        let (again, changes) = set
            .apply(weights("\"1.0.0\" = 100"), false, &by("bob"))
            .unwrap();
        assert_eq!((again, changes), (set, vec![]));
    }

    #[test]
    fn rules_are_asked_by_priority_and_then_by_name() {
        let rules = vec![named("b", 0), named("c", 5), named("a", 0), named("d", -1)];
        let (set, _) = RuleSet::default().apply(rules, false, &by("ann")).unwrap();
        let names: Vec<_> = set
            .rules
            .iter()
            .map(|kept| kept.rule.name.as_str())
            .collect();
        assert_eq!(names, ["c", "a", "b", "d"]);
    }

    #[test]
    fn a_file_replaces_its_own_rules_and_with_prune_all() {
        let one = |name: &str| vec![named(name, 0)];
        let (set, _) = RuleSet::default()
            .apply(one("a"), false, &by("ann"))
            .unwrap();
        let (set, _) = set.apply(one("b"), false, &by("bob")).unwrap();
        assert_eq!((set.epoch, set.rules.len()), (2, 2));
        assert_eq!(
            (set.get("a").unwrap().epoch, set.get("b").unwrap().epoch),
            (1, 2)
        );
        let (pruned, changes) = set.apply(one("b"), true, &by("ann")).unwrap();
        assert_eq!((pruned.epoch, pruned.rules.len()), (3, 1));
        assert_eq!(
            (changes[0].kind(), changes[0].name.as_str()),
            (ChangeKind::Removed, "a")
        );
        assert_eq!(set.remove(&["x".into()]).unwrap_err().exit_code(), 3);
        let (none, _) = set.remove(&["a".into(), "b".into()]).unwrap();
        assert_eq!((none.epoch, none.rules.len()), (3, 0));
    }

    #[test]
    fn what_is_kept_reads_as_it_is_written() {
        let (set, _) = RuleSet::default()
            .apply(weights("\"1.0.0\" = 95, \"1.1.0\" = 5"), false, &by("ann"))
            .unwrap();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<RuleSet>(&json).unwrap(), set);
    }

    #[test]
    fn a_change_is_signed() {
        assert!(by("ann").check().is_ok());
        for bad in ["", "  ", "a\nb", &"a".repeat(101)] {
            assert!(by(bad).check().is_err(), "{bad}");
        }
    }
}
