//! `hydrant audit list`.

use clap::Args;
use hydrant_submissions::proto::{Event, ListEventsRequest};
use serde_json::{Value, json};

use super::Audit;
use super::day::Moment;
use crate::failure::Result;
use crate::output::{Style, Table, plain, printable, time};

/// Events, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant audit list --id 3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50
  hydrant audit list --store 4711 --kind parked --since 2026-11-20
  hydrant --json audit list --outcome failed | jq -r .submission")]
pub(super) struct ListArgs {
    /// Only of this store
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Only of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only of this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Only of the submission with this correlation id
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// Only of this form
    #[arg(long, value_name = "FORM")]
    form: Option<String>,
    /// Only of this kind, as accepted, submitted, delivered or parked
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only with this outcome: ok or failed
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// From this time on, as 2026-11-20 or 2026-11-20T09:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Before this event: the number in the last line of the page before
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(super) async fn run(audit: &Audit<'_>, args: &ListArgs) -> Result<()> {
    let told = audit
        .client()
        .list_events(args.request())
        .await?
        .into_owned();
    if audit.output.json {
        return told
            .events
            .iter()
            .try_for_each(|event| audit.output.json(&document(event)));
    }
    let mut table = Table::new(&[
        "EVENT",
        "TIME",
        "KIND",
        "OUTCOME",
        "STORE",
        "USER",
        "FORM",
        "SUBMISSION",
        "DETAIL",
    ]);
    for event in &told.events {
        let style = if event.outcome == "failed" {
            Style::Bad
        } else {
            Style::Plain
        };
        table.row([
            plain(event.id),
            plain(time(event.at_unix_ms)),
            plain(&event.kind),
            (printable(&event.outcome), style),
            plain(&event.store),
            plain(&event.user),
            plain(&event.form),
            plain(&event.submission),
            plain(if event.detail == "{}" {
                ""
            } else {
                &event.detail
            }),
        ]);
    }
    let nothing = "no event fits; is one of the options too narrow?";
    audit.output.table_or(&table, nothing)?;
    match told.events.last().filter(|_| told.more) {
        Some(last) => audit
            .output
            .text(&format!("\nthere are more: add --before {}\n", last.id)),
        None => Ok(()),
    }
}

impl ListArgs {
    fn request(&self) -> ListEventsRequest {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ListEventsRequest {
            store: text(&self.store),
            user: text(&self.user),
            session: text(&self.session),
            submission: text(&self.id).to_lowercase(),
            kind: text(&self.kind),
            outcome: text(&self.outcome),
            form: text(&self.form),
            from_unix_ms: self.since.map(|time| time.0),
            until_unix_ms: self.until.map(|time| time.0),
            before_id: self.before,
            limit: self.limit,
            ..Default::default()
        }
    }
}

fn document(event: &Event) -> Value {
    let detail = serde_json::from_str(&event.detail);
    json!({
        "event": event.id,
        "time": time(event.at_unix_ms),
        "kind": event.kind,
        "outcome": event.outcome,
        "submission": event.submission,
        "form": event.form,
        "store": event.store,
        "user": event.user,
        "session": event.session,
        "detail": detail.unwrap_or(Value::Null),
    })
}
