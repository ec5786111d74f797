//! How an attempt ended: one transaction holds the step, the next step's turn, the submission's state, the
//! hop of its receipt and the event.

use hydrant_records::{RecordsError, Transaction, params, transaction};
use hydrant_sdk::Error;
use serde_json::{Map, Value as Json, json};

use super::step::Locked;
use super::{invalid, plain};
use crate::proto::report_request::Outcome;
use crate::proto::{Delivered, Failed, Lease, ReportRequest, ReportResponse};
use crate::service::Desk;

/// The largest proof of a delivery, in bytes.
const MAX_EVIDENCE: usize = 256 * 1024;
/// The longest reference, in characters.
const MAX_REFERENCE: usize = 200;
/// The longest wait before the next attempt, in milliseconds.
const MAX_WAIT: i64 = 24 * 60 * 60 * 1000;

/// An outcome that has been looked at.
enum Checked {
    Delivered {
        reference: Option<String>,
        evidence: Map<String, Json>,
    },
    Failed(Failed),
}

/// Keeps how an attempt ended, if it is told by who holds the newest lease.
///
/// # Errors
///
/// If the report is not one, or the database does not answer.
pub(super) async fn report(desk: &Desk, request: ReportRequest) -> Result<ReportResponse, Error> {
    let lease = request.lease.as_option().cloned();
    let lease = lease.ok_or_else(|| invalid("a report names its lease"))?;
    let outcome = match request.outcome {
        Some(Outcome::Delivered(delivered)) => check_delivered(*delivered)?,
        Some(Outcome::Failed(failed)) => Checked::Failed(*failed),
        None => return Err(invalid("a report says how it ended")),
    };
    let records = desk.tables.ready().await?;
    let now = desk.clock.unix_ms();
    let kept = transaction!(records, |tx| keep(tx, &lease, &outcome, now).await)?;
    if kept {
        desk.changes.tell(&lease.id);
        desk.work.tell();
    }
    Ok(ReportResponse {
        kept,
        ..Default::default()
    })
}

fn check_delivered(delivered: Delivered) -> Result<Checked, Error> {
    if delivered.evidence.len() > MAX_EVIDENCE {
        return Err(invalid("the evidence is too long"));
    }
    let evidence = match delivered.evidence.as_str() {
        "" => Map::new(),
        text => {
            serde_json::from_str(text).map_err(|_| invalid("the evidence is not a JSON object"))?
        }
    };
    let reference = delivered.reference;
    let is_good = |reference: &String| {
        let length = reference.chars().count();
        (1..=MAX_REFERENCE).contains(&length) && !reference.chars().any(char::is_control)
    };
    match reference.as_ref().is_none_or(is_good) {
        true => Ok(Checked::Delivered {
            reference,
            evidence,
        }),
        false => Err(invalid("a reference has 1 to 200 visible characters")),
    }
}

async fn keep(
    tx: &mut Transaction,
    lease: &Lease,
    outcome: &Checked,
    now: i64,
) -> Result<bool, RecordsError> {
    let Some(mut step) = Locked::lock(tx, &lease.id, lease.step.into()).await? else {
        return Ok(false);
    };
    // Whoever claimed it since has a higher epoch: what it says counts, and this does not.
    if step.epoch as u64 != lease.epoch {
        return Ok(false);
    }
    // The same report for the second time: it is kept already.
    if step.state != "leased" {
        return Ok(true);
    }
    match outcome {
        Checked::Delivered {
            reference,
            evidence,
        } => done(tx, &mut step, reference.as_deref(), evidence, now).await?,
        Checked::Failed(failed) if failed.is_final => park(tx, &mut step, failed, now).await?,
        Checked::Failed(failed) => put_back(tx, &step, failed, now).await?,
    }
    Ok(true)
}

async fn done(
    tx: &mut Transaction,
    step: &mut Locked,
    reference: Option<&str>,
    evidence: &Map<String, Json>,
    now: i64,
) -> Result<(), RecordsError> {
    let update = "UPDATE submission_steps SET state = 'done', attempts = attempts + 1, \
                  reason = NULL, ended_ms = ? WHERE submission = ? AND step = ?";
    tx.execute(update, &params![now, &step.id, step.step])
        .await?;
    if let Some(reference) = reference {
        let update = "UPDATE submissions SET reference = ? WHERE id = ?";
        tx.execute(update, &params![reference, &step.id]).await?;
    }
    let update = "UPDATE submission_steps SET state = 'ready', due_ms = ? \
                  WHERE submission = ? AND step = ? AND state = 'waiting'";
    let params = params![now, &step.id, step.step + 1];
    let is_last = tx.execute(update, &params).await? == 0;
    match is_last {
        true => step.mark(tx, "delivered", Some(now)).await?,
        false => step.mark(tx, "submitted", None).await?,
    }
    let mut record = json!({ "consumer": step.consumer, "kind": step.kind, "evidence": evidence });
    if let Some(reference) = reference {
        record["reference"] = reference.into();
    }
    step.hop(tx, "delivered", now, &record).await?;
    tell_done(tx, step, reference, now).await
}

async fn tell_done(
    tx: &mut Transaction,
    step: &Locked,
    reference: Option<&str>,
    now: i64,
) -> Result<(), RecordsError> {
    let detail = json!({ "consumer": step.consumer, "attempts": step.attempts + 1 });
    step.event(tx, ("delivered", "ok"), now, &detail).await?;
    if let Some(reference) = reference {
        let detail = json!({ "consumer": step.consumer, "reference": reference });
        step.event(tx, ("referenced", "ok"), now, &detail).await?;
    }
    Ok(())
}

async fn park(
    tx: &mut Transaction,
    step: &mut Locked,
    failed: &Failed,
    now: i64,
) -> Result<(), RecordsError> {
    let reason = plain(&failed.reason);
    let update = "UPDATE submission_steps SET state = 'parked', attempts = attempts + 1, \
                  reason = ?, ended_ms = ? WHERE submission = ? AND step = ?";
    let params = params![&reason, now, &step.id, step.step];
    tx.execute(update, &params).await?;
    step.mark(tx, "parked", None).await?;
    let attempts = step.attempts + 1;
    let detail = json!({ "consumer": step.consumer, "attempts": attempts, "reason": reason });
    step.event(tx, ("parked", "failed"), now, &detail).await
}

/// Back into the queue. An outage of hours is one event, not one for each attempt.
async fn put_back(
    tx: &mut Transaction,
    step: &Locked,
    failed: &Failed,
    now: i64,
) -> Result<(), RecordsError> {
    let reason = plain(&failed.reason);
    let attempts = step.attempts + i64::from(!failed.not_counted);
    let due = now + i64::from(failed.retry_in_ms).min(MAX_WAIT);
    let update = "UPDATE submission_steps SET state = 'ready', attempts = ?, reason = ?, \
                  due_ms = ? WHERE submission = ? AND step = ?";
    let params = params![attempts, &reason, due, &step.id, step.step];
    tx.execute(update, &params).await?;
    if step.reason.as_deref() == Some(&reason) && attempts == step.attempts {
        return Ok(());
    }
    step.mark(tx, "submitted", None).await?;
    if step.reason.is_some() {
        return Ok(());
    }
    let detail = json!({ "consumer": step.consumer, "reason": reason });
    step.event(tx, ("failing", "failed"), now, &detail).await
}
