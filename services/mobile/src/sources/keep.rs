//! The last good values in the service's own tables: a shared state that is lost, or begun anew, gets
//! them again, also while the upstream is away.

use std::collections::BTreeMap;
use std::time::Duration;

use hydrant_records::{Migration, Records, RecordsError, Sql, params, read, transaction};
use hydrant_sdk::Error;
use tokio::sync::watch;

use crate::service::Desk;
use crate::sources::snapshot::Good;

/// How long to wait after a value could not be kept.
const AGAIN: Duration = Duration::from_secs(2);
/// A value that changes all the time is kept so often, at most.
const SPACING: Duration = Duration::from_secs(1);

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    statements: &[Sql::both(
        "CREATE TABLE IF NOT EXISTS mobile_sources (\
         name VARCHAR(100) PRIMARY KEY, as_of BIGINT NOT NULL, good LONGTEXT NOT NULL)",
    )],
}];
const LOAD: &str = "SELECT name, good FROM mobile_sources";
const AS_OF: &str = "SELECT as_of FROM mobile_sources WHERE name = ?";

/// The newest good values, by source.
pub(crate) type Goods = BTreeMap<String, Good>;

/// All values that the tables have; none without tables.
pub(crate) async fn load(desk: &Desk) -> Result<Goods, Error> {
    if !desk.has_tables() {
        return Ok(Goods::new());
    }
    Ok(load_from(tables(desk).await?).await?)
}

async fn load_from(records: &Records) -> Result<Goods, RecordsError> {
    let rows = read!(records, |tx| tx.query(LOAD, &[]).await)?;
    let mut goods = Goods::new();
    for row in rows {
        let (name, text): (String, String) = (row.get(0)?, row.get(1)?);
        if let Ok(good) = serde_json::from_str(&text) {
            goods.insert(name, good);
        }
    }
    Ok(goods)
}

/// Keeps what is new, again and again. A database that is away loses nothing: what is newest is kept
/// when it is back.
pub(crate) async fn keep(desk: &Desk, mut newest: watch::Receiver<Goods>) {
    if !desk.has_tables() {
        return std::future::pending().await;
    }
    let mut kept: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let goods = newest.borrow_and_update().clone();
        let is_new = |(name, good): &(&String, &Good)| kept.get(*name) != Some(&good.as_of);
        let new: Goods = goods
            .iter()
            .filter(is_new)
            .map(|(name, good)| (name.clone(), good.clone()))
            .collect();
        match write(desk, &new).await {
            Ok(()) => kept.extend(new.into_iter().map(|(name, good)| (name, good.as_of))),
            Err(error) => {
                tracing::debug!(%error, "the values of sources can't be kept; trying again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        tokio::time::sleep(SPACING).await;
        if newest.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn write(desk: &Desk, goods: &Goods) -> Result<(), Error> {
    if goods.is_empty() {
        return Ok(());
    }
    let records = tables(desk).await?;
    for (name, good) in goods {
        write_one(records, name, good).await?;
    }
    Ok(())
}

/// An older value never replaces a newer one: a leader that was one may come late.
async fn write_one(records: &Records, name: &str, good: &Good) -> Result<(), RecordsError> {
    let text = serde_json::to_string(good).unwrap_or_default();
    transaction!(records, |tx| {
        let known = tx.lock(AS_OF, &params![name]).await?;
        let known = known.first().map(|row| row.get::<i64>(0)).transpose()?;
        if known.is_none_or(|known| known < good.as_of) {
            let row = params![name, good.as_of, text.clone()];
            tx.upsert("mobile_sources", &["name"], &["as_of", "good"], &[row])
                .await?;
        }
        Ok::<(), RecordsError>(())
    })
}

async fn tables(desk: &Desk) -> Result<&Records, Error> {
    let records = desk.records().await?;
    make_tables(records).await?;
    Ok(records)
}

/// Makes the table of last good values when it is missing.
pub(crate) async fn make_tables(records: &Records) -> Result<(), RecordsError> {
    records.migrate("mobile-sources", MIGRATIONS).await
}

#[cfg(test)]
mod tests {
    use hydrant_records::Config;
    use serde_json::value::RawValue;

    use super::*;
    use crate::sources::snapshot::Validator;

    fn good(text: &str, as_of: i64) -> Good {
        Good {
            value: RawValue::from_string(text.into()).unwrap(),
            as_of,
            validator: Validator::default(),
        }
    }

    #[tokio::test]
    async fn the_newest_value_is_kept_whoever_comes_late() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("a.db").display());
        let records = Records::open(Config::new(&url).unwrap());
        records.migrate("mobile-sources", MIGRATIONS).await.unwrap();
        for (text, as_of) in [("1", 10), ("2", 20), ("3", 15)] {
            write_one(&records, "catalog", &good(text, as_of))
                .await
                .unwrap();
        }
        let goods = load_from(&records).await.unwrap();
        assert_eq!(goods["catalog"], good("2", 20));
    }
}
