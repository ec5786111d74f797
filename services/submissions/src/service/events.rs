//! What happened, for the business: rows that are only ever added, in the transaction of what they tell.

use hydrant_records::{RecordsError, Transaction, Value, params};

use crate::proto::Origin;

pub(crate) const COLUMNS: [&str; 9] = [
    "at_ms",
    "kind",
    "outcome",
    "submission",
    "form",
    "store",
    "person",
    "session",
    "detail",
];

/// One event.
pub(crate) struct Event<'a> {
    pub(crate) at_ms: i64,
    /// What was done, as `accepted`.
    pub(crate) kind: &'static str,
    /// How it went: `ok` or `failed`.
    pub(crate) outcome: &'static str,
    pub(crate) submission: &'a str,
    pub(crate) form: &'a str,
    pub(crate) origin: &'a Origin,
    /// More of it: a JSON object.
    pub(crate) detail: String,
}

impl Event<'_> {
    fn row(&self) -> [Value; 9] {
        params![
            self.at_ms,
            self.kind,
            self.outcome,
            self.submission,
            self.form,
            &self.origin.store,
            &self.origin.user,
            &self.origin.session,
            &self.detail,
        ]
    }
}

/// Puts events on record.
pub(crate) async fn put(tx: &mut Transaction, events: &[Event<'_>]) -> Result<(), RecordsError> {
    let rows: Vec<_> = events.iter().map(Event::row).collect();
    tx.insert_new("audit_events", &COLUMNS, &rows).await?;
    Ok(())
}
