//! Counts for people who don't know yet what they ask: of the newest events of a window, by each of their
//! values, and by hour.

use std::collections::{BTreeMap, HashMap};

use hydrant_records::{RecordsError, Row, params, read};
use hydrant_sdk::Error;

use super::invalid;
use crate::proto::{
    ExploreRequest, ExploreResponse, Facet, FacetValue, HourOfEvents, ListEventsRequest,
};
use crate::sites::Tables;

/// The longest window.
const LONGEST: i64 = 31 * 24 * HOUR;
const HOUR: i64 = 3_600_000;
/// How many events of the window are looked at: however large the table, the question has an end.
const LOOKED_AT: i64 = 50_000;
/// How many values of each facet are told.
const VALUES: usize = 12;

const FACETS: [&str; 6] = ["kind", "outcome", "form", "store", "user", "session"];

/// The newest events of a window, by an index, and of these what fits.
macro_rules! select {
    ($first:literal) => {
        concat!(
            "SELECT at_ms, kind, outcome, form, store, person, session FROM (\
             SELECT at_ms, kind, outcome, form, store, person, session FROM audit_events WHERE ",
            $first,
            " AND at_ms >= ? AND at_ms < ? ORDER BY at_ms DESC LIMIT ?) AS newest"
        )
    };
}

const ANY: &str = select!("? = ''");
const OF_STORE: &str = select!("store = ?");

/// The counts of what fits a filter.
///
/// # Errors
///
/// If the window has no end, or is too long, or the database does not answer.
pub(super) async fn explore(
    tables: &Tables,
    request: &ExploreRequest,
) -> Result<ExploreResponse, Error> {
    let filter = request.filter.as_option().cloned().unwrap_or_default();
    let (from, until) = window(&filter)?;
    let records = tables.ready().await?;
    let select = if filter.store.is_empty() {
        ANY
    } else {
        OF_STORE
    };
    let params = params![&filter.store, from, until, LOOKED_AT];
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(select, &params).await);
    Ok(count(&rows?, &filter)?)
}

fn window(filter: &ListEventsRequest) -> Result<(i64, i64), Error> {
    let from = filter.from_unix_ms.unwrap_or(i64::MIN);
    let until = filter.until_unix_ms.unwrap_or(i64::MAX);
    let length = until.checked_sub(from).unwrap_or(i64::MAX);
    match (1..=LONGEST).contains(&length) {
        true => Ok((from, until)),
        false => Err(invalid(
            "a window has an end behind its beginning, and at most 31 days",
        )),
    }
}

fn count(rows: &[Row], filter: &ListEventsRequest) -> Result<ExploreResponse, RecordsError> {
    let wanted = [
        &filter.kind,
        &filter.outcome,
        &filter.form,
        &filter.store,
        &filter.user,
        &filter.session,
    ];
    let mut counts = FACETS.map(|_| HashMap::new());
    let mut hours: BTreeMap<i64, HourOfEvents> = BTreeMap::new();
    let mut events = 0;
    for row in rows {
        let (at, values) = values_of(row)?;
        let fits = |(wanted, value): (&&String, &String)| wanted.is_empty() || *wanted == value;
        if !wanted.iter().zip(&values).all(fits) {
            continue;
        }
        events += 1;
        add_hour(&mut hours, at, values[1] == "failed");
        for (counts, value) in counts.iter_mut().zip(values) {
            *counts.entry(value).or_insert(0) += 1;
        }
    }
    let facets = FACETS.into_iter().zip(counts);
    Ok(ExploreResponse {
        facets: facets.map(|(name, counts)| facet(name, counts)).collect(),
        hours: hours.into_values().collect(),
        events,
        more: rows.len() as i64 == LOOKED_AT,
        seen_from_unix_ms: rows.last().map_or(Ok(0), |row| row.get(0))?,
        ..Default::default()
    })
}

fn values_of(row: &Row) -> Result<(i64, [String; 6]), RecordsError> {
    let values = [1, 2, 3, 4, 5, 6].map(|column| row.get::<String>(column));
    let mut read: [String; 6] = Default::default();
    for (read, value) in read.iter_mut().zip(values) {
        *read = value?;
    }
    Ok((row.get(0)?, read))
}

fn add_hour(hours: &mut BTreeMap<i64, HourOfEvents>, at: i64, has_failed: bool) {
    let at_unix_ms = at.div_euclid(HOUR) * HOUR;
    let hour = hours.entry(at_unix_ms).or_insert_with(|| HourOfEvents {
        at_unix_ms,
        ..Default::default()
    });
    match has_failed {
        true => hour.failed += 1,
        false => hour.ok += 1,
    }
}

