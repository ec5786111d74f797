//! What people decide about what is parked.

use hydrant_records::{Records, RecordsError, Transaction, params, read, transaction};
use hydrant_sdk::Error;
use serde_json::json;

use super::step::Locked;
use super::{invalid, plain};
use crate::proto::{DecideRequest, DecideResponse};
use crate::service::Desk;

/// The most submissions of one decision.
const MAX_IDS: usize = 500;
/// The longest author and reason, in characters.
const MAX_AUTHOR: usize = 100;
const MAX_WHY: usize = 500;

/// What is done with a parked step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes into the queue again.
    Retry,
    /// It is given up, and with it what would come behind it.
    GiveUp,
}

/// Does it to the submissions that are named, or to up to 500 that are parked at a consumer. Each is decided in
/// a transaction of its own: what an error cut off is done by asking again.
///
/// # Errors
///
/// If nobody or nothing is named, or the database does not answer.
pub(super) async fn decide(
    desk: &Desk,
    request: &DecideRequest,
    decision: Decision,
) -> Result<DecideResponse, Error> {
    check(request)?;
    let records = desk.tables.ready().await?;
    let ids = match request.ids.is_empty() {
        true => parked_at(&records, &request.consumer).await?,
        false => request.ids.clone(),
    };
    let mut answer = DecideResponse::default();
    for id in ids {
        let now = desk.clock.unix_ms();
        let held = transaction!(records, |tx| {
            decide_one(tx, &id, request, decision, now).await
        })?;
        match held {
            true => {
                desk.changes.tell(&id);
                answer.ids.push(id);
            }
            false => answer.others.push(id),
        }
    }
    desk.work.tell();
    Ok(answer)
}

fn check(request: &DecideRequest) -> Result<(), Error> {
    let is_text = |text: &str, most: usize| {
        let length = text.chars().count();
        (1..=most).contains(&length) && !text.trim().is_empty()
    };
    if !is_text(&request.author, MAX_AUTHOR) || !is_text(&request.reason, MAX_WHY) {
        return Err(
            invalid("a decision has an author (100 characters) and a reason (500)")
                .mend("say who decides and why: both are kept with it"),
        );
    }
    match (request.ids.len(), request.consumer.is_empty()) {
        (0, false) | (1..=MAX_IDS, true) => Ok(()),
        _ => Err(invalid("either 1 to 500 ids are named, or a consumer")),
    }
}

async fn parked_at(records: &Records, consumer: &str) -> Result<Vec<String>, Error> {
    let select = "SELECT submission FROM submission_steps \
                  WHERE state = 'parked' AND consumer = ? ORDER BY submitted_ms LIMIT ?";
    let params = params![consumer, MAX_IDS as i64];
    let rows = read!(records, |tx| tx.query(select, &params).await)?;
    let ids: Result<_, RecordsError> = rows.iter().map(|row| row.get(0)).collect();
    Ok(ids?)
}

async fn decide_one(
    tx: &mut Transaction,
    id: &str,
    request: &DecideRequest,
    decision: Decision,
    now: i64,
) -> Result<bool, RecordsError> {
    let select = "SELECT step FROM submission_steps WHERE submission = ? AND state = 'parked'";
    let rows = tx.query(select, &params![id]).await?;
    let Some(row) = rows.first() else {
        return Ok(false);
    };
    let Some(mut step) = Locked::lock(tx, id, row.get(0)?).await? else {
        return Ok(false);
    };
    if step.state != "parked" {
        return Ok(false);
    }
    let (kind, outcome) = match decision {
        Decision::Retry => {
            retry(tx, &step, now).await?;
            ("retried", "ok")
        }
        Decision::GiveUp => {
            give_up(tx, &mut step, now).await?;
            ("dropped", "failed")
        }
    };
    let detail = json!({
        "consumer": step.consumer,
        "author": plain(&request.author),
        "reason": plain(&request.reason),
        "parkedFor": step.reason,
    });
    step.event(tx, (kind, outcome), now, &detail).await?;
    Ok(true)
}

/// A new start: its attempts are counted anew, and who held it before is not heard any more.
async fn retry(tx: &mut Transaction, step: &Locked, now: i64) -> Result<(), RecordsError> {
    let update = "UPDATE submission_steps SET state = 'ready', attempts = 0, reason = NULL, \
                  ended_ms = NULL, due_ms = ?, epoch = epoch + 1 \
                  WHERE submission = ? AND step = ?";
    tx.execute(update, &params![now, &step.id, step.step])
        .await?;
    step.mark(tx, "submitted", None).await
}

async fn give_up(tx: &mut Transaction, step: &mut Locked, now: i64) -> Result<(), RecordsError> {
    let update = "UPDATE submission_steps SET state = 'dropped', ended_ms = ?, epoch = epoch + 1 \
                  WHERE submission = ? AND state IN ('parked', 'waiting')";
    tx.execute(update, &params![now, &step.id]).await?;
    step.mark(tx, "dropped", Some(now)).await?;
    let record = json!({ "consumer": step.consumer });
    step.hop(tx, "dropped", now, &record).await
}
