//! What clients see of a submission: JSON.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Front;
use crate::proto::{AcceptResponse, Attachment, Hop, Receipt, Status, Step};

/// Where submissions are, for clients.
const BASE: &str = "/api/submissions/v1/submissions";

/// The path of a submission.
pub(super) fn location(id: &str) -> String {
    format!("{BASE}/{id}")
}

/// What may be sent.
pub(super) async fn forms(State(front): State<Front>) -> Json<Value> {
    let forms = front.0.forms.all().map(|form| {
        let attachments = form.attachments.as_ref().map(|attachments| {
            let types: Vec<_> = attachments.types.iter().map(ToString::to_string).collect();
            json!({ "maxCount": attachments.max_count, "maxSize": attachments.max_size, "types": types })
        });
        json!({ "name": form.name, "schema": form.schema.document(), "attachments": attachments })
    });
    Json(forms.collect())
}

/// A submission that has just been taken in, or was before: the same both times.
pub(super) fn accepted(id: &str, accepted: &AcceptResponse) -> Json<Value> {
    let (location, receipt) = (location(id), accepted.receipt.as_option());
    Json(json!({
        "id": id,
        "form": receipt.map(|receipt| &receipt.form),
        "state": "open",
        "acceptedAt": time(accepted.accepted_unix_ms),
        "attachments": format!("{location}/attachments"),
        "submit": format!("{location}/submit"),
        "receipt": receipt.map(self::receipt),
    }))
}

/// How a submission stands.
pub(super) fn status(status: &Status) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| shown.insert(name.into(), value);
    put("id", status.id.clone().into());
    put("form", status.form.clone().into());
    put("state", status.state.clone().into());
    put("acceptedAt", time(status.accepted_unix_ms).into());
    if let Some(submitted) = status.submitted_unix_ms {
        put("submittedAt", time(submitted).into());
    }
    if let Some(reference) = &status.reference {
        put("reference", reference.clone().into());
    }
    put(
        "attachments",
        status.attachments.iter().map(attachment).collect(),
    );
    put("deliveries", status.steps.iter().map(delivery).collect());
    shown.into()
}

fn attachment(attachment: &Attachment) -> Value {
    let mut shown = json!({
        "id": attachment.id,
        "name": attachment.name,
        "type": attachment.r#type,
        "size": attachment.size,
        "offset": attachment.offset,
        "stored": attachment.stored,
    });
    if let Some(sha256) = &attachment.sha256 {
        shown["sha256"] = sha256.clone().into();
    }
    shown
}

fn delivery(step: &Step) -> Value {
    let mut shown = json!({
        "consumer": step.consumer,
        "kind": step.kind,
        "state": step.state,
        "attempts": step.attempts,
    });
    if let Some(done) = step.done_unix_ms {
        shown["doneAt"] = time(done).into();
    }
    if let Some(reason) = &step.reason {
        shown["reason"] = reason.clone().into();
    }
    shown
}

/// The receipt, as it is kept and checked offline.
pub(super) fn receipt(receipt: &Receipt) -> Value {
    let hops: Vec<_> = receipt.hops.iter().map(hop).collect();
    json!({ "id": receipt.id, "form": receipt.form, "hops": hops })
}

/// The record stands as the text that was hashed.
fn hop(hop: &Hop) -> Value {
    json!({
        "kind": hop.kind,
        "at": hop.at_unix_ms,
        "record": hop.record,
        "hash": hop.hash,
    })
}

/// A time as RFC 3339 has it.
fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| String::new(), |time| time.to_string())
}
