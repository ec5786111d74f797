//! What comes of experiments, for people: lists, reports, and who is in which arm.

use std::collections::BTreeSet;

use hydrant_flags::Context;
use hydrant_records::{RecordsError, read};
use hydrant_sdk::{Code, Error};
use serde_json::{Map, Value};

use super::definition::Definition;
use super::fields::percent;
use super::judge::{Checked, Guarded, Numbers};
use super::observe::Observations;
use super::running::{Running, Standing};
use super::store;
use crate::compiled::Compiled;
use crate::proto::{
    ArmSummary, EpochArm, EpochReport, ExperimentSummary, GuardOfArm, GuardReport,
    ListExperimentsRequest, ListExperimentsResponse, MetricOfArm, MetricReport, RampStep,
    ReportRequest, ReportResponse, StandingOf, WhoRequest, WhoResponse,
};

impl Observations {
    /// What apps reported of an experiment.
    pub(super) async fn numbers(&self, experiment: &str) -> Result<Numbers, Error> {
        let records = self.records().await?;
        let numbers: Result<Numbers, RecordsError> = read!(records, |tx| {
            Ok(Numbers {
                counts: store::counts(tx, experiment).await?,
                sums: store::sums(tx, experiment).await?,
            })
        });
        Ok(numbers?)
    }

    /// All experiments, with what they are at now.
    pub(crate) async fn list(
        &self,
        _request: ListExperimentsRequest,
    ) -> Result<ListExperimentsResponse, Error> {
        let current = self.desk.current().await?;
        let mut experiments = Vec::new();
        for experiment in current.experiments.definitions() {
            let numbers = self.numbers(&experiment.name).await?;
            experiments.push(self.summary(&current, experiment, &numbers));
        }
        Ok(ListExperimentsResponse {
            experiments,
            revision: current.revision,
            ..Default::default()
        })
    }

    /// One experiment.
    pub(crate) async fn report(&self, request: ReportRequest) -> Result<ReportResponse, Error> {
        let current = self.desk.current().await?;
        let experiment = find(&current, &request.name)?;
        let allocation = current.experiments.allocation(&experiment.name);
        let numbers = self.numbers(&experiment.name).await?;
        let epochs = allocation.map_or(Vec::new(), |allocation| numbers.epochs(allocation));
        let ramped = allocation.map_or(0, |allocation| allocation.ramped_unix_ms);
        Ok(ReportResponse {
            experiment: self.summary(&current, experiment, &numbers).into(),
            metrics: metrics(experiment, &numbers),
            epochs: epochs.iter().map(epoch).collect(),
            guards: guards(experiment, &numbers),
            ramp: self.ramp(experiment, ramped),
            holdouts: current.experiments.holdouts_of(experiment),
            ..Default::default()
        })
    }

    fn summary(
        &self,
        current: &Compiled,
        experiment: &Definition,
        numbers: &Numbers,
    ) -> ExperimentSummary {
        let allocation = current.experiments.allocation(&experiment.name);
        let ramped = allocation.map_or(0, |allocation| allocation.ramped_unix_ms);
        let alarms = match allocation.filter(|_| experiment.is_running()) {
            Some(allocation) => numbers.alarms(experiment, allocation),
            None => Vec::new(),
        };
        let next = self.ramp(experiment, ramped);
        let next = next.iter().find(|step| step.state == "next");
        ExperimentSummary {
            name: experiment.name.clone(),
            flag: experiment.flag.clone(),
            state: experiment.stage.as_str().into(),
            layer: experiment.layer.clone().unwrap_or_default(),
            traffic: u32::from(experiment.traffic),
            arms: arms(experiment, numbers),
            alarms,
            next_step_unix_ms: next.map(|step| step.at_unix_ms),
            ..Default::default()
        }
    }

