//! `hydrant submissions reconcile`.

use std::collections::BTreeMap;

use clap::Args;
use hydrant_submissions::proto::{Difference, EndReconcileRequest, ReconcileRequest};
use serde_json::json;

use super::{Desk, decide, primary};
use crate::failure::Result;
use crate::output::{Table, count, plain, printable};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct ReconcileArgs {
    /// Only tell what would be brought over
    #[arg(long, group = "what")]
    plan: bool,
    /// Bring it over; done twice it changes nothing
    #[arg(long, group = "what")]
    apply: bool,
    /// The former primary never comes back: what only it had is lost
    #[arg(long, group = "what")]
    give_up: bool,
    /// Why: it is kept with it
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who [default: $USER]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Report {
    from: String,
    to: String,
    compared: u64,
    differences: Vec<Difference>,
}

pub(crate) async fn run(desk: &Desk<'_>, args: &ReconcileArgs) -> Result<()> {
    if args.give_up {
        let reason = decide::reason(args.reason.as_deref(), "its disks are gone")?;
        let shown = end(desk, args, reason).await?;
        return primary::show(desk, &shown);
    }
    let report = gather(desk, args.apply).await?;
    if args.apply {
        let reason = args.reason.clone();
        end(desk, args, reason.unwrap_or_else(|| "reconciled".into())).await?;
    }
    show(desk, &report, args.apply)
}

async fn end(
    desk: &Desk<'_>,
    args: &ReconcileArgs,
    reason: String,
) -> Result<hydrant_submissions::proto::ShowSitesResponse> {
    let request = EndReconcileRequest {
        author: decide::author(args.author.as_ref()),
        reason,
        ..Default::default()
    };
    Ok(desk.sites().end_reconcile(request).await?.into_owned())
}

async fn gather(desk: &Desk<'_>, apply: bool) -> Result<Report> {
    let client = desk.sites();
    let mut report = Report::default();
    let mut after = String::new();
    loop {
        let request = ReconcileRequest {
            apply,
            after,
            ..Default::default()
        };
        let page = client.reconcile(request).await?.into_owned();
        report.compared += page.compared;
        report.differences.extend(page.differences);
        (report.from, report.to) = (page.from, page.to);
        after = page.last;
        if page.done {
            return Ok(report);
        }
    }
}

fn show(desk: &Desk<'_>, report: &Report, apply: bool) -> Result<()> {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for one in &report.differences {
        *kinds.entry(&one.kind).or_default() += 1;
    }
    if desk.output.json {
        let differences = report.differences.iter().map(
            |one| json!({ "submission": one.submission, "kind": one.kind, "detail": one.detail }),
        );
        return desk.output.json(&json!({
            "from": report.from,
            "to": report.to,
            "applied": apply,
            "compared": report.compared,
            "counts": kinds,
            "differences": differences.collect::<Vec<_>>(),
        }));
    }
    let compared = count(report.compared, "submission", "submissions");
    let counts: Vec<_> = kinds
        .iter()
        .map(|(kind, number)| format!("{number} {kind}"))
        .collect();
    let found = match counts.is_empty() {
        true => "nothing is missing".into(),
        false => counts.join(", "),
    };
    let (from, to) = (printable(&report.from), printable(&report.to));
    desk.output.text(&format!(
        "{compared} of {from} compared with {to}: {found}\n"
    ))?;
    if report.differences.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        "SUBMISSION",
        "KIND",
        if apply { "BROUGHT" } else { "TO BRING" },
    ]);
    for one in &report.differences {
        table.row([
            plain(&one.submission),
            plain(&one.kind),
            plain(printable(&one.detail)),
        ]);
    }
    desk.output.text("\n")?;
    desk.output.table_or(&table, "")
}
