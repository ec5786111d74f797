//! Takes in what apps report: checks it item by item, and keeps what is right.

use hydrant_records::{Records, RecordsError, Transaction, transaction};
use hydrant_sdk::{Code, Error};
use tokio::sync::OnceCell;

use super::definition::Definition;
use super::store::{self, Exposed, MIGRATIONS, Measured};
use super::{Experiments, MAX_ARM, MAX_SUBJECT, is_name, retention};
use crate::proto::{
    ExposeRequest, Exposure, MeasureRequest, Measurement, ObservedResponse, Refusal,
};
use crate::service::Desk;

/// The most items of one request.
pub(crate) const MAX_ITEMS: usize = 2000;

/// The largest value that is measured.
const MAX_VALUE: f64 = 1e12;

/// Where observations are kept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observations {
    pub(super) desk: Desk,
    made: std::sync::Arc<OnceCell<()>>,
}

/// Makes the tables of observations, or brings them up.
pub(crate) async fn make_tables(records: &Records) -> Result<(), RecordsError> {
    records.migrate("mobile-experiments", MIGRATIONS).await
}

/// Something with its place in the request.
type Placed<T> = (usize, T);

/// Why an item is not kept: for programs, and for people.
type Reason = (&'static str, String);

impl Observations {
    pub(crate) fn new(desk: Desk) -> Self {
        Self {
            desk,
            made: Default::default(),
        }
    }

    /// The database, with the tables of observations.
    pub(super) async fn records(&self) -> Result<&Records, Error> {
        let records = self.desk.records().await?;
        self.made.get_or_try_init(|| make_tables(records)).await?;
        Ok(records)
    }

    /// Keeps exposures; the answer names those that are refused. It comes when all is durable.
    pub(crate) async fn expose(&self, request: ExposeRequest) -> Result<ObservedResponse, Error> {
        check_number(request.exposures.len())?;
        let (now, current) = (self.desk.clock().unix_ms(), self.desk.current().await?);
        let check = |one| exposed(&current.experiments, one, now);
        let (exposed, mut refused) = sort_out(request.exposures, check);
        if !exposed.is_empty() {
            let records = self.records().await?;
            let done = transaction!(records, |tx| keep(tx, &current.experiments, &exposed).await);
            let over = done.map_err(not_kept)?.into_iter();
            refused.extend(over.map(|(place, experiment)| (place, is_over(experiment))));
        }
        refused.sort_by_key(|(place, _)| *place);
        Ok(answer(refused))
    }

    /// Keeps measurements; the answer names those that are refused. It comes when all is durable.
    pub(crate) async fn measure(&self, request: MeasureRequest) -> Result<ObservedResponse, Error> {
        check_number(request.measurements.len())?;
        let current = self.desk.current().await?;
        let check = |one| measured(&current.experiments, one);
        let (measured, mut refused) = sort_out(request.measurements, check);
        let (places, measured): (Vec<usize>, Vec<Measured>) = measured.into_iter().unzip();
        if !measured.is_empty() {
            let records = self.records().await?;
            let now = self.desk.clock().unix_ms();
            let done = transaction!(records, |tx| store::measure(tx, &measured, now).await);
            let missing = done.map_err(not_kept)?;
            refused.extend(missing.into_iter().map(|at| (places[at], not_exposed())));
        }
        refused.sort_by_key(|(place, _)| *place);
        Ok(answer(refused))
    }
}

/// Keeps exposures. Returns those of experiments whose people are forgotten, which are not kept: who is
/// reported again would count twice.
async fn keep<'a>(
    tx: &mut Transaction,
    experiments: &Experiments,
    exposed: &'a [Placed<Exposed>],
) -> Result<Vec<Placed<&'a str>>, RecordsError> {
    let named = exposed.iter().map(|(_, one)| one.experiment.as_str());
    let is_running = |name: &str| {
        experiments
            .definition(name)
            .is_some_and(Definition::is_running)
    };
    let forgotten = retention::forgotten(tx, named.filter(|name| !is_running(name)).collect());
    let forgotten = forgotten.await?;
    let (over, kept): (Vec<_>, Vec<_>) = exposed
        .iter()
        .map(|(place, one)| (*place, one))
        .partition(|(_, one)| forgotten.contains(&one.experiment));
    let kept: Vec<&Exposed> = kept.into_iter().map(|(_, one)| one).collect();
    store::expose(tx, &kept).await?;
    let over = over.into_iter();
    Ok(over
        .map(|(place, one)| (place, one.experiment.as_str()))
        .collect())
}