/// The values that are there most often, the most frequent first.
fn facet(name: &str, counts: HashMap<String, u64>) -> Facet {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(one, a), (other, b)| b.cmp(a).then_with(|| one.cmp(other)));
    let more = counts.len() > VALUES;
    let values = counts.into_iter().take(VALUES);
    Facet {
        name: name.into(),
        values: values
            .map(|(value, count)| FacetValue {
                value,
                count,
                ..Default::default()
            })
            .collect(),
        more,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Origin, RefuseRequest, Refused, ReportDayRequest};
    use crate::service::office::{Office, on_each_database, sent};
    use crate::service::refuse;

    on_each_database!(
        what_happened_is_counted_by_each_value,
        what_happened_is_counted_by_each_value_on_mariadb,
        counts
    );

    fn refused(store: &str, session: &str, reason: &str, count: u64) -> Refused {
        Refused {
            origin: Origin {
                store: store.into(),
                session: session.into(),
                user: "x".repeat(5000),
                ..Default::default()
            }
            .into(),
            form: "f".repeat(5000),
            reasons: [(reason.to_owned(), count)].into_iter().collect(),
            ..Default::default()
        }
    }

    async fn counts(office: &Office) {
        let ids = [office.accept("Ada").await, office.accept("Grace").await];
        office.submit(&ids[0]).await.unwrap();
        let desk = &office.desks[0].0;
        let mut good = sent(&crate::service::office::new_id(), "Bob");
        good.origin = Origin {
            store: "4711".into(),
            session: "mended".into(),
            ..Default::default()
        }
        .into();
        office.desks[0].1.accept(good).await.unwrap();
        let request = RefuseRequest {
            refused: vec![
                refused("4711", "given up", "fields_invalid", 1),
                refused("4711", "given up", "key_reused", 1),
                refused("4711", "mended", "fields_invalid", 1),
                refused("4712", "", "too_large", 990),
            ],
            ..Default::default()
        };
        refuse(desk.clone(), request).await.unwrap();
        let now = desk.clock.unix_ms();
        let filter = ListEventsRequest {
            from_unix_ms: Some(now - HOUR),
            until_unix_ms: Some(now + HOUR),
            ..Default::default()
        };
        let all = ask(desk, &filter).await.unwrap();
        assert_eq!((all.events, all.more), (8, false));
        assert_eq!(
            of(&all, "kind"),
            [("refused", 4), ("accepted", 3), ("submitted", 1)]
        );
        assert_eq!(of(&all, "outcome"), [("failed", 4), ("ok", 4)]);
        let told: u64 = all.hours.iter().map(|hour| hour.ok + hour.failed).sum();
        assert_eq!(told, 8);
        let narrow = ListEventsRequest {
            store: "4711".into(),
            session: "given up".into(),
            ..filter.clone()
        };
        let narrow = ask(desk, &narrow).await.unwrap();
        assert_eq!(
            (narrow.events, of(&narrow, "kind")),
            (2, vec![("refused", 2)])
        );
        let endless = ListEventsRequest {
            until_unix_ms: None,
            ..filter
        };
        assert_eq!(
            ask(desk, &endless).await.unwrap_err().reason,
            "invalid_request"
        );
        is_in_the_report(desk, now).await;
    }

    /// A session of which nothing was accepted has failed; one that was mended has not.
    async fn is_in_the_report(desk: &crate::service::Desk, now: i64) {
        let day = ReportDayRequest {
            from_unix_ms: now - 12 * HOUR,
            until_unix_ms: now + 12 * HOUR,
            ..Default::default()
        };
        let told = super::super::report::day(&desk.tables, &day).await.unwrap();
        let of = |store: &str| told.stores.iter().find(|one| one.store == store).unwrap();
        let one = of("4711");
        assert_eq!((one.sessions, one.failed, one.unfinished), (2, 1, 1));
        assert_eq!((one.refused, one.submissions), (3, 1));
        assert_eq!((of("4712").sessions, of("4712").refused), (0, 1));
    }

    async fn ask(
        desk: &crate::service::Desk,
        filter: &ListEventsRequest,
    ) -> Result<ExploreResponse, Error> {
        let request = ExploreRequest {
            filter: filter.clone().into(),
            ..Default::default()
        };
        explore(&desk.tables, &request).await
    }

    fn of<'a>(told: &'a ExploreResponse, name: &str) -> Vec<(&'a str, u64)> {
        let facet = told.facets.iter().find(|facet| facet.name == name).unwrap();
        let values = facet.values.iter();
        values.map(|one| (one.value.as_str(), one.count)).collect()
    }
}
