//! The hops of a submission: each is put on record in the transaction of what it tells, and its hash covers
//! the one before.

use hydrant_records::{RecordsError, Row, Transaction, Value, params, read};
use hydrant_sdk::Error;

use super::{Desk, unknown};
use crate::proto::{Hop, Receipt};
use crate::receipt;

pub(super) const COLUMNS: [&str; 6] = ["submission", "number", "kind", "at_ms", "record", "hash"];

/// The row of a hop.
pub(super) fn row(submission: &str, number: i64, hop: &Hop) -> [Value; 6] {
    params![
        submission,
        number,
        &hop.kind,
        hop.at_unix_ms,
        &hop.record,
        &hop.hash
    ]
}

/// Puts one more hop on record. The caller has [locked](Transaction::lock) the submission, and counts it there
/// by what this returns: the columns `hops` and `hop_hash`.
pub(crate) async fn put(
    tx: &mut Transaction,
    submission: &str,
    hops: i64,
    before: &str,
    (kind, at_ms, record): (&str, i64, String),
) -> Result<(i64, String), RecordsError> {
    let hop = receipt::hop(before, kind, at_ms, record);
    let rows = [row(submission, hops, &hop)];
    tx.insert_new("submission_hops", &COLUMNS, &rows).await?;
    Ok((hops + 1, hop.hash))
}

/// The receipt of a submission, as far as it has come.
///
/// # Errors
///
/// If there is none, or the database does not answer.
pub(super) async fn receipt(desk: &Desk, id: &str) -> Result<Receipt, Error> {
    let records = desk.tables.ready().await?;
    let (form, hops) = read!(records, |tx| {
        let forms = tx
            .query("SELECT form FROM submissions WHERE id = ?", &params![id])
            .await?;
        let select = "SELECT kind, at_ms, record, hash FROM submission_hops \
                      WHERE submission = ? ORDER BY number";
        let hops = tx.query(select, &params![id]).await?;
        let form = forms.first().map(|row| row.get::<String>(0)).transpose()?;
        Ok::<_, Error>((form, hops))
    })?;
    Ok(Receipt {
        id: id.to_owned(),
        form: form.ok_or_else(|| unknown(id))?,
        hops: hops.iter().map(read_hop).collect::<Result<_, _>>()?,
        ..Default::default()
    })
}

fn read_hop(row: &Row) -> Result<Hop, RecordsError> {
    Ok(Hop {
        kind: row.get(0)?,
        at_unix_ms: row.get(1)?,
        record: row.get(2)?,
        hash: row.get(3)?,
        ..Default::default()
    })
}
