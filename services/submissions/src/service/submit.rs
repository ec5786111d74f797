//! A submission is closed: from here on nothing is added to it, and it is on its way.

use hydrant_records::{RecordsError, Transaction, Value, params, transaction};
use hydrant_sdk::{Code, Error};
use serde_json::json;

use super::events::{self, Event};
use super::{Desk, hops, status, unknown};
use crate::attachments;
use crate::forms::{Form, Forms};
use crate::proto::{Origin, Status, SubmitRequest};

const STEP: [&str; 10] = [
    "submission",
    "step",
    "consumer",
    "kind",
    "state",
    "store",
    "submitted_ms",
    "attempts",
    "due_ms",
    "epoch",
];

/// What closing looks at.
struct Open {
    form: String,
    origin: Origin,
    hops: i64,
    hop_hash: String,
}

/// Closes a submission and puts its steps into the queue, unless that has happened already; tells how it
/// stands.
///
/// # Errors
///
/// If there is none of this id, an attachment is not whole, or the database does not answer.
pub(super) async fn submit(desk: &Desk, request: &SubmitRequest) -> Result<Status, Error> {
    let records = desk.tables.ready().await?;
    let status = transaction!(records, |tx| close(desk, tx, &request.id).await)?;
    desk.changes.tell(&request.id);
    desk.work.tell();
    Ok(status)
}

async fn close(desk: &Desk, tx: &mut Transaction, id: &str) -> Result<Status, Error> {
    if let Some(open) = lock_open(tx, id).await? {
        let form = desk.forms.form(&open.form);
        let form = form.ok_or_else(|| form_is_gone(&open.form))?;
        let now = desk.clock.unix_ms();
        let attachments = attachments::close(tx, id, now).await?;
        let steps = steps(&desk.forms, form, id, &open, now);
        tx.insert_new("submission_steps", &STEP, &steps).await?;
        let record = json!({ "attachments": attachments }).to_string();
        let hop = ("submitted", now, record);
        let (hops, hash) = hops::put(tx, id, open.hops, &open.hop_hash, hop).await?;
        mark(tx, id, now, hops, &hash).await?;
        let event = Event {
            at_ms: now,
            kind: "submitted",
            outcome: "ok",
            submission: id,
            form: &open.form,
            origin: &open.origin,
            detail: json!({ "attachments": attachments.len() }).to_string(),
        };
        events::put(tx, &[event]).await?;
    }
    status::read(tx, id).await?.ok_or_else(|| unknown(id))
}

/// The submission, locked, if it is open.
async fn lock_open(tx: &mut Transaction, id: &str) -> Result<Option<Open>, Error> {
    let select = "SELECT state, form, store, person, session, hops, hop_hash \
                  FROM submissions WHERE id = ?";
    let rows = tx.lock(select, &params![id]).await?;
    let row = rows.first().ok_or_else(|| unknown(id))?;
    if row.get::<String>(0)? != "open" {
        return Ok(None);
    }
    Ok(Some(Open {
        form: row.get(1)?,
        origin: Origin {
            store: row.get(2)?,
            user: row.get(3)?,
            session: row.get(4)?,
            ..Default::default()
        },
        hops: row.get(5)?,
        hop_hash: row.get(6)?,
    }))
}

/// The rows of the steps: the first is ready, the others wait for it.
fn steps(forms: &Forms, form: &Form, id: &str, open: &Open, now: i64) -> Vec<[Value; 10]> {
    let step = |(number, consumer): (usize, &String)| {
        let known = forms.consumer(consumer);
        let kind = known.map_or("", |known| known.kind().as_str());
        let state = if number == 0 { "ready" } else { "waiting" };
        params![
            id,
            number as i64,
            consumer,
            kind,
            state,
            &open.origin.store,
            now,
            0,
            now,
            0
        ]
    };
    form.deliver.iter().enumerate().map(step).collect()
}

async fn mark(
    tx: &mut Transaction,
    id: &str,
    now: i64,
    hops: i64,
    hash: &str,
) -> Result<(), RecordsError> {
    let update = "UPDATE submissions SET state = 'submitted', version = version + 1, \
                  submitted_ms = ?, hops = ?, hop_hash = ? WHERE id = ?";
    tx.execute(update, &params![now, hops, hash, id]).await?;
    Ok(())
}

fn form_is_gone(form: &str) -> Error {
    let message = format!("the form `{form}` is not in the file of forms any more");
    Error::new(Code::FailedPrecondition, "unknown_form", message)
        .mend("an operator puts it back, for as long as submissions of it are open")
}
