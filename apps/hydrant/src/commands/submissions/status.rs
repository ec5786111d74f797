//! `hydrant submissions status`.

use clap::Args;
use hydrant_submissions::proto::{GetRequest, Status, Step};
use serde_json::{Value, json};

use super::Desk;
use crate::failure::Result;
use crate::output::{Style, Table, plain, printable, time};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Its id: the client's correlation id
    #[arg(value_name = "SUBMISSION")]
    id: String,
}

pub(crate) async fn run(desk: &Desk<'_>, args: &StatusArgs) -> Result<()> {
    let request = GetRequest {
        id: args.id.to_lowercase(),
        ..Default::default()
    };
    let status = desk.submissions().get(request).await?.into_owned();
    match desk.output.json {
        true => desk.output.json(&document(&status)),
        false => page(desk, &status),
    }
}

fn page(desk: &Desk<'_>, status: &Status) -> Result<()> {
    let mut head = format!(
        "{} of the form {}, accepted {}: {}",
        status.id,
        status.form,
        time(status.accepted_unix_ms),
        status.state
    );
    if let Some(reference) = &status.reference {
        head += &format!(", reference {}", printable(reference));
    }
    desk.output.text(&format!("{head}\n\n"))?;
    let mut table = Table::new(&["CONSUMER", "KIND", "STATE", "ATTEMPTS", "DONE", "REASON"]);
    for step in &status.steps {
        table.row([
            plain(&step.consumer),
            plain(&step.kind),
            state(step),
            plain(step.attempts),
            plain(step.done_unix_ms.map(time).unwrap_or_default()),
            plain(printable(step.reason.as_deref().unwrap_or_default())),
        ]);
    }
    desk.output.table_or(
        &table,
        "it is not submitted yet, so it is on its way to nobody",
    )
}

fn state(step: &Step) -> (String, Style) {
    let style = match step.state.as_str() {
        "done" => Style::Good,
        "parked" | "dropped" => Style::Bad,
        _ => Style::Waiting,
    };
    (step.state.clone(), style)
}

fn document(status: &Status) -> Value {
    let steps = status.steps.iter().map(|step| {
        json!({
            "consumer": step.consumer,
            "kind": step.kind,
            "state": step.state,
            "attempts": step.attempts,
            "doneUnixMs": step.done_unix_ms,
            "reason": step.reason,
        })
    });
    json!({
        "id": status.id,
        "form": status.form,
        "state": status.state,
        "acceptedUnixMs": status.accepted_unix_ms,
        "submittedUnixMs": status.submitted_unix_ms,
        "reference": status.reference,
        "deliveries": steps.collect::<Vec<_>>(),
    })
}
