//! What the numbers of an experiment say: whether they can be trusted, and whether an arm does harm.

use std::collections::BTreeMap;

use super::allocation::Allocation;
use super::definition::{Definition, Guard};
use super::statistics::{Comparison, Sample, compare, ratio};
use super::store::{Count, Sum};

/// Less likely than this by chance, and the counts of arms are not what the weights promise.
const RATIO_ALARM: f64 = 0.001;
/// Less likely than this by chance, and an arm does harm.
const GUARD_ALARM: f64 = 0.01;

/// What apps reported of one experiment.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) counts: Vec<Count>,
    pub(super) sums: Vec<Sum>,
}

/// How a guard stands to an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There are too few people to say.
    Few,
    Well,
    Broken,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Well => "well",
            Self::Broken => "broken",
        }
    }
}

/// A guard and an arm.
#[derive(Debug)]
pub(super) struct Guarded<'a> {
    pub(super) guard: &'a Guard,
    pub(super) arm: &'a str,
    pub(super) sample: Sample,
    pub(super) control: Sample,
    pub(super) comparison: Comparison,
    pub(super) verdict: Verdict,
}

/// An epoch's counts beside its weights.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) revision: u64,
    pub(super) since_unix_ms: i64,
    /// The people who are compared, and the slots that they come from, by arm.
    pub(super) arms: BTreeMap<String, (u64, u16)>,
    pub(super) p: Option<f64>,
    pub(super) alarm: bool,
}

impl Numbers {
    /// How many people saw an arm.
    pub(super) fn people(&self, arm: &str) -> u64 {
        let of_arm = self.counts.iter().filter(|count| count.arm == arm);
        of_arm.map(|count| count.people).sum()
    }

    /// A metric in an arm. Everybody who saw the arm counts, also who reported nothing.
    pub(super) fn sample(&self, metric: &str, arm: &str) -> Sample {
        let sum = self.sum(metric, arm);
        Sample {
            people: self.people(arm),
            sum: sum.map_or(0.0, |sum| sum.total),
            squares: sum.map_or(0.0, |sum| sum.squares),
        }
    }

    pub(super) fn sum(&self, metric: &str, arm: &str) -> Option<&Sum> {
        let mut sums = self.sums.iter();
        sums.find(|sum| sum.metric == metric && sum.arm == arm)
    }

    /// Each guard of an experiment with each arm that is not the control.
    pub(super) fn guards<'a>(&self, experiment: &'a Definition) -> Vec<Guarded<'a>> {
        let arms = experiment.arms.keys();
        let arms: Vec<&String> = arms.filter(|arm| **arm != experiment.control).collect();
        let guards = experiment.guards.iter();
        let pairs = guards.flat_map(|guard| arms.iter().map(move |arm| (guard, *arm)));
        pairs
            .map(|(guard, arm)| self.guard(experiment, guard, arm))
            .collect()
    }

    fn guard<'a>(&self, of: &'a Definition, guard: &'a Guard, arm: &'a str) -> Guarded<'a> {
        let sample = self.sample(&guard.metric, arm);
        let control = self.sample(&guard.metric, &of.control);
        let comparison = compare(&sample, &control, guard.worse);
        let verdict = if sample.people.min(control.people) < guard.minimum {
            Verdict::Few
        } else if comparison.p < GUARD_ALARM && comparison.worse_by > guard.limit {
            Verdict::Broken
        } else {
            Verdict::Well
        };
        Guarded {
            guard,
            arm,
            sample,
            control,
            comparison,
            verdict,
        }
    }

    /// Compares the people of each epoch with its weights. With many epochs each has to be the less
    /// likely, so that all together raise no more false alarms than one.
    pub(super) fn epochs(&self, allocation: &Allocation) -> Vec<Checked> {
        let places = 0..allocation.epochs.all().len();
        let mut checked: Vec<Checked> = places.map(|at| self.epoch(allocation, at)).collect();
        let compared = checked.iter().filter(|epoch| epoch.p.is_some()).count();
        for epoch in &mut checked {
            epoch.alarm = epoch.p.is_some_and(|p| p * (compared as f64) < RATIO_ALARM);
        }
        checked
    }

    fn epoch(&self, allocation: &Allocation, place: usize) -> Checked {
        let epoch = &allocation.epochs.all()[place];
        let slots = allocation.epochs.compared(place).into_iter();
        // An arm that nobody has come to counts most of all.
        let mut arms: BTreeMap<String, (u64, u16)> =
            slots.map(|(arm, slots)| (arm, (0, slots))).collect();
        for count in self
            .counts
            .iter()
            .filter(|count| count.epoch == epoch.revision)
        {
            if let Some(arm) = arms.get_mut(&count.arm) {
                arm.0 = count.compared;
            }
        }
        let counts: Vec<(u64, u16)> = arms.values().copied().collect();
        Checked {
            revision: epoch.revision,
            since_unix_ms: epoch.at_unix_ms,
            p: ratio(&counts),
            arms,
            alarm: false,
        }
    }

    /// What somebody has to look at, for people.
    pub(super) fn alarms(&self, experiment: &Definition, allocation: &Allocation) -> Vec<String> {
        let mut alarms: Vec<String> = self
            .epochs(allocation)
            .iter()
            .filter(|epoch| epoch.alarm)
            .map(Checked::says)
            .collect();
        let guards = self.guards(experiment);
        let broken = guards.iter().filter(|one| one.verdict == Verdict::Broken);
        alarms.extend(broken.map(|one| format!("guard rail: {}", one.says(&experiment.control))));
        alarms
    }
}

impl Checked {
    /// How many of the people the slots of an arm promise.
    pub(super) fn expected(&self, slots: u16) -> f64 {
        let people: u64 = self.arms.values().map(|(people, _)| people).sum();
        let all: u32 = self.arms.values().map(|(_, slots)| u32::from(*slots)).sum();
        people as f64 * f64::from(slots) / f64::from(all.max(1))
    }

    fn says(&self) -> String {
        let arms = self.arms.iter().map(|(arm, (seen, slots))| {
            let expected = self.expected(*slots);
            format!("{seen} people in `{arm}` where {expected:.0} belong")
        });
        format!(
            "sample ratio: since revision {} there are {} ({})",
            self.revision,
            arms.collect::<Vec<_>>().join(", "),
            by_chance(self.p.unwrap_or(1.0))
        )
    }
}

impl Guarded<'_> {
    /// The figures, for people.
    pub(super) fn says(&self, control: &str) -> String {
        let Self {
            guard,
            arm,
            comparison,
            ..
        } = self;
        format!(
            "`{}` is {} in `{arm}` than in `{control}` by {}, and {} is the limit: {} of {} people \
             against {} of {} ({})",
            guard.metric,
            guard.worse.as_str(),
            figure(comparison.worse_by),
            figure(guard.limit),
            figure(self.sample.mean()),
            self.sample.people,
            figure(self.control.mean()),
            self.control.people,
            by_chance(comparison.p)
        )
    }
}

/// A number with the digits that matter.
fn figure(number: f64) -> String {
    let text = format!("{number:.4}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short.is_empty() || short == "-0" {
        return "0".into();
    }
    short.to_owned()
}

/// How likely chance does it, for people.
fn by_chance(p: f64) -> String {
    match p {
        0.0..0.0001 => "by chance less than once in 10,000".into(),
        p => format!("by chance p = {}", figure(p)),
    }
}
