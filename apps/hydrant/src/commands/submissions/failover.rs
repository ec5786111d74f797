//! `hydrant submissions failover`.

use std::time::{Duration, Instant};

use clap::Args;
use hydrant_contracts::{Code, Error};
use hydrant_submissions::proto::{
    FailoverRequest, FailoverResponse, PlanFailoverRequest, PlanFailoverResponse,
};
use serde_json::json;

use super::{Desk, decide, primary};
use crate::failure::{Failure, Result, wrong};
use crate::output::printable;

/// The exit code of a plan that can't be carried out now.
const BLOCKED: u8 = 3;
/// How long it is gone on with; what is not done by then goes on when the command is given again.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long no answer is borne with: who moves the primary does so because something is away.
const TROUBLE: Duration = Duration::from_secs(60);
/// How often it is asked to go on.
const APART: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct FailoverArgs {
    /// Only tell what would be done, and what stands in its way
    #[arg(long, group = "what")]
    plan: bool,
    /// Do it; given again after a crash it goes on
    #[arg(long, group = "what", requires = "to")]
    apply: bool,
    /// The database that becomes the primary
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Why: it is kept with it
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who [default: $USER]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

pub(crate) async fn run(desk: &Desk<'_>, args: &FailoverArgs) -> Result<()> {
    match args.plan {
        true => plan(desk, args).await,
        false => apply(desk, args).await,
    }
}

async fn plan(desk: &Desk<'_>, args: &FailoverArgs) -> Result<()> {
    let request = PlanFailoverRequest {
        to: args.to.clone().unwrap_or_default(),
        ..Default::default()
    };
    let plan = desk.sites().plan_failover(request).await?.into_owned();
    show(desk, &plan)?;
    match plan.blockers.is_empty() {
        true => Ok(()),
        false => Err(Failure::Exit(BLOCKED)),
    }
}

fn show(desk: &Desk<'_>, plan: &PlanFailoverResponse) -> Result<()> {
    let now = plan.now.as_option().cloned().unwrap_or_default();
    if desk.output.json {
        return desk.output.json(&json!({
            "now": primary::document(&now),
            "to": plan.to,
            "steps": plan.steps,
            "costs": plan.costs,
            "blockers": plan.blockers,
        }));
    }
    primary::show(desk, &now)?;
    let mut text = format!("\nto make {} the primary:\n", printable(&plan.to));
    for (number, step) in plan.steps.iter().enumerate() {
        text += &format!("  {}. {}\n", number + 1, printable(step));
    }
    for cost in &plan.costs {
        text += &format!("\n{}\n", printable(cost));
    }
    for blocker in &plan.blockers {
        text += &format!("\nin its way: {}\n", printable(blocker));
    }
    desk.output.text(&text)
}

async fn apply(desk: &Desk<'_>, args: &FailoverArgs) -> Result<()> {
    let request = FailoverRequest {
        to: args.to.clone().unwrap_or_default(),
        author: decide::author(args.author.as_ref()),
        reason: decide::reason(args.reason.as_deref(), "data centre a has no power")?,
        ..Default::default()
    };
    let begun = Instant::now();
    let mut told = String::new();
    let mut heard = begun;
    loop {
        let waiting = match step(desk, &request).await {
            Ok(answer) if answer.done => return done(desk, &answer, begun.elapsed()),
            Ok(answer) => {
                heard = Instant::now();
                answer.waiting
            }
            Err(error) if may_pass(&error) && heard.elapsed() < TROUBLE => error.message,
            Err(error) => return Err(error.into()),
        };
        let shown = without_numbers(&waiting);
        if shown != told && !desk.output.json {
            desk.output
                .text(&format!("waiting: {}\n", printable(&waiting)))?;
        }
        told = shown;
        if begun.elapsed() > PATIENCE {
            return Err(wrong(
                "not_done",
                format!("the fail-over is not done: {waiting}"),
                "give the command again: it goes on where it is",
            ));
        }
        tokio::time::sleep(APART).await;
    }
}

/// Given again, it goes on where it is.
async fn step(
    desk: &Desk<'_>,
    request: &FailoverRequest,
) -> std::result::Result<FailoverResponse, Error> {
    let answer = desk.sites().failover(request.clone()).await;
    answer
        .map(|answer| answer.into_owned())
        .map_err(|error| Error::from_connect(&error))
}

/// A step that was not answered may have been done: the next one finds out.
fn may_pass(error: &Error) -> bool {
    error.retryable || matches!(error.code, Code::Unavailable | Code::DeadlineExceeded)
}

/// A countdown is told once.
fn without_numbers(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect()
}

fn done(desk: &Desk<'_>, answer: &FailoverResponse, took: Duration) -> Result<()> {
    let now = answer.primary.as_option().cloned().unwrap_or_default();
    if desk.output.json {
        return desk.output.json(&primary::of_primary(&now));
    }
    let mut text = format!(
        "{} is the primary under epoch {}, after {:.1} s\n",
        now.site,
        now.epoch,
        took.as_secs_f64()
    );
    if now.unreconciled {
        text += "what the former one had taken may not have come over; when it answers again:\n  \
                 hydrant submissions reconcile --plan\n";
    }
    desk.output.text(&text)
}
