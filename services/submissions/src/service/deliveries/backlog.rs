//! How much waits for each consumer, and since when.

use std::collections::BTreeMap;

use hydrant_records::{RecordsError, Row, params, read};
use hydrant_sdk::Error;

use crate::proto::{BacklogResponse, ConsumerBacklog};
use crate::service::Desk;

/// Counts what is under way, by consumer.
///
/// # Errors
///
/// If the database does not answer.
pub(super) async fn backlog(desk: &Desk) -> Result<BacklogResponse, Error> {
    let records = desk.tables.ready().await?;
    let select = "SELECT consumer, state, COUNT(*), MIN(submitted_ms) FROM submission_steps \
                  WHERE state IN ('ready', 'leased', 'waiting', 'parked') \
                  GROUP BY state, consumer";
    let rows = read!(records, |tx| tx.query(select, &params![]).await)?;
    let mut consumers = BTreeMap::new();
    for row in &rows {
        count(&mut consumers, row)?;
    }
    Ok(BacklogResponse {
        consumers: consumers.into_values().collect(),
        ..Default::default()
    })
}

fn count(consumers: &mut BTreeMap<String, ConsumerBacklog>, row: &Row) -> Result<(), RecordsError> {
    let name: String = row.get(0)?;
    let (count, oldest) = (row.get::<i64>(2)? as u64, row.get::<i64>(3)?);
    let one = consumers.entry(name.clone()).or_default();
    one.consumer = name;
    match row.get::<String>(1)?.as_str() {
        "ready" => one.ready = count,
        "leased" => one.leased = count,
        "parked" => one.parked = count,
        _ => one.waiting = count,
    }
    let known = one.oldest_unix_ms.unwrap_or(oldest);
    one.oldest_unix_ms = Some(known.min(oldest));
    Ok(())
}
