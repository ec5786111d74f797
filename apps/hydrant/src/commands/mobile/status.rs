//! `hydrant mobile status`.

use clap::Args;
use hydrant_mobile::proto::{
    AlarmStatus, InstanceStatus, OperationsClient, SourceStatus, StatusRequest, StatusResponse,
};
use hydrant_runtime::Clock;
use serde_json::{Value, json};

use super::Mobile;
use crate::commands::health::NOT_WELL;
use crate::failure::{Failure, Result};
use crate::output::{Output, Style, Table, age, plain, printable, time};

/// Sources, revisions and alarms
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant mobile status
  hydrant mobile status --check || echo 'somebody has to look'
  hydrant --json mobile status | jq '.alarms[].message'")]
pub(crate) struct StatusArgs {
    /// Exit with 5 when there is an alarm: for monitoring
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(mobile: &Mobile<'_>, args: &StatusArgs) -> Result<()> {
    let client = mobile.client(OperationsClient::new);
    let status = client.status(StatusRequest::default()).await?.into_owned();
    match mobile.output.json {
        true => mobile.output.json(&document(&status))?,
        false => page(&status, mobile.output)?,
    }
    match args.check && !status.alarms.is_empty() {
        true => Err(Failure::Exit(NOT_WELL)),
        false => Ok(()),
    }
}

fn page(status: &StatusResponse, output: &Output) -> Result<()> {
    let now = Clock::system().unix_ms();
    output.text(&headline(status))?;
    output.text("\n")?;
    let nobody = "no process has reported yet; does `hydrant list mobile` show any?";
    output.table_or(&instances(status, now), nobody)?;
    if !status.sources.is_empty() {
        output.text("\n")?;
        output.table(&sources(&status.sources, now))?;
    }
    output.text("\n")?;
    alarms(&status.alarms, now, output)
}

fn headline(status: &StatusResponse) -> String {
    let leader = match status.leader.as_str() {
        "" => "nobody leads".to_owned(),
        leader => format!("{} leads under epoch {}", printable(leader), status.epoch),
    };
    let published = status.published_revision;
    let revision = match status.newest_revision {
        Some(newest) if newest > published => {
            format!("revision {published} is published, and {newest} is the newest")
        }
        _ if published == 0 => "nothing is published yet".to_owned(),
        _ => format!("revision {published} is published"),
    };
    format!("{revision}; {leader}\n")
}

fn instances(status: &StatusResponse, now: i64) -> Table {
    let mut table = Table::new(&["INSTANCE", "SERVICE", "SERVER", "REVISION", "REPORTED"]);
    for one in &status.instances {
        let reported = match one.reported_unix_ms {
            0 => "never".to_owned(),
            at => format!("{} ago", age(now - at)),
        };
        table.row([
            plain(&one.instance),
            plain(&one.service),
            plain(&one.server),
            revision(one, status),
            plain(reported),
        ]);
    }
    table
}

/// What it answers from, and how far that is behind.
fn revision(one: &InstanceStatus, status: &StatusResponse) -> (String, Style) {
    let Some(revision) = one.revision else {
        let is_leader = !status.leader.is_empty() && one.instance == status.leader;
        return plain(if is_leader { "leads" } else { "-" });
    };
    let behind = status.published_revision.saturating_sub(revision);
    match (one.refused_revision, behind) {
        (Some(refused), _) => (format!("{revision}, refuses {refused}"), Style::Bad),
        (None, 0) => plain(revision),
        (None, behind) => (format!("{revision}, {behind} behind"), Style::Waiting),
    }
}

fn sources(sources: &[SourceStatus], now: i64) -> Table {
    let mut table = Table::new(&["SOURCE", "STATE", "CHANGED", "NEXT TRY", "REASON"]);
    for one in sources {
        let state = match one.failing_since_unix_ms {
            None => ("well".to_owned(), Style::Good),
            Some(since) => (format!("fails for {}", age(now - since)), Style::Bad),
        };
        let changed = match one.as_of_unix_ms {
            None => "never".to_owned(),
            Some(at) => format!("{} ago", age(now - at)),
        };
        let next = one.next_try_unix_ms;
        let next = next.map_or_else(|| "-".to_owned(), |at| format!("in {}", age(at - now)));
        let reason = if one.reason.is_empty() {
            "-"
        } else {
            &one.reason
        };
        table.row([
            plain(&one.name),
            state,
            plain(changed),
            plain(next),
            plain(reason),
        ]);
    }
    table
}

fn alarms(alarms: &[AlarmStatus], now: i64, output: &Output) -> Result<()> {
    if alarms.is_empty() {
        return output.text("no alarms\n");
    }
    for alarm in alarms {
        let name = output.paint(Style::Bad, &printable(&alarm.name));
        let since = age(now - alarm.since_unix_ms);
        let message = printable(&alarm.message);
        output.text(&format!("ALARM {name} for {since}: {message}\n"))?;
        if !alarm.mend.is_empty() {
            output.text(&format!("  mend: {}\n", printable(&alarm.mend)))?;
        }
    }
    Ok(())
}

fn document(status: &StatusResponse) -> Value {
    let leader = Some(&status.leader).filter(|leader| !leader.is_empty());
    json!({
        "published_revision": status.published_revision,
        "newest_revision": status.newest_revision,
        "leader": leader,
        "epoch": status.epoch,
        "instances": status.instances.iter().map(instance).collect::<Vec<_>>(),
        "sources": status.sources.iter().map(source).collect::<Vec<_>>(),
        "alarms": status.alarms.iter().map(alarm).collect::<Vec<_>>(),
    })
}

fn instance(one: &InstanceStatus) -> Value {
    let reported = Some(one.reported_unix_ms).filter(|at| *at != 0);
    json!({
        "instance": one.instance,
        "service": one.service,
        "server": one.server,
        "revision": one.revision,
        "refused_revision": one.refused_revision,
        "reported": reported.map(time),
    })
}

fn source(one: &SourceStatus) -> Value {
    json!({
        "name": one.name,
        "as_of": one.as_of_unix_ms.map(time),
        "failing_since": one.failing_since_unix_ms.map(time),
        "reason": one.reason,
        "mend": one.mend,
        "next_try": one.next_try_unix_ms.map(time),
    })
}

fn alarm(one: &AlarmStatus) -> Value {
    json!({
        "name": one.name,
        "since": time(one.since_unix_ms),
        "message": one.message,
        "mend": one.mend,
        "instances": one.instances,
    })
}
