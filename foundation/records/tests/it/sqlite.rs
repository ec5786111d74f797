//! SQLite alone.

use hydrant_records::{Config, Migration, Records, RecordsError, Sql, params, read, transaction};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    statements: &[Sql::both(
        "CREATE TABLE IF NOT EXISTS visitor (name VARCHAR(100) PRIMARY KEY, visits BIGINT NOT NULL)",
    )],
}];

#[tokio::test]
async fn it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/a/b.db", folder.path().display());
    let records = Records::open(Config::new(&url).unwrap());
    records.migrate("visitors", MIGRATIONS).await.unwrap();
    let name = String::from("Ann");
    let spawned = tokio::spawn(async move {
        for _ in 0..3 {
            transaction!(records, |tx| {
                let known = tx
                    .lock("SELECT visits FROM visitor WHERE name = ?", &params![&name])
                    .await?;
                let visits = known.first().map_or(Ok(0), |row| row.get::<i64>(0))? + 1;
                tx.upsert("visitor", &["name"], &["visits"], &[params![&name, visits]])
                    .await?;
                Ok::<i64, RecordsError>(visits)
            })
            .unwrap();
        }
        records
    });
    let records = spawned.await.unwrap();
    let rows = read!(records, |tx| tx
        .query("SELECT name, visits FROM visitor", &[])
        .await)
    .unwrap();
    assert_eq!(rows[0].get::<i64>(1).unwrap(), 3);
    records.ping().await.unwrap();
    records.close().await;
}
