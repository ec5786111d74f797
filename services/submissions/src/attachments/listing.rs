//! The attachments of a submission: how they stand, and that all are whole when it is closed.

use hydrant_records::{RecordsError, Row, Transaction, params};
use hydrant_sdk::{Code, Error};
use serde_json::{Value as Json, json};

use super::create;
use super::refusal::Refusal;
use super::rows::{self, State, Upload};
use crate::proto::Attachment;

/// How many names one error tells.
const TOLD: usize = 10;

/// How the attachments of a submission stand, in the order in which they were begun.
pub(crate) async fn of_submission(
    tx: &mut Transaction,
    id: &str,
) -> Result<Vec<Attachment>, RecordsError> {
    let select = "SELECT id, name, media, length, received, sha256, places FROM submission_uploads \
                  WHERE submission = ? AND state IN ('open', 'whole') \
                  AND (concat IS NULL OR concat <> 'partial') ORDER BY position";
    let rows = tx.query(select, &params![id]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Attachment, RecordsError> {
    Ok(Attachment {
        id: row.get(0)?,
        name: row.get(1)?,
        r#type: row.get(2)?,
        size: row.get::<Option<i64>>(3)?.map(|size| size as u64),
        offset: row.get::<i64>(4)? as u64,
        sha256: row.get(5)?,
        stored: rows::read_places(&row.get::<String>(6)?).collect(),
        ..Default::default()
    })
}

/// What is attached to a submission that is about to be closed, for its receipt. The caller has locked the
/// submission.
///
/// # Errors
///
/// If something of it is still to come.
pub(crate) async fn close(tx: &mut Transaction, id: &str, now: i64) -> Result<Vec<Json>, Error> {
    let uploads = rows::living(tx, id).await?;
    let (whole, others): (Vec<_>, Vec<_>) = uploads
        .into_iter()
        .partition(|one| one.state == State::Whole);
    let mut unfinished = Vec::new();
    for mut other in others {
        if is_left(&other, &whole, now) {
            let ended = create::end(tx, &mut other, State::Expired, now).await;
            ended.map_err(|refusal: Refusal| refusal.error)?;
        } else {
            unfinished.push(other);
        }
    }
    match unfinished.is_empty() {
        true => Ok(whole.iter().map(shown).collect()),
        false => Err(attachments_unfinished(&unfinished)),
    }
}

/// Whether nobody waits for an upload any more: nothing came for too long; or nothing ever, and it is a part, or
/// the same file is there whole: then the answer to its POST was lost, and its client began anew.
fn is_left(upload: &Upload, whole: &[Upload], now: i64) -> bool {
    let is_twin = |one: &Upload| one.meta == upload.meta && one.length == upload.length;
    let is_empty = upload.received == 0;
    upload.expires_ms <= now || (is_empty && (upload.is_partial() || whole.iter().any(is_twin)))
}

fn shown(upload: &Upload) -> Json {
    json!({
        "name": upload.meta.name,
        "type": upload.meta.media,
        "size": upload.received,
        "sha256": upload.sha256,
        "stored": upload.places,
    })
}

fn attachments_unfinished(uploads: &[Upload]) -> Error {
    let named = uploads.iter().take(TOLD).map(|one| {
        let (name, id) = (one.meta.name.escape_debug(), &one.id);
        format!("{name} (…/attachments/{id}, {} bytes so far)", one.received)
    });
    let named: Vec<_> = named.collect();
    let message = format!("attachments are not whole yet: {}", named.join(", "));
    Error::new(Code::Aborted, "attachments_unfinished", message)
        .mend("upload the rest, or take the attachment away with DELETE, and submit again")
}
