//! What can't be delivered, for people.

use hydrant_records::{RecordsError, Row, params, read};
use hydrant_sdk::Error;

use super::invalid;
use crate::proto::{ListParkedRequest, ListParkedResponse, ParkedStep};
use crate::service::Desk;

/// The most that one page tells.
const MAX_PAGE: u32 = 500;

/// A page of what is parked, the oldest first.
///
/// # Errors
///
/// If the request has no page's end in `after`, or the database does not answer.
pub(super) async fn list(
    desk: &Desk,
    request: &ListParkedRequest,
) -> Result<ListParkedResponse, Error> {
    let limit = match request.limit {
        0 => MAX_PAGE,
        limit => limit.min(MAX_PAGE),
    };
    let (after, id) = place(&request.after)?;
    let (consumer, form, store) = (&request.consumer, &request.form, &request.store);
    let select = "SELECT t.submission, s.form, t.store, t.step, t.consumer, t.attempts, t.reason, \
                  t.ended_ms, s.accepted_ms, t.submitted_ms \
                  FROM submission_steps t JOIN submissions s ON s.id = t.submission \
                  WHERE t.state = 'parked' AND (? = '' OR t.consumer = ?) \
                  AND (? = '' OR s.form = ?) AND (? = '' OR t.store = ?) \
                  AND (t.submitted_ms > ? OR (t.submitted_ms = ? AND t.submission > ?)) \
                  ORDER BY t.submitted_ms, t.submission LIMIT ?";
    let params = params![
        consumer,
        consumer,
        form,
        form,
        store,
        store,
        after,
        after,
        id,
        i64::from(limit)
    ];
    let records = desk.tables.ready().await?;
    let rows = read!(records, |tx| tx.query(select, &params).await)?;
    let next = match rows.last() {
        Some(last) if rows.len() == limit as usize => {
            format!("{}/{}", last.get::<i64>(9)?, last.get::<String>(0)?)
        }
        _ => String::new(),
    };
    Ok(ListParkedResponse {
        parked: rows.iter().map(read_parked).collect::<Result<_, _>>()?,
        next,
        ..Default::default()
    })
}

/// A submission has one parked step at most, so its id tells a place.
fn place(after: &str) -> Result<(i64, &str), Error> {
    if after.is_empty() {
        return Ok((i64::MIN, ""));
    }
    let place = after
        .split_once('/')
        .and_then(|(time, id)| Some((time.parse().ok()?, id)));
    place.ok_or_else(|| invalid("`after` is `next` of an answer before"))
}

fn read_parked(row: &Row) -> Result<ParkedStep, RecordsError> {
    Ok(ParkedStep {
        id: row.get(0)?,
        form: row.get(1)?,
        store: row.get(2)?,
        step: row.get::<i64>(3)? as u32,
        consumer: row.get(4)?,
        attempts: row.get::<i64>(5)? as u32,
        reason: row.get::<Option<String>>(6)?.unwrap_or_default(),
        parked_unix_ms: row.get::<Option<i64>>(7)?.unwrap_or_default(),
        accepted_unix_ms: row.get(8)?,
        ..Default::default()
    })
}
