//! The experiments of one revision, compiled.
//!
//! [`definition`] reads what people write, [`catalog`] compares it, [`allocation`] gives arms their
//! slots from one revision to the next, and [`running`] says who is in which arm.

mod allocation;
mod catalog;
mod definition;
mod epochs;
mod fields;
mod running;
mod statistics;

use std::collections::HashMap;

use hydrant_flags::{Definitions, Mistake};

use crate::bundle::Bundle;
use allocation::{Allocation, Share, key, read, share_key, share_salt};
pub(crate) use allocation::{allocate, companions};
use catalog::{Catalog, document, locate_all};
use definition::Definition;
use running::{Draw, HeldOut};
pub(crate) use running::{Running, Standing};

/// The most arms of an experiment.
const MAX_ARMS: usize = 20;
/// The longest name of an experiment, a layer, a holdout or a metric, in bytes.
const MAX_NAME: usize = 80;
/// The most steps of a ramp.
const MAX_STEPS: usize = 100;
/// The most guards of an experiment.
const MAX_GUARDS: usize = 20;

/// The experiments of one revision.
#[derive(Debug, Default)]
pub(crate) struct Experiments {
    catalog: Catalog,
    running: HashMap<String, Running>,
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
        match mistakes.is_empty() {
            true => Ok(Self { catalog, running }),
            false => Err(mistakes),
        }
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
            salt: format!("experiment/{}", experiment.salt),
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
