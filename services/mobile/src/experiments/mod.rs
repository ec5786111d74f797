//! The experiments of one revision, compiled.
//!
//! [`definition`] reads what people write, [`catalog`] compares it, [`allocation`] gives arms their
//! slots from one revision to the next, and [`running`] says who is in which arm.

mod allocation;
mod answers;
mod catalog;
mod definition;
mod edit;
mod epochs;
mod fields;
mod judge;
mod observe;
#[cfg(test)]
mod observed;
mod report;
#[cfg(test)]
mod retained;
mod retention;
mod running;
mod statistics;
mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap};

use hydrant_flags::{Definitions, Mistake, Rule};

use crate::bundle::Bundle;
use allocation::{Allocation, Share, arms_salt, key, read, share_key, share_salt};
pub(crate) use allocation::{allocate, companions};
pub(crate) use answers::serve;
use catalog::{Catalog, document, locate_all};
use definition::Definition;
pub use edit::set_members;
use fields::is_name;
pub(crate) use observe::{MAX_ITEMS, Observations, make_tables};
pub(crate) use retention::Retention;
use running::{Draw, HeldOut};
pub(crate) use running::{Running, Standing};
pub(crate) use watch::Watch;

/// The most arms of an experiment.
const MAX_ARMS: usize = 20;
/// The longest name of an experiment, a layer, a holdout or a metric, in bytes.
const MAX_NAME: usize = 80;
/// The longest name of an arm, in bytes.
const MAX_ARM: usize = 100;
/// The longest id of a subject, in bytes.
const MAX_SUBJECT: usize = 190;
/// The most steps of a ramp.
const MAX_STEPS: usize = 100;
/// The most guards of an experiment.
const MAX_GUARDS: usize = 20;

/// The experiments of one revision.
#[derive(Debug, Default)]
pub(crate) struct Experiments {
    catalog: Catalog,
    /// By the key of the flag that they are on.
    running: HashMap<String, Running>,
    /// Of all that have ever run, by name.
    allocations: BTreeMap<String, Allocation>,
}

impl Experiments {
    /// # Errors
    ///
    /// All that is wrong with the documents, and with what they say about flags.
    pub(crate) fn compile(bundle: &Bundle, flags: &Definitions) -> Result<Self, Vec<Mistake>> {
        let catalog = Catalog::read(bundle)?;
        let mut mistakes = Vec::new();
        for experiment in catalog.experiments.values() {
            mistakes.append(&mut check_flag(experiment, flags));
        }
        let mut running = HashMap::new();
        for experiment in catalog.running() {
            match compile(experiment, &catalog, bundle) {
                Some(one) => {
                    running.insert(experiment.flag.clone(), one);
                }
                None => mistakes.push(no_table(experiment)),
            }
        }
        locate_all(bundle, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let names = catalog.experiments.keys();
        let allocation = |name: &String| Some((name.clone(), read(bundle, &key(name))?));
        Ok(Self {
            allocations: names.filter_map(allocation).collect(),
            catalog,
            running,
        })
    }

    /// Whether who may be in an experiment changes with time.
    pub(crate) fn uses_time(&self) -> bool {
        let mut rules = self.running.values().flat_map(|running| &running.eligible);
        rules.any(Rule::uses_time)
    }

    /// All experiments, by name.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.catalog.experiments.values()
    }

    /// An experiment as its document has it.
    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        self.catalog.experiments.get(name)
    }

    /// The slots of an experiment that has ever run.
    pub(crate) fn allocation(&self, name: &str) -> Option<&Allocation> {
        self.allocations.get(name)
    }

    /// The experiments that run, with their slots.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&Definition, &Allocation)> {
        let running = self.catalog.running();
        running.filter_map(|one| Some((one, self.allocations.get(&one.name)?)))
    }

    /// The names of the holdouts that keep people out of an experiment.
    fn holdouts_of(&self, experiment: &Definition) -> Vec<String> {
        let layer = experiment.layer.as_deref();
        let holdouts = self.catalog.holdouts.values();
        let covering = holdouts.filter(|holdout| holdout.covers(layer));
        covering.map(|holdout| holdout.name.clone()).collect()
    }

    /// The running experiment on a flag.
    pub(crate) fn on(&self, flag: &str) -> Option<&Running> {
        self.running.get(flag)
    }
}

fn compile(experiment: &Definition, catalog: &Catalog, bundle: &Bundle) -> Option<Running> {
    let allocation: Allocation = read(bundle, &key(&experiment.name))?;
    let share: Share = read(bundle, &share_key(experiment))?;
    let holdouts = catalog.holdouts.values();
    let holdouts = holdouts.filter(|one| one.covers(experiment.layer.as_deref()));
    let held_out = holdouts.map(|one| {
        let (salt, slots) = (one.salt(), one.slots);
        (one.name.clone(), HeldOut { salt, slots })
    });
    Some(Running {
        name: experiment.name.clone(),
        subject: experiment.subject.clone(),
        eligible: experiment.eligible.clone(),
        holdouts: held_out.collect(),
        share: Draw {
            salt: share_salt(experiment),
            table: share.table,
        },
        arms: Draw {
            salt: arms_salt(&experiment.salt),
            table: allocation.table,
        },
    })
}

/// Its flag is there, and its arms are variants of it.
fn check_flag(experiment: &Definition, flags: &Definitions) -> Vec<Mistake> {
    let own = document(experiment);
    let Some(flag) = flags.get(&experiment.flag) else {
        let message = format!("there is no flag `{}`", experiment.flag.escape_debug());
        let mistake = Mistake::at("/flag", message);
        return vec![mistake.mend("name the key of a flag").of(own)];
    };
    let steps = experiment.ramp.iter().enumerate();
    let steps = steps.map(|(at, step)| (format!("/ramp/{at}/arms"), &step.arms));
    let all = [("/arms".to_owned(), &experiment.arms)]
        .into_iter()
        .chain(steps);
    let mut mistakes = Vec::new();
    for (pointer, arms) in all {
        let missing = arms.keys().filter(|arm| flag.variant(arm).is_none());
        mistakes.extend(missing.map(|arm| {
            let message = format!("`{arm}` is no variant of the flag `{}`", experiment.flag);
            let mistake = Mistake::at(format!("{pointer}/{arm}"), message);
            mistake
                .mend("an arm is named as the variant that it shows")
                .of(&own)
        }));
    }
    mistakes
}

fn no_table(experiment: &Definition) -> Mistake {
    let mistake = Mistake::at("", "it runs and has no table of slots");
    mistake
        .mend("stop it and start it again")
        .of(document(experiment))
}
