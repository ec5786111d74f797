//! Which submissions the database of the other data centre does not have yet: it follows the primary, and how
//! closely is asked of itself.

use std::collections::HashSet;

use hydrant_records::{Records, RecordsError, Transaction, params, read, transaction};

/// Transactions are not committed in the order of the times of their events. By so much a later one may be there
/// before an earlier one.
const OUT_OF_ORDER_MS: i64 = 60_000;
/// How many are compared one by one; of more only the number is told.
const MOST: i64 = 10_000;

/// What is in the primary only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) count: u64,
    /// When the oldest was accepted.
    pub(super) oldest_ms: Option<i64>,
}

/// Compares the follower with the primary. While the follower does not answer, all counts that came since it was
/// known to follow.
pub(super) async fn behind(primary: &Records, follower: &Records) -> Result<Behind, RecordsError> {
    let Ok(newest) = newest(follower).await else {
        let since = read!(primary, |tx| last_known(tx).await)?;
        return read!(primary, |tx| count(tx, since.unwrap_or(0)).await);
    };
    let from = newest.saturating_sub(OUT_OF_ORDER_MS);
    let here = read!(primary, |tx| accepted(tx, from).await)?;
    if here.len() as i64 > MOST {
        return read!(primary, |tx| count(tx, newest).await);
    }
    let there = read!(follower, |tx| accepted(tx, from).await)?;
    Ok(missing(&here, &there))
}

/// Puts on record how far the follower has come, for the time when it does not answer.
pub(super) async fn note(primary: &Records, follower: &Records) -> Result<(), RecordsError> {
    let newest = newest(follower).await?;
    transaction!(primary, |tx| {
        if last_known(tx).await? != Some(newest) {
            let row = params![1, newest];
            tx.upsert("submission_follower", &["id"], &["at_ms"], &[row])
                .await?;
        }
        Ok::<_, RecordsError>(())
    })
}

async fn newest(records: &Records) -> Result<i64, RecordsError> {
    let select = "SELECT MAX(at_ms) FROM audit_events";
    let rows = read!(records, |tx| tx.query(select, &[]).await)?;
    let newest = rows.first().map(|row| row.get::<Option<i64>>(0));
    Ok(newest.transpose()?.flatten().unwrap_or(0))
}

async fn last_known(tx: &mut Transaction) -> Result<Option<i64>, RecordsError> {
    let select = "SELECT at_ms FROM submission_follower WHERE id = 1";
    let rows = tx.query(select, &[]).await?;
    rows.first().map(|row| row.get(0)).transpose()
}

async fn accepted(tx: &mut Transaction, from: i64) -> Result<Vec<(String, i64)>, RecordsError> {
    let select = "SELECT submission, at_ms FROM audit_events \
                  WHERE at_ms >= ? AND kind = 'accepted' ORDER BY at_ms LIMIT ?";
    let rows = tx.query(select, &params![from, MOST + 1]).await?;
    let read = rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?)));
    read.collect()
}

async fn count(tx: &mut Transaction, after: i64) -> Result<Behind, RecordsError> {
    let select =
        "SELECT COUNT(*), MIN(at_ms) FROM audit_events WHERE at_ms > ? AND kind = 'accepted'";
    let rows = tx.query(select, &params![after]).await?;
    let Some(row) = rows.first() else {
        return Ok(Behind::default());
    };
    Ok(Behind {
        count: row.get::<i64>(0)? as u64,
        oldest_ms: row.get(1)?,
    })
}

/// Those of `here`, oldest first, that are not there.
fn missing(here: &[(String, i64)], there: &[(String, i64)]) -> Behind {
    let there: HashSet<&str> = there.iter().map(|(id, _)| id.as_str()).collect();
    let missing = here.iter().filter(|(id, _)| !there.contains(id.as_str()));
    let mut times = missing.map(|(_, at)| *at);
    let oldest_ms = times.next();
    Behind {
        count: u64::from(oldest_ms.is_some()) + times.count() as u64,
        oldest_ms,
    }
}

#[cfg(test)]
mod tests {
    use hydrant_records::Config;

    use super::*;
    use crate::service::TABLES;

    async fn database(folder: &tempfile::TempDir, name: &str) -> Records {
        let url = format!("sqlite:{}", folder.path().join(name).display());
        let records = Records::open(Config::new(&url).unwrap());
        TABLES.make(&records).await.unwrap();
        records
    }

    async fn accept(records: &Records, id: &str, at: i64) {
        let done: Result<(), RecordsError> = transaction!(records, |tx| {
            let insert = "INSERT INTO submissions (id, nonce, form, state, version, fingerprint, fields, store, \
                          person, session, accepted_ms, hops, hop_hash) \
                          VALUES (?, '', 'demo', 'open', 1, '', '{}', '', '', '', ?, 0, '')";
            tx.execute(insert, &params![id, at]).await?;
            let insert = "INSERT INTO audit_events (at_ms, kind, outcome, submission, form, store, person, \
                          session, detail) VALUES (?, 'accepted', 'ok', ?, 'demo', '', '', '', '{}')";
            tx.execute(insert, &params![at, id]).await?;
            Ok(())
        });
        done.unwrap();
    }

    #[tokio::test]
    async fn what_the_follower_does_not_have_is_counted_also_out_of_order() {
        let folder = tempfile::tempdir().unwrap();
        let (primary, follower) = (database(&folder, "a").await, database(&folder, "b").await);
        assert_eq!(
            behind(&primary, &follower).await.unwrap(),
            Behind::default()
        );
        for (number, at) in [(1, 1000), (2, 2000), (3, 3000), (4, 4000)] {
            accept(&primary, &format!("id-{number}"), at).await;
        }
        // The second was committed after the third, and has not come over yet.
        accept(&follower, "id-1", 1000).await;
        accept(&follower, "id-3", 3000).await;
        let expected = Behind {
            count: 2,
            oldest_ms: Some(2000),
        };
        assert_eq!(behind(&primary, &follower).await.unwrap(), expected);
        accept(&follower, "id-2", 2000).await;
        accept(&follower, "id-4", 4000).await;
        assert_eq!(
            behind(&primary, &follower).await.unwrap(),
            Behind::default()
        );
    }

    #[tokio::test]
    async fn while_the_follower_is_away_all_counts_that_came_since() {
        let folder = tempfile::tempdir().unwrap();
        let (primary, follower) = (database(&folder, "a").await, database(&folder, "b").await);
        for records in [&primary, &follower] {
            accept(records, "id-1", 1000).await;
        }
        note(&primary, &follower).await.unwrap();
        accept(&primary, "id-2", 2000).await;
        accept(&primary, "id-3", 3000).await;
        let away = Config::new("mysql://nobody@127.0.0.1:1/none").unwrap();
        let away = Records::open(away).within(std::time::Duration::from_millis(200));
        note(&primary, &away).await.unwrap_err();
        let expected = Behind {
            count: 2,
            oldest_ms: Some(2000),
        };
        assert_eq!(behind(&primary, &away).await.unwrap(), expected);
    }
}
