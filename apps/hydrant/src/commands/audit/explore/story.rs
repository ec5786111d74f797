//! One submission's whole story: how it stands, where it is kept, each hop, and each event.

use hydrant_submissions::proto::{Attachment, Event, Receipt, Status, Step};

use super::super::html::escaped;
use super::page::{frame, table, time};
use crate::output::size;

/// What is known of a submission. What could not be had is missing.
pub(super) struct Story {
    pub(super) id: String,
    pub(super) status: Option<Status>,
    pub(super) receipt: Option<Receipt>,
    pub(super) events: Vec<Event>,
}

pub(super) fn page(story: &Story) -> String {
    let status = story.status.as_ref().map_or_else(
        || "<p>It can't be asked how it stands: only its events are here.</p>".to_owned(),
        standing,
    );
    let hops = story.receipt.as_ref().map_or_else(String::new, hops);
    let body = format!(
        "<p><a href=\"/\">All events</a> All times are UTC.</p><main>{status}{hops}<h2>Events</h2>{}</main>",
        table(&story.events)
    );
    frame(&format!("Submission {}", story.id), &body)
}

fn standing(status: &Status) -> String {
    let reference = status.reference.as_deref().map_or_else(
        || "none yet".to_owned(),
        |reference| format!("<b>{}</b>", escaped(reference)),
    );
    let submitted = status
        .submitted_unix_ms
        .map_or_else(|| "not yet".into(), time);
    let facts = [
        ("State", format!("<b>{}</b>", escaped(&status.state))),
        ("Form", escaped(&status.form)),
        ("Reference", reference),
        ("Accepted", escaped(&time(status.accepted_unix_ms))),
        ("Submitted", escaped(&submitted)),
    ];
    let facts = facts.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>"));
    format!(
        "<dl>{}</dl>{}{}",
        facts.concat(),
        attachments(&status.attachments),
        steps(&status.steps)
    )
}

fn attachments(attachments: &[Attachment]) -> String {
    let rows = attachments.iter().map(|one| {
        let bytes = one.size.map_or_else(|| "unknown".into(), size);
        cells(&[
            ("Name", &one.name),
            ("Type", &one.r#type),
            ("Size", &bytes),
            ("Stored in", &one.stored.join(", ")),
            ("SHA-256", one.sha256.as_deref().unwrap_or_default()),
        ])
    });
    section(
        "Attachments",
        &["Name", "Type", "Size", "Stored in", "SHA-256"],
        rows.collect(),
    )
}

fn steps(steps: &[Step]) -> String {
    let rows = steps.iter().map(|step| {
        cells(&[
            ("Consumer", &step.consumer),
            ("Kind", &step.kind),
            ("State", &step.state),
            ("Attempts", &step.attempts.to_string()),
            ("Done", &step.done_unix_ms.map(time).unwrap_or_default()),
            ("Reason", step.reason.as_deref().unwrap_or_default()),
        ])
    });
    let heads = ["Consumer", "Kind", "State", "Attempts", "Done", "Reason"];
    section("Deliveries", &heads, rows.collect())
}

fn hops(receipt: &Receipt) -> String {
    let rows = receipt.hops.iter().map(|hop| {
        cells(&[
            ("Hop", &hop.kind),
            ("Time", &time(hop.at_unix_ms)),
            ("Record", &hop.record),
            ("Hash", &hop.hash),
        ])
    });
    section(
        "Receipt",
        &["Hop", "Time", "Record", "Hash"],
        rows.collect(),
    )
}

fn cells(cells: &[(&str, &str)]) -> String {
    let cells = cells.iter();
    let cells =
        cells.map(|(name, text)| format!("<td data-name=\"{name}\">{}</td>", escaped(text)));
    format!("<tr>{}</tr>", cells.collect::<String>())
}

fn section(title: &str, heads: &[&str], rows: String) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = heads
        .iter()
        .map(|head| format!("<th>{head}</th>"))
        .collect();
    format!("<h2>{title}</h2><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
}

#[cfg(test)]
mod tests {
    use hydrant_submissions::proto::Hop;

    use super::*;

    #[test]
    fn what_clients_and_consumers_write_is_text() {
        let bad = || "<img src=x onerror=alert(1)>\"".to_owned();
        let attachment = Attachment {
            name: bad(),
            r#type: bad(),
            stored: vec![bad()],
            ..Default::default()
        };
        let step = Step {
            consumer: bad(),
            reason: Some(bad()),
            ..Default::default()
        };
        let status = Status {
            form: bad(),
            reference: Some(bad()),
            attachments: vec![attachment],
            steps: vec![step],
            ..Default::default()
        };
        let hop = Hop {
            record: bad(),
            ..Default::default()
        };
        let page = page(&Story {
            id: bad(),
            status: Some(status),
            receipt: Some(Receipt {
                hops: vec![hop],
                ..Default::default()
            }),
            events: Vec::new(),
        });
        assert!(!page.contains("<img"), "{page}");
        // All are there; the id is in the title, too.
        assert_eq!(page.matches("&lt;img").count(), 10);
    }
}
