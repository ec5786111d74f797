//! What the leader does for experiments: steps of ramps at their time, guard rails, and alarms.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_sdk::{Code, Duty, Error, Term, turns};
use serde_json::{Map, Value, json};

use super::allocation::Allocation;
use super::definition::{Definition, Weights};
use super::edit::set_members;
use super::fields::percent;
use super::judge::{Numbers, Verdict};
use super::observe::Observations;
use crate::alarms::Alarms;
use crate::compiled::Compiled;
use crate::documents::{DocumentId, Kind};
use crate::service::{Desk, Edit, Refused};

/// How often experiments are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Who makes the revisions of ramps.
const RAMP: &str = "ramp";
/// Who makes the revisions of guard rails.
const GUARD_RAIL: &str = "guard-rail";

/// Alarms about experiments begin so.
const ABOUT: &str = "experiment/";

/// Looks after experiments while it leads.
pub(crate) struct Watch {
    pub(crate) observations: Observations,
    pub(crate) alarms: Alarms,
}

impl Duty for Watch {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            let _raised = Raised(&self.alarms);
            let mut turns = turns(LOOK);
            loop {
                term.turn(&mut turns).await;
                if let Err(error) = self.look().await {
                    tracing::debug!(%error, "experiments could not be looked at; trying again");
                }
            }
        })
    }
}

/// The alarms of a term: the next leader's to tell when it is over.
struct Raised<'a>(&'a Alarms);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.hand_over(ABOUT);
    }
}

impl Watch {
    /// Looks at every running experiment once.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        let desk = &self.observations.desk;
        if !desk.has_tables() {
            return Ok(());
        }
        let current = desk.current().await?;
        let mut looked_at = BTreeSet::new();
        for (experiment, allocation) in current.experiments.running() {
            looked_at.insert(format!("{ABOUT}{}", experiment.name));
            let done = self.look_at(&current, experiment, allocation).await;
            done.or_else(passing)?;
        }
        let others = self.alarms.list().into_iter().map(|alarm| alarm.name);
        for over in others.filter(|name| name.starts_with(ABOUT) && !looked_at.contains(name)) {
            self.alarms.clear(&over);
        }
        Ok(())
    }

    async fn look_at(
        &self,
        current: &Compiled,
        experiment: &Definition,
        allocation: &Allocation,
    ) -> Result<(), Refused> {
        let desk = &self.observations.desk;
        let now = desk.clock().unix_ms();
        let due = experiment.due(allocation.ramped_unix_ms, now);
        if let Some(step) = due.filter(|step| step.arms != experiment.arms) {
            let reason = format!("the ramp: {}", weights(&step.arms));
            let changes = [("arms", Some(percents(&step.arms)))];
            return change(desk, current, experiment, RAMP, &reason, &changes).await;
        }
        let numbers = self.observations.numbers(&experiment.name).await?;
        self.tell(experiment, allocation, &numbers);
        self.guard(current, experiment, &numbers).await
    }

    fn tell(&self, experiment: &Definition, allocation: &Allocation, numbers: &Numbers) {
        let name = format!("{ABOUT}{}", experiment.name);
        let alarms = numbers.alarms(experiment, allocation);
        let message = alarms.join("; ");
        let mend = format!(
            "do not decide by its numbers before you know why: see `hydrant mobile experiment report {}`",
            experiment.name
        );
        let wrong = (!alarms.is_empty()).then_some((message.as_str(), mend.as_str()));
        self.alarms.set(&name, wrong);
    }

    /// An arm that does harm loses its weight, with all others: the control has everybody.
    async fn guard(
        &self,
        current: &Compiled,
        experiment: &Definition,
        numbers: &Numbers,
    ) -> Result<(), Refused> {
        let has_people = |arm: &str| experiment.arms.get(arm).is_some_and(|slots| *slots > 0);
        let guards = numbers.guards(experiment);
        let broken = guards
            .iter()
            .find(|one| one.verdict == Verdict::Broken && has_people(one.arm));
        let Some(broken) = broken else {
            return Ok(());
        };
        let all = |(arm, _): (&String, &u16)| {
            (arm.clone(), u16::from(*arm == experiment.control) * 10_000)
        };
        let control: Weights = experiment.arms.iter().map(all).collect();
        let reason = format!(
            "{}; the control gets all weight, and the ramp ends",
            broken.says(&experiment.control)
        );
        let changes = [("arms", Some(percents(&control))), ("ramp", None)];
        let desk = &self.observations.desk;
        change(desk, current, experiment, GUARD_RAIL, &reason, &changes).await
    }
}

/// Changes members of an experiment's document, unless somebody else has changed it meanwhile.
async fn change(
    desk: &Desk,
    current: &Compiled,
    experiment: &Definition,
    author: &str,
    reason: &str,
    changes: &[(&str, Option<Value>)],
) -> Result<(), Refused> {
    let text = set_members(&experiment.text, changes)
        .map_err(|error| Error::new(Code::Internal, "not_an_object", error.to_string()))?;
    let id = DocumentId::new(Kind::Experiment, &experiment.name)
        .map_err(|error| Error::new(Code::Internal, "bad_name", error))?;
    let edit = Edit {
        id,
        body: Some(text),
    };
    let revision = desk
        .amend(author, reason, vec![edit], current.revision)
        .await?;
    tracing::info!(
        experiment = experiment.name,
        author,
        revision,
        reason,
        "changed an experiment"
    );
    Ok(())
}

/// Weights as people write them.
fn percents(weights: &Weights) -> Value {
    let number = |slots: &u16| match percent(u32::from(*slots)).parse::<u64>() {
        Ok(whole) => json!(whole),
        Err(_) => json!(f64::from(*slots) / 100.0),
    };
    let members = weights
        .iter()
        .map(|(arm, slots)| (arm.clone(), number(slots)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn weights(weights: &Weights) -> String {
    let one = |(arm, slots): (&String, &u16)| format!("`{arm}` {} %", percent(u32::from(*slots)));
    weights.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Somebody else has changed the experiment meanwhile: the next look sees what is right now.
fn passing(refused: Refused) -> Result<(), Error> {
    match refused.error.code {
        Code::Aborted => Ok(()),
        _ => Err(refused.error),
    }
}
