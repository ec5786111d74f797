//! Events by store, person, session, submission, kind, outcome, form and time.

use hydrant_records::{RecordsError, Row, Value, params, read};
use hydrant_sdk::Error;

use super::page;
use crate::proto::{Event, ListEventsRequest, ListEventsResponse};
use crate::sites::Tables;

/// A question for events, which begins with a condition that an index answers. What is not asked for is empty,
/// and fits everything.
macro_rules! select {
    ($first:literal) => {
        concat!(
            "SELECT id, at_ms, kind, outcome, submission, form, store, person, session, detail \
             FROM audit_events WHERE ",
            $first,
            " AND (? = '' OR person = ?) AND (? = '' OR session = ?) AND (? = '' OR kind = ?) \
             AND (? = '' OR outcome = ?) AND (? = '' OR form = ?) \
             AND at_ms >= ? AND at_ms < ? AND id < ? ORDER BY id DESC LIMIT ?"
        )
    };
}

const ANY: &str = select!("? = '' AND ? = ''");
const OF_STORE: &str = select!("? = '' AND store = ?");
const OF_SUBMISSION: &str = select!("submission = ? AND ? IN ('', store)");

/// Events, the newest first.
///
/// # Errors
///
/// If the database does not answer.
pub(super) async fn list(
    tables: &Tables,
    request: &ListEventsRequest,
) -> Result<ListEventsResponse, Error> {
    let records = tables.ready().await?;
    let limit = page(request.limit, 100, 1000);
    let select = match (request.submission.as_str(), request.store.as_str()) {
        ("", "") => ANY,
        ("", _) => OF_STORE,
        _ => OF_SUBMISSION,
    };
    let params = params(request, limit + 1);
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(select, &params).await);
    let rows = rows?;
    let more = rows.len() as i64 > limit;
    let rows = rows.iter().take(limit as usize);
    Ok(ListEventsResponse {
        events: rows.map(read_event).collect::<Result<_, _>>()?,
        more,
        ..Default::default()
    })
}

fn params(request: &ListEventsRequest, limit: i64) -> Vec<Value> {
    let first = params![&request.submission, &request.store];
    let texts = [
        &request.user,
        &request.session,
        &request.kind,
        &request.outcome,
        &request.form,
    ];
    let twice = texts.iter().flat_map(|text| params![*text, *text]);
    let rest = params![
        request.from_unix_ms.unwrap_or(i64::MIN),
        request.until_unix_ms.unwrap_or(i64::MAX),
        request.before_id.unwrap_or(i64::MAX),
        limit,
    ];
    first.into_iter().chain(twice).chain(rest).collect()
}

fn read_event(row: &Row) -> Result<Event, RecordsError> {
    Ok(Event {
        id: row.get(0)?,
        at_unix_ms: row.get(1)?,
        kind: row.get(2)?,
        outcome: row.get(3)?,
        submission: row.get(4)?,
        form: row.get(5)?,
        store: row.get(6)?,
        user: row.get(7)?,
        session: row.get(8)?,
        detail: row.get(9)?,
        ..Default::default()
    })
}
