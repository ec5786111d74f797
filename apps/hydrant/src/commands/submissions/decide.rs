//! `hydrant submissions retry` and `drop`.

use clap::Args;
use hydrant_submissions::proto::{DecideRequest, DecideResponse};
use serde_json::json;

use super::Desk;
use crate::failure::{Failure, Result, wrong};
use crate::output::{count, printable};

/// The exit code when one of those that were named is not parked.
const NOT_FOUND: u8 = 3;

#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// Which ones
    #[arg(value_name = "SUBMISSION", required_unless_present = "consumer", num_args = 1..=500)]
    ids: Vec<String>,
    /// Or all that are parked at this consumer
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    consumer: Option<String>,
    /// Why: it is kept with it
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who [default: $USER]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

pub(crate) async fn retry(desk: &Desk<'_>, args: &DecideArgs) -> Result<()> {
    let mut done = DecideResponse::default();
    loop {
        let answer = desk.deliveries().retry(args.request()?).await?;
        if add(&mut done, answer.into_owned(), args) {
            return told(desk, &done, "in the queue again");
        }
    }
}

pub(crate) async fn drop(desk: &Desk<'_>, args: &DecideArgs) -> Result<()> {
    let mut done = DecideResponse::default();
    loop {
        let answer = desk.deliveries().give_up(args.request()?).await?;
        if add(&mut done, answer.into_owned(), args) {
            return told(desk, &done, "given up");
        }
    }
}

/// Whether that was all: those of a consumer are decided some at a time.
fn add(done: &mut DecideResponse, answer: DecideResponse, args: &DecideArgs) -> bool {
    let is_all = args.consumer.is_none() || answer.ids.is_empty();
    done.ids.extend(answer.ids);
    done.others.extend(answer.others);
    is_all
}

impl DecideArgs {
    fn request(&self) -> Result<DecideRequest> {
        Ok(DecideRequest {
            ids: self.ids.clone(),
            consumer: self.consumer.clone().unwrap_or_default(),
            author: author(self.author.as_ref()),
            reason: reason(self.reason.as_deref(), "the shop takes long names now")?,
            ..Default::default()
        })
    }
}

/// Who decides, when nobody says: the user of the system.
pub(in crate::commands) fn author(said: Option<&String>) -> String {
    let user = || std::env::var("USER").ok();
    let author = said.cloned().or_else(user);
    let author = author.filter(|name| !name.trim().is_empty());
    author.unwrap_or_else(|| "operator".into())
}

/// Why, which has to be said.
pub(super) fn reason(said: Option<&str>, example: &str) -> Result<String> {
    let reason = said.map(str::trim).unwrap_or_default();
    if reason.is_empty() {
        return Err(wrong(
            "no_reason",
            "a decision needs a reason, which is kept with it",
            format!("say it, as -m '{example}'"),
        ));
    }
    Ok(reason.to_owned())
}

fn told(desk: &Desk<'_>, done: &DecideResponse, what: &str) -> Result<()> {
    match desk.output.json {
        true => desk
            .output
            .json(&json!({ "ids": done.ids, "others": done.others }))?,
        false => {
            let number = count(done.ids.len() as u64, "submission is", "submissions are");
            desk.output.text(&format!("{number} {what}\n"))?;
            for other in &done.others {
                let other = printable(other);
                desk.output
                    .text(&format!("{other} is not parked, or not known\n"))?;
            }
        }
    }
    match done.others.is_empty() {
        true => Ok(()),
        false => Err(Failure::Exit(NOT_FOUND)),
    }
}
