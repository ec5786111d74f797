//! The report of a day: by store, and by hour.

use std::collections::BTreeMap;

use hydrant_records::{RecordsError, Row, Sql, params, read};
use hydrant_sdk::Error;

use super::invalid;
use crate::proto::{HourDay, ReportDayRequest, ReportDayResponse, StoreDay};
use crate::sites::Tables;

/// The most stores of one answer.
const STORES: i64 = 20_000;
/// The longest day: one on which clocks are put back has 25 hours.
const LONGEST: i64 = 25 * 3_600_000;

/// Sessions, and submissions by their states: the inner question has a row for each session.
const BY_STORE: &str = "\
    SELECT store, COUNT(*), SUM(CASE WHEN failed = 0 AND unfinished = 0 THEN 1 ELSE 0 END), \
    SUM(CASE WHEN failed > 0 THEN 1 ELSE 0 END), \
    SUM(CASE WHEN failed = 0 AND unfinished > 0 THEN 1 ELSE 0 END), \
    SUM(submissions), SUM(delivered), SUM(parked), SUM(dropped), SUM(under_way), SUM(still_open) \
    FROM (SELECT store, CASE WHEN session = '' THEN id ELSE session END AS one, \
    COUNT(*) AS submissions, \
    SUM(CASE WHEN state = 'delivered' THEN 1 ELSE 0 END) AS delivered, \
    SUM(CASE WHEN state = 'parked' THEN 1 ELSE 0 END) AS parked, \
    SUM(CASE WHEN state = 'dropped' THEN 1 ELSE 0 END) AS dropped, \
    SUM(CASE WHEN state = 'submitted' THEN 1 ELSE 0 END) AS under_way, \
    SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END) AS still_open, \
    SUM(CASE WHEN state IN ('parked', 'dropped') THEN 1 ELSE 0 END) AS failed, \
    SUM(CASE WHEN state IN ('submitted', 'open') THEN 1 ELSE 0 END) AS unfinished \
    FROM submissions WHERE accepted_ms >= ? AND accepted_ms < ? GROUP BY store, one) AS sessions \
    GROUP BY store ORDER BY store LIMIT ?";

/// What was refused, and the sessions of which nothing was accepted.
const REFUSED: &str = "\
    SELECT audit_events.store, COUNT(*), COUNT(DISTINCT CASE WHEN taken.one IS NULL \
    AND audit_events.session <> '' THEN audit_events.session END) \
    FROM audit_events LEFT JOIN (SELECT DISTINCT store, session AS one FROM submissions \
    WHERE accepted_ms >= ? AND accepted_ms < ? AND session <> '') AS taken \
    ON taken.store = audit_events.store AND taken.one = audit_events.session \
    WHERE audit_events.at_ms >= ? AND audit_events.at_ms < ? AND audit_events.kind = 'refused' \
    GROUP BY audit_events.store ORDER BY audit_events.store LIMIT ?";

const BY_HOUR: Sql = Sql::each(
    "SELECT (accepted_ms - ?) / 3600000 AS hour, \
     SUM(CASE WHEN state = 'delivered' THEN 1 ELSE 0 END), \
     SUM(CASE WHEN state IN ('parked', 'dropped') THEN 1 ELSE 0 END), \
     SUM(CASE WHEN state IN ('submitted', 'open') THEN 1 ELSE 0 END) \
     FROM submissions WHERE accepted_ms >= ? AND accepted_ms < ? GROUP BY hour ORDER BY hour",
    "SELECT (accepted_ms - ?) DIV 3600000 AS hour, \
     SUM(CASE WHEN state = 'delivered' THEN 1 ELSE 0 END), \
     SUM(CASE WHEN state IN ('parked', 'dropped') THEN 1 ELSE 0 END), \
     SUM(CASE WHEN state IN ('submitted', 'open') THEN 1 ELSE 0 END) \
     FROM submissions WHERE accepted_ms >= ? AND accepted_ms < ? GROUP BY hour ORDER BY hour",
);

/// What came in during one day, and how it stands now.
///
/// # Errors
///
/// If the times are no day, or the database does not answer.
pub(super) async fn day(
    tables: &Tables,
    request: &ReportDayRequest,
) -> Result<ReportDayResponse, Error> {
    let (from, until) = (request.from_unix_ms, request.until_unix_ms);
    let length = until.checked_sub(from).unwrap_or(i64::MAX);
    if !(1..=LONGEST).contains(&length) {
        return Err(invalid(
            "a day has an end behind its beginning, and at most 25 hours",
        ));
    }
    let records = tables.ready().await?;
    let (stores, hours, refused) = read!(records, |tx| {
        let stores = tx
            .query(BY_STORE, &params![from, until, STORES + 1])
            .await?;
        let hours = tx
            .query(BY_HOUR.clone(), &params![from, from, until])
            .await?;
        let refused = params![from, until, from, until, STORES + 1];
        let refused = tx.query(REFUSED, &refused).await?;
        Ok::<_, RecordsError>((stores, hours, refused))
    })?;
    let more = [&stores, &refused]
        .iter()
        .any(|rows| rows.len() as i64 > STORES);
    let stores = stores.iter().take(STORES as usize).map(read_store);
    let mut stores = stores
        .map(|store| store.map(|store| (store.store.clone(), store)))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    for row in refused.iter().take(STORES as usize) {
        add_refused(&mut stores, row)?;
    }
    Ok(ReportDayResponse {
        stores: stores.into_values().collect(),
        hours: hours.iter().map(read_hour).collect::<Result<_, _>>()?,
        more,
        ..Default::default()
    })
}

fn add_refused(stores: &mut BTreeMap<String, StoreDay>, row: &Row) -> Result<(), RecordsError> {
    let store: String = row.get(0)?;
    let (refused, sessions) = (row.get::<i64>(1)? as u64, row.get::<i64>(2)? as u64);
    let day = stores.entry(store.clone()).or_insert_with(|| StoreDay {
        store,
        ..Default::default()
    });
    day.refused += refused;
    day.sessions += sessions;
    day.failed += sessions;
    Ok(())
}

fn read_store(row: &Row) -> Result<StoreDay, RecordsError> {
    let number = |column| row.get::<i64>(column).map(|number| number as u64);
    Ok(StoreDay {
        store: row.get(0)?,
        sessions: number(1)?,
        succeeded: number(2)?,
        failed: number(3)?,
        unfinished: number(4)?,
        submissions: number(5)?,
        delivered: number(6)?,
        parked: number(7)?,
        dropped: number(8)?,
        under_way: number(9)?,
        open: number(10)?,
        ..Default::default()
    })
}

fn read_hour(row: &Row) -> Result<HourDay, RecordsError> {
    let number = |column| row.get::<i64>(column).map(|number| number as u64);
    Ok(HourDay {
        hour: number(0)? as u32,
        delivered: number(1)?,
        failed: number(2)?,
        unfinished: number(3)?,
        ..Default::default()
    })
}