    /// The steps of the ramp: those behind are done, and of a running experiment one is next.
    fn ramp(&self, experiment: &Definition, ramped_unix_ms: i64) -> Vec<RampStep> {
        let now = self.desk.clock().unix_ms();
        let is_done = |at: i64| at <= ramped_unix_ms || (at <= now && experiment.is_running());
        let next = experiment
            .ramp
            .iter()
            .find(|step| !is_done(step.at_unix_ms));
        let next = next.filter(|_| experiment.is_running());
        let state = |at: i64| match () {
            () if is_done(at) => "done",
            () if next.is_some_and(|next| next.at_unix_ms == at) => "next",
            () => "later",
        };
        let step = |step: &super::definition::Step| RampStep {
            at_unix_ms: step.at_unix_ms,
            arms: step
                .arms
                .iter()
                .map(|(arm, slots)| bare(arm, *slots))
                .collect(),
            state: state(step.at_unix_ms).into(),
            ..Default::default()
        };
        experiment.ramp.iter().map(step).collect()
    }

    /// How somebody stands to each running experiment, and why.
    pub(crate) async fn who(&self, request: WhoRequest) -> Result<WhoResponse, Error> {
        let current = self.desk.current().await?;
        let known = attributes(&request)?;
        if !request.experiment.is_empty() {
            find(&current, &request.experiment)?;
        }
        let asked = |name: &str| request.experiment.is_empty() || request.experiment == name;
        let all = current.experiments.definitions();
        let standings = all.filter(|one| asked(&one.name)).filter_map(|experiment| {
            let running = current.experiments.on(&experiment.flag);
            let running = running.filter(|running| running.name == experiment.name);
            match running {
                Some(running) => Some(self.standing(experiment, running, &request, &known)),
                // Only who asks for it wants to hear of one that does not run.
                None => (!request.experiment.is_empty()).then(|| not_running(experiment)),
            }
        });
        Ok(WhoResponse {
            standings: standings.collect(),
            revision: current.revision,
            ..Default::default()
        })
    }

    fn standing(
        &self,
        experiment: &Definition,
        running: &Running,
        request: &WhoRequest,
        known: &Map<String, Value>,
    ) -> StandingOf {
        let mut attributes = known.clone();
        attributes.insert(experiment.subject.clone(), request.subject.clone().into());
        let context = Context {
            targeting_key: Some(&request.subject),
            attributes: &attributes,
            now_unix: self.desk.clock().unix_ms() / 1000,
        };
        let standing = running.standing(&context);
        let (word, why) = told(experiment, standing);
        let (slot, arm) = match standing {
            Standing::In(slot, arm) => (Some(u32::from(slot.number())), arm),
            _ => (None, ""),
        };
        StandingOf {
            experiment: experiment.name.clone(),
            flag: experiment.flag.clone(),
            standing: word.into(),
            arm: arm.into(),
            why,
            slot,
            ..Default::default()
        }
    }
}

fn find<'a>(current: &'a Compiled, name: &str) -> Result<&'a Definition, Error> {
    current.experiments.definition(name).ok_or_else(|| {
        let message = format!("there is no experiment `{}`", name.escape_debug());
        Error::new(Code::NotFound, "no_such_experiment", message)
            .mend("see which there are: `hydrant mobile experiment list`")
    })
}

fn bare(arm: &str, slots: u16) -> ArmSummary {
    ArmSummary {
        arm: arm.into(),
        slots: u32::from(slots),
        ..Default::default()
    }
}

/// The arms, the control first.
fn arms(experiment: &Definition, numbers: &Numbers) -> Vec<ArmSummary> {
    let arm = |(arm, slots): (&String, &u16)| ArmSummary {
        people: numbers.people(arm),
        control: *arm == experiment.control,
        ..bare(arm, *slots)
    };
    let mut arms: Vec<ArmSummary> = experiment.arms.iter().map(arm).collect();
    arms.sort_by_key(|arm| !arm.control);
    arms
}