/// The items that are right, and those that are refused, with their places in the request.
fn sort_out<T, K>(
    items: Vec<T>,
    check: impl Fn(T) -> Result<K, Reason>,
) -> (Vec<Placed<K>>, Vec<Placed<Reason>>) {
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for (place, item) in items.into_iter().enumerate() {
        match check(item) {
            Ok(one) => kept.push((place, one)),
            Err(reason) => refused.push((place, reason)),
        }
    }
    (kept, refused)
}

fn exposed(experiments: &Experiments, one: Exposure, now: i64) -> Result<Exposed, Reason> {
    check_subject(&one.subject)?;
    let name = one.experiment.escape_debug();
    let definition = experiments.definition(&one.experiment).ok_or_else(|| {
        let message = format!("there is no experiment `{name}`");
        ("unknown_experiment", message)
    })?;
    let allocation = experiments.allocation(&one.experiment).ok_or_else(|| {
        let message = format!("the experiment `{name}` has never run");
        ("not_started", message)
    })?;
    let arm = one.arm.escape_debug();
    if one.arm.len() > MAX_ARM
        || !definition.arms.contains_key(&one.arm) && !allocation.had(&one.arm)
    {
        let arms: Vec<&str> = definition.arms.keys().map(String::as_str).collect();
        let message = format!(
            "the experiment `{name}` has no arm `{arm}`: it has {}",
            arms.join(", ")
        );
        return Err(("unknown_arm", message));
    }
    let at = one.at_unix_ms.unwrap_or(now).min(now);
    let place = allocation
        .place(&one.subject, &one.arm, at)
        .ok_or_else(|| {
            let message =
                format!("this subject was not in the arm `{arm}` of `{name}` at that time");
            ("not_in_arm", message)
        })?;
    Ok(Exposed {
        experiment: one.experiment,
        subject: one.subject,
        arm: one.arm,
        at_unix_ms: at,
        epoch: place.revision,
        compared: place.compared,
    })
}

fn measured(experiments: &Experiments, one: Measurement) -> Result<Measured, Reason> {
    check_subject(&one.subject)?;
    if !is_name(&one.metric) {
        let message = "`metric` has 1 to 80 of a-z, A-Z, 0-9, '-', '_' and '.'";
        return Err(("bad_metric", message.into()));
    }
    if one.id.is_empty() || one.id.len() > 100 || one.id.chars().any(char::is_control) {
        let message = "`id` has 1 to 100 bytes of text, made by the app: so a repeat counts once";
        return Err(("bad_id", message.into()));
    }
    if !one.value.is_finite() || one.value.abs() > MAX_VALUE {
        return Err(("bad_value", "`value` is a number from -1e12 to 1e12".into()));
    }
    let named = Some(one.experiment).filter(|name| !name.is_empty());
    if let Some(name) = &named
        && experiments.definition(name).is_none()
    {
        let message = format!("there is no experiment `{}`", name.escape_debug());
        return Err(("unknown_experiment", message));
    }
    Ok(Measured {
        id: one.id,
        metric: one.metric,
        subject: one.subject,
        experiment: named,
        value: one.value,
    })
}

fn check_subject(subject: &str) -> Result<(), Reason> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
        let message = format!("`subject` has 1 to {MAX_SUBJECT} bytes of text");
        return Err(("bad_subject", message));
    }
    Ok(())
}

fn is_over(experiment: &str) -> Reason {
    let message = format!(
        "the experiment `{experiment}` ended long ago: its numbers stand, and who saw it is forgotten"
    );
    ("over", message)
}

fn not_exposed() -> Reason {
    let message = "no exposure of this subject is known: report that first, then this again";
    ("not_exposed", message.into())
}

fn check_number(items: usize) -> Result<(), Error> {
    if items > MAX_ITEMS {
        let message = format!("{items} items are too many: {MAX_ITEMS} are the most");
        return Err(Error::new(Code::InvalidArgument, "too_many_items", message));
    }
    Ok(())
}

/// Whether it was kept or not, to send it again is right: each counts once.
fn not_kept(error: RecordsError) -> Error {
    let mut error = Error::from(error);
    if error.code == Code::Unknown {
        error = Error::new(Code::Unavailable, "records_uncertain", error.message)
            .mend("send it again: each counts once");
    }
    error
}

fn answer(refused: Vec<(usize, Reason)>) -> ObservedResponse {
    let refusal = |(index, (reason, message)): (usize, Reason)| Refusal {
        index: index as u32,
        reason: reason.into(),
        message,
        ..Default::default()
    };
    ObservedResponse {
        refused: refused.into_iter().map(refusal).collect(),
        ..Default::default()
    }
}
