//! `hydrant mobile experiment`: starts and stops experiments, shows what comes of them, and who is in
//! which arm.

mod documents;
mod pages;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use hydrant_contracts::{Code, Error};
use hydrant_mobile::proto::{
    Document, ExperimentsClient, ListExperimentsRequest, ReportRequest, WhoRequest,
};
use hydrant_mobile::set_members;
use serde_json::{Map, Value};

use super::change::{ChangeArgs, put};
use super::{Mobile, Way};
use crate::failure::{Result, wrong};

/// The kind of the documents.
const KIND: &str = "experiment";

/// Experiments, from draft to decision
#[derive(Debug, Args)]
#[command(after_help = "\
An experiment is a document, experiment/NAME: put it with `hydrant mobile put`. Its arms are
variants of a flag. From 5 % to 10 % moves 5 % of the people and nobody else.

Examples:
  hydrant mobile experiment start new-checkout -m 'five percent first'
  hydrant mobile experiment set-weights new-checkout on=10 -m 'no errors so far'
  hydrant mobile experiment report new-checkout
  hydrant mobile experiment who user-4711")]
pub(crate) struct ExperimentArgs {
    #[command(subcommand)]
    command: ExperimentCommand,
}

#[derive(Debug, Subcommand)]
enum ExperimentCommand {
    /// List experiments: where they are, who is in them, and what somebody has to look at
    List,
    /// Print an experiment's document
    Show {
        /// As `new-checkout`
        name: String,
    },
    /// Start it: people come into its arms
    Start {
        /// As `new-checkout`
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Stop it: everybody gets what the flag itself says
    Stop {
        /// As `new-checkout`
        name: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change how many people each arm has; who is in a growing arm stays there
    SetWeights {
        /// As `new-checkout`
        name: String,
        /// Percent of an arm; the control gets what is left
        #[arg(required = true, value_name = "ARM=PERCENT")]
        weights: Vec<Weight>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show its people, metrics and guard rails, and whether the numbers can be trusted
    Report {
        /// As `new-checkout`
        name: String,
    },
    /// Show in which arms somebody is, and why
    Who {
        /// Their id, as apps send it
        subject: String,
        /// Only this experiment [default: all that run]
        #[arg(long, value_name = "NAME")]
        experiment: Option<String>,
        /// What else is known of them, for `eligible`
        #[arg(long, value_name = "JSON")]
        context: Option<String>,
    },
}

/// What an arm gets.
#[derive(Clone, Debug, PartialEq)]
struct Weight {
    arm: String,
    percent: f64,
}

impl std::str::FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || "write it as on=10 or on=2.5".to_owned();
        let (arm, percent) = text.rsplit_once('=').ok_or_else(wrong)?;
        let percent = percent.trim_end_matches('%').parse().map_err(|_| wrong())?;
        let is_good = (0.0..=100.0).contains(&percent) && !arm.is_empty();
        let arm = arm.to_owned();
        is_good.then_some(Self { arm, percent }).ok_or_else(wrong)
    }
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &ExperimentArgs) -> Result<()> {
    match &args.command {
        ExperimentCommand::List => list(mobile).await,
        ExperimentCommand::Show { name } => show(mobile, name).await,
        ExperimentCommand::Start { name, change } => {
            set(mobile, name, change, &[("state", Some("running".into()))]).await
        }
        ExperimentCommand::Stop { name, change } => {
            set(mobile, name, change, &[("state", Some("stopped".into()))]).await
        }
        ExperimentCommand::SetWeights {
            name,
            weights,
            change,
        } => set_weights(mobile, name, weights, change).await,
        ExperimentCommand::Report { name } => report(mobile, name).await,
        ExperimentCommand::Who {
            subject,
            experiment,
            context,
        } => who(mobile, subject, experiment.as_deref(), context.as_deref()).await,
    }
}

fn client(mobile: &Mobile<'_>) -> ExperimentsClient<Way> {
    mobile.client(ExperimentsClient::new)
}

async fn list(mobile: &Mobile<'_>) -> Result<()> {
    let request = ListExperimentsRequest::default();
    let answer = client(mobile).list(request).await?.into_owned();
    match mobile.output.json {
        true => mobile.output.json(&documents::list(&answer)),
        false => pages::list(mobile.output, &answer),
    }
}

async fn report(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let request = ReportRequest {
        name: name.into(),
        ..Default::default()
    };
    let answer = client(mobile).report(request).await?.into_owned();
    match mobile.output.json {
        true => mobile.output.json(&documents::report(&answer)),
        false => pages::report(mobile.output, &answer),
    }
}

async fn who(
    mobile: &Mobile<'_>,
    subject: &str,
    experiment: Option<&str>,
    context: Option<&str>,
) -> Result<()> {
    let request = WhoRequest {
        subject: subject.into(),
        experiment: experiment.unwrap_or_default().into(),
        context: context.unwrap_or_default().into(),
        ..Default::default()
    };
    let answer = client(mobile).who(request).await?.into_owned();
    match mobile.output.json {
        true => mobile.output.json(&documents::who(subject, &answer)),
        false => pages::who(mobile.output, &answer),
    }
}

async fn show(mobile: &Mobile<'_>, name: &str) -> Result<()> {
    let document = find(mobile, name).await?;
    if mobile.output.json {
        let body: Value = serde_json::from_str(&document.body).unwrap_or_default();
        return mobile.output.json(&body);
    }
    mobile
        .output
        .text(&format!("{}\n", document.body.trim_end()))
}

async fn find(mobile: &Mobile<'_>, name: &str) -> Result<Document> {
    let found = mobile.find(KIND, name).await?;
    found.ok_or_else(|| {
        let message = format!("there is no experiment `{}`", name.escape_debug());
        Error::new(Code::NotFound, "no_such_experiment", message)
            .mend("see which there are: `hydrant mobile experiment list`")
            .into()
    })
}

/// Changes members of the document.
async fn set(
    mobile: &Mobile<'_>,
    name: &str,
    change: &ChangeArgs,
    members: &[(&str, Option<Value>)],
) -> Result<()> {
    change.reason()?;
    let document = find(mobile, name).await?;
    let body = set_members(&document.body, members).map_err(not_an_object)?;
    let changes = vec![put(KIND, name, body)];
    mobile
        .change(change, changes, Some(document.revision))
        .await
}

async fn set_weights(
    mobile: &Mobile<'_>,
    name: &str,
    weights: &[Weight],
    change: &ChangeArgs,
) -> Result<()> {
    let document = find(mobile, name).await?;
    let body: Value = serde_json::from_str(&document.body).map_err(not_an_object)?;
    let arms = with_weights(&body, weights)?;
    set(mobile, name, change, &[("arms", Some(arms))]).await
}

fn not_an_object(error: serde_json::Error) -> crate::failure::Failure {
    let message = format!("its document is not a JSON object: {error}");
    Error::new(Code::Internal, "not_an_object", message).into()
}

/// The arms with new weights. Those that are not named keep theirs; the control gets what is left.
fn with_weights(body: &Value, weights: &[Weight]) -> Result<Value> {
    let control = body["control"].as_str().unwrap_or_default();
    let known = body["arms"].as_object().cloned().unwrap_or_default();
    let mut arms: BTreeMap<String, f64> = known
        .iter()
        .map(|(arm, percent)| (arm.clone(), percent.as_f64().unwrap_or(0.0)))
        .collect();
    for Weight { arm, percent } in weights {
        let Some(weight) = arms.get_mut(arm) else {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(wrong(
                "no_such_arm",
                format!("there is no arm `{}`", arm.escape_debug()),
                format!("it has: {}", names.join(", ")),
            ));
        };
        *weight = *percent;
    }
    if !weights.iter().any(|weight| weight.arm == control) {
        let others = arms.iter().filter(|(arm, _)| *arm != control);
        let others: f64 = others.map(|(_, percent)| percent).sum();
        if others > 100.0 {
            let message = format!("the arms beside the control have {others} %");
            return Err(wrong("too_much", message, "all arms have 100 % together"));
        }
        arms.insert(control.to_owned(), 100.0 - others);
    }
    let arms = arms
        .into_iter()
        .map(|(arm, percent)| (arm, number(percent)));
    Ok(Value::Object(arms.collect::<Map<_, _>>()))
}

/// A percentage with two decimals, whole where it is.
fn number(percent: f64) -> Value {
    let hundredths = (percent * 100.0).round();
    match hundredths % 100.0 == 0.0 {
        true => Value::from((hundredths / 100.0) as u64),
        false => Value::from(hundredths / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(weights: &[&str]) -> Result<Value> {
        let body = json!({"control": "off", "arms": {"off": 90, "a": 5, "b": 5}});
        let weights: Vec<Weight> = weights.iter().map(|text| text.parse().unwrap()).collect();
        with_weights(&body, &weights)
    }

    #[test]
    fn the_control_gets_what_is_left() {
        assert_eq!(set(&["a=10"]).unwrap(), json!({"off": 85, "a": 10, "b": 5}));
        let fine = set(&["a=33.33", "b=33.33%"]).unwrap();
        assert_eq!(fine, json!({"off": 33.34, "a": 33.33, "b": 33.33}));
        let all = set(&["off=80", "a=20"]).unwrap();
        assert_eq!(
            all,
            json!({"off": 80, "a": 20, "b": 5}),
            "told by the service to be 105 %"
        );
        assert!(set(&["c=10"]).is_err());
        assert!(set(&["a=60", "b=60"]).is_err());
    }

    #[test]
    fn weights_are_written_with_their_arms() {
        for bad in ["a", "a=", "=5", "a=-1", "a=101", "a=NaN", "5"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad}");
        }
    }
}
