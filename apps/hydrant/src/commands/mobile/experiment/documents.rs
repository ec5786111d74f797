//! What programs get of experiments.

use hydrant_mobile::proto::{
    ArmSummary, EpochReport, ExperimentSummary, GuardReport, ListExperimentsResponse, MetricReport,
    RampStep, ReportResponse, StandingOf, WhoResponse,
};
use serde_json::{Map, Value, json};

use crate::output::time;

pub(super) fn list(answer: &ListExperimentsResponse) -> Value {
    let experiments: Vec<Value> = answer.experiments.iter().map(summary).collect();
    json!({"revision": answer.revision, "experiments": experiments})
}

fn summary(one: &ExperimentSummary) -> Value {
    json!({
        "name": one.name,
        "flag": one.flag,
        "state": one.state,
        "layer": (!one.layer.is_empty()).then_some(&one.layer),
        "traffic": f64::from(one.traffic) / 10_000.0,
        "arms": one.arms.iter().map(arm).collect::<Vec<_>>(),
        "alarms": one.alarms,
        "next_step": one.next_step_unix_ms.map(time),
    })
}

fn arm(one: &ArmSummary) -> Value {
    json!({
        "arm": one.arm,
        "percent": percent(one.slots),
        "people": one.people,
        "control": one.control,
    })
}

fn percent(slots: u32) -> f64 {
    f64::from(slots) / 100.0
}

pub(super) fn report(answer: &ReportResponse) -> Value {
    let mut report = match answer.experiment.as_option() {
        Some(experiment) => summary(experiment),
        None => json!({}),
    };
    report["metrics"] = answer.metrics.iter().map(metric).collect();
    report["epochs"] = answer.epochs.iter().map(epoch).collect();
    report["guards"] = answer.guards.iter().map(guard).collect();
    report["ramp"] = answer.ramp.iter().map(step).collect();
    report["holdouts"] = json!(answer.holdouts);
    report
}

fn metric(one: &MetricReport) -> Value {
    let arms = one.arms.iter().map(|arm| {
        json!({
            "arm": arm.arm,
            "people": arm.people,
            "people_with_value": arm.people_with_value,
            "mean": arm.mean,
            "low": arm.low,
            "high": arm.high,
        })
    });
    json!({"metric": one.metric, "arms": arms.collect::<Vec<_>>()})
}

fn epoch(one: &EpochReport) -> Value {
    let arms = one.arms.iter().map(|arm| {
        json!({
            "arm": arm.arm,
            "percent": percent(arm.slots),
            "people": arm.people,
            "expected": arm.expected,
        })
    });
    json!({
        "revision": one.revision,
        "since": time(one.since_unix_ms),
        "arms": arms.collect::<Vec<_>>(),
        "p": one.p,
        "alarm": one.alarm,
    })
}

fn guard(one: &GuardReport) -> Value {
    let arms = one.arms.iter().map(|arm| {
        json!({
            "arm": arm.arm,
            "people": arm.people,
            "worse_by": arm.worse_by,
            "p": arm.p,
            "verdict": arm.verdict,
        })
    });
    json!({
        "metric": one.metric,
        "worse": one.worse,
        "limit": one.limit,
        "minimum": one.minimum,
        "arms": arms.collect::<Vec<_>>(),
    })
}

fn step(one: &RampStep) -> Value {
    let arms = one
        .arms
        .iter()
        .map(|arm| (arm.arm.clone(), percent(arm.slots).into()));
    json!({
        "at": time(one.at_unix_ms),
        "state": one.state,
        "arms": arms.collect::<Map<String, Value>>(),
    })
}

pub(super) fn who(subject: &str, answer: &WhoResponse) -> Value {
    let standing = |one: &StandingOf| {
        json!({
            "experiment": one.experiment,
            "flag": one.flag,
            "standing": one.standing,
            "arm": (!one.arm.is_empty()).then_some(&one.arm),
            "slot": one.slot,
            "why": one.why,
        })
    };
    let standings: Vec<Value> = answer.standings.iter().map(standing).collect();
    json!({"subject": subject, "revision": answer.revision, "standings": standings})
}