fn metrics(experiment: &Definition, numbers: &Numbers) -> Vec<MetricReport> {
    let measured = numbers.sums.iter().map(|sum| sum.metric.as_str());
    let guarded = experiment.guards.iter().map(|guard| guard.metric.as_str());
    let names: BTreeSet<&str> = measured.chain(guarded).collect();
    let of_arm = |metric: &str, arm: &str| {
        let sample = numbers.sample(metric, arm);
        let (low, high) = sample.interval();
        MetricOfArm {
            arm: arm.into(),
            people: sample.people,
            people_with_value: numbers.sum(metric, arm).map_or(0, |sum| sum.people),
            mean: sample.mean(),
            low,
            high,
            ..Default::default()
        }
    };
    let report = |metric: &str| MetricReport {
        metric: metric.into(),
        arms: arms(experiment, numbers)
            .iter()
            .map(|arm| of_arm(metric, &arm.arm))
            .collect(),
        ..Default::default()
    };
    names.into_iter().map(report).collect()
}

fn epoch(checked: &Checked) -> EpochReport {
    let arm = |(arm, (people, slots)): (&String, &(u64, u16))| EpochArm {
        arm: arm.clone(),
        slots: u32::from(*slots),
        people: *people,
        expected: checked.expected(*slots),
        ..Default::default()
    };
    EpochReport {
        revision: checked.revision,
        since_unix_ms: checked.since_unix_ms,
        arms: checked.arms.iter().map(arm).collect(),
        p: checked.p,
        alarm: checked.alarm,
        ..Default::default()
    }
}

fn guards(experiment: &Definition, numbers: &Numbers) -> Vec<GuardReport> {
    let of_arm = |one: &Guarded<'_>| GuardOfArm {
        arm: one.arm.into(),
        people: one.sample.people,
        worse_by: one.comparison.worse_by,
        p: one.comparison.p,
        verdict: one.verdict.as_str().into(),
        ..Default::default()
    };
    let all = numbers.guards(experiment);
    let report = |guard: &super::definition::Guard| GuardReport {
        metric: guard.metric.clone(),
        worse: guard.worse.as_str().into(),
        limit: guard.limit,
        minimum: guard.minimum,
        arms: all
            .iter()
            .filter(|one| one.guard == guard)
            .map(of_arm)
            .collect(),
        ..Default::default()
    };
    experiment.guards.iter().map(report).collect()
}

fn attributes(request: &WhoRequest) -> Result<Map<String, Value>, Error> {
    if request.context.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&request.context).map_err(|error| {
        let message = format!("the context is not a JSON object: {error}");
        Error::new(Code::InvalidArgument, "bad_context", message)
            .mend("write it as '{\"country\": \"DE\"}'")
    })
}

fn not_running(experiment: &Definition) -> StandingOf {
    StandingOf {
        experiment: experiment.name.clone(),
        flag: experiment.flag.clone(),
        standing: "not_running".into(),
        why: format!("the experiment is {}", experiment.stage.as_str()),
        ..Default::default()
    }
}

/// How somebody stands, for programs and for people.
fn told(experiment: &Definition, standing: Standing<'_>) -> (&'static str, String) {
    let share = percent(u32::from(experiment.traffic));
    let layer = experiment.layer.as_deref();
    match standing {
        Standing::In(slot, arm) => {
            let weight = experiment.arms.get(arm).copied().unwrap_or(0);
            let weight = percent(u32::from(weight));
            let slot = slot.number();
            (
                "in",
                format!("slot {slot} of 10,000 is one of `{arm}`, which has {weight} %"),
            )
        }
        Standing::HeldOut(holdout) => (
            "held_out",
            format!("the holdout `{holdout}` keeps them out"),
        ),
        Standing::Elsewhere(slot, "") => {
            let slot = slot.number();
            let of = layer.map_or("people".to_owned(), |layer| format!("the layer `{layer}`"));
            (
                "elsewhere",
                format!("slot {slot} of {of} is nobody's: the experiment has {share} %"),
            )
        }
        Standing::Elsewhere(slot, other) => {
            let (slot, layer) = (slot.number(), layer.unwrap_or_default());
            (
                "elsewhere",
                format!("slot {slot} of the layer `{layer}` is one of `{other}`"),
            )
        }
        Standing::NotEligible => ("not_eligible", "`eligible` does not hold for them".into()),
        Standing::Unknown => {
            let message = format!("`{}` is not known of them", experiment.subject);
            ("unknown", message)
        }
    }
}
