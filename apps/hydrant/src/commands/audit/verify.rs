//! `hydrant audit verify`.

use std::str::FromStr;

use clap::Args;
use hydrant_contracts::{Code, Error};
use hydrant_submissions::proto::{
    Finding, VerifyReceiptsRequest, VerifySealsRequest, VerifySealsResponse,
};
use serde_json::{Value, json};

use super::Audit;
use crate::failure::{Failure, Result};
use crate::output::{Output, count, printable};

/// How an audit ends that has found something.
const FOUND: u8 = 1;
/// The most findings that are told.
const TOLD: usize = 1000;

/// Follow the chain of seals and all receipts: finds what was changed or taken away
#[derive(Debug, Args)]
#[command(after_help = "\
Who can write to the database can write a whole new chain. Keep what this prints as `head` where they can't: a
later run with --anchor proves that the chain still goes through it.

Examples:
  hydrant audit verify
  hydrant audit verify --anchor 1024:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub(super) struct VerifyArgs {
    /// A head that an earlier run printed
    #[arg(long, value_name = "NUMBER:HASH")]
    anchor: Vec<Anchor>,
}

/// A seal that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Anchor {
    number: u64,
    hash: String,
}

impl FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let (number, hash) = text
            .split_once(':')
            .ok_or("an anchor is written NUMBER:HASH")?;
        let number = number.parse().ok().filter(|number| *number > 0);
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match number {
            Some(number) if is_hash => Ok(Self {
                number,
                hash: hash.to_ascii_lowercase(),
            }),
            _ => Err("an anchor is a number, a colon, and 64 hex digits"),
        }
    }
}

/// What all stretches together have shown.
#[derive(Default)]
struct Seen {
    seals: u64,
    receipts: u64,
    unsealed: u64,
    head: (u64, String),
    findings: Vec<Finding>,
    /// Anchors through which the chain does not go.
    lost: Vec<Anchor>,
}

pub(super) async fn run(audit: &Audit<'_>, args: &VerifyArgs) -> Result<()> {
    let mut seen = Seen::default();
    follow_seals(audit, args, &mut seen).await?;
    follow_receipts(audit, &mut seen).await?;
    match audit.output.json {
        true => audit.output.json(&document(&seen))?,
        false => page(&seen, audit.output)?,
    }
    match seen.findings.is_empty() && seen.lost.is_empty() {
        true => Ok(()),
        false => Err(Failure::Exit(FOUND)),
    }
}

/// Follows the chain; a stretch ends at each anchor, to look at what stands there.
async fn follow_seals(audit: &Audit<'_>, args: &VerifyArgs, seen: &mut Seen) -> Result<()> {
    let client = audit.client();
    let mut anchors = args.anchor.clone();
    anchors.sort_by_key(|anchor| anchor.number);
    let mut anchors = anchors.into_iter().peekable();
    loop {
        let to_anchor = anchors.peek().map(|anchor| anchor.number - seen.head.0);
        let request = VerifySealsRequest {
            after_number: seen.head.0,
            after_hash: seen.head.1.clone(),
            limit: to_anchor.map_or(5000, |seals| seals.min(5000)) as u32,
            ..Default::default()
        };
        let told = client.verify_seals(request).await?.into_owned();
        let (number, is_last) = (told.number, told.done);
        seen.add(told)?;
        while let Some(anchor) = anchors.next_if(|anchor| anchor.number <= number || is_last) {
            if seen.head != (anchor.number, anchor.hash.clone()) {
                seen.lost.push(anchor);
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn follow_receipts(audit: &Audit<'_>, seen: &mut Seen) -> Result<()> {
    let client = audit.client();
    let mut request = VerifyReceiptsRequest::default();
    loop {
        let told = client.verify_receipts(request.clone()).await?.into_owned();
        seen.receipts += told.good;
        seen.find(told.findings);
        if told.done {
            return Ok(());
        }
        if told.last <= request.after {
            return Err(goes_round().into());
        }
        request.after = told.last;
    }
}

impl Seen {
    fn add(&mut self, told: VerifySealsResponse) -> Result<()> {
        if !told.done && told.number <= self.head.0 {
            return Err(goes_round().into());
        }
        self.seals += told.good;
        self.unsealed = told.unsealed;
        self.head = (told.number, told.hash);
        self.find(told.findings);
        Ok(())
    }

    fn find(&mut self, findings: Vec<Finding>) {
        let room = TOLD - self.findings.len();
        self.findings.extend(findings.into_iter().take(room));
    }
}

fn goes_round() -> Error {
    let message = "the answers of service/submissions do not go forward";
    Error::new(Code::Internal, "bad_answer", message)
}

fn page(seen: &Seen, output: &Output) -> Result<()> {
    output.text(&format!(
        "{} and {} as they were written\n",
        count(seen.seals, "event", "events"),
        count(seen.receipts, "receipt are", "receipts are"),
    ))?;
    if seen.unsealed > 0 {
        output.text(&format!(
            "{} not sealed yet; that takes a second or two\n",
            count(seen.unsealed, "event is", "events are")
        ))?;
    }
    if seen.head.0 > 0 {
        output.text(&format!("head {}:{}\n", seen.head.0, seen.head.1))?;
    }
    for finding in &seen.findings {
        output.text(&format!("{}\n", told(finding)))?;
    }
    for anchor in &seen.lost {
        let line = format!(
            "the chain does not go through the anchor {}:{}\n",
            anchor.number, anchor.hash
        );
        output.text(&line)?;
    }
    Ok(())
}

fn told(finding: &Finding) -> String {
    let (number, event) = (finding.number, finding.event);
    let submission = printable(&finding.submission);
    match finding.kind.as_str() {
        "changed_event" => format!("event {event} was changed after seal {number} was made"),
        "missing_event" => format!("event {event} is missing, which seal {number} covers"),
        "missing_seal" => format!("seal {number} is missing"),
        "changed_hop" => format!(
            "hop {} of the receipt of {submission} was changed",
            number + 1
        ),
        "missing_hop" => format!(
            "hop {} of the receipt of {submission} is missing",
            number + 1
        ),
        other => format!("{} at {number}", printable(other)),
    }
}

fn document(seen: &Seen) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "kind": finding.kind,
            "number": finding.number,
            "event": finding.event,
            "submission": finding.submission,
        })
    };
    let findings: Vec<_> = seen.findings.iter().map(finding).collect();
    let lost: Vec<_> = seen
        .lost
        .iter()
        .map(|anchor| format!("{}:{}", anchor.number, anchor.hash))
        .collect();
    json!({
        "good_events": seen.seals,
        "good_receipts": seen.receipts,
        "unsealed_events": seen.unsealed,
        "head": format!("{}:{}", seen.head.0, seen.head.1),
        "findings": findings,
        "lost_anchors": lost,
    })
}
