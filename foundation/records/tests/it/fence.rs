//! Who is not the primary any more writes nothing more, whatever it believes and whichever server it asks.

use std::time::Duration;

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_harness::{Galera, skipped};
use hydrant_records::{
    Config, Fence, FenceRow, Kind, Migration, Records, RecordsError, Sql, params, read, transaction,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[Sql::both(
        "CREATE TABLE IF NOT EXISTS line (id VARCHAR(36) NOT NULL PRIMARY KEY, who BIGINT)",
    )],
}];

fn open(server: &MariaDb) -> Records {
    let mut config = Config::new(&server.url(DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    Records::open(config)
}

fn row(epoch: u64, site: &str, mark: u64) -> FenceRow {
    FenceRow {
        site: site.into(),
        epoch,
        mark,
    }
}

async fn raise(records: &Records, row: &FenceRow) -> FenceRow {
    let mut server = records.server().await.unwrap();
    server.raise_fence(row).await.unwrap()
}

fn believing(records: &Records, epoch: u64, site: &str) -> Records {
    records.fenced(Fence::Open {
        epoch,
        site: site.into(),
        until: Instant::now() + Duration::from_secs(600),
    })
}

async fn insert(records: &Records, id: &str, slow: Duration) -> Result<(), RecordsError> {
    transaction!(records, |tx| {
        tx.execute("INSERT INTO line (id, who) VALUES (?, 1)", &params![id])
            .await?;
        tokio::time::sleep(slow).await;
        Ok(())
    })
}

async fn count(records: &Records) -> i64 {
    let rows = read!(records, |tx| tx
        .query("SELECT COUNT(*) FROM line", &[])
        .await);
    let rows = rows.map_err(|error: RecordsError| error).unwrap();
    rows[0].get(0).unwrap()
}

#[tokio::test]
async fn a_fence_that_is_raised_only_grows_and_refuses_who_believes_in_another_epoch() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return skipped(missing),
    };
    let records = open(&server);
    records.migrate("line", TABLES).await.unwrap();
    assert_eq!(records.fence().await.unwrap(), None);
    let kind = |done: Result<(), RecordsError>| done.unwrap_err().kind();
    let slow = Duration::ZERO;
    let one = believing(&records, 1, "a");
    assert_eq!(
        kind(insert(&one, "x", slow).await),
        Kind::Broken,
        "no row yet"
    );
    assert_eq!(raise(&records, &row(1, "a", 2)).await, row(1, "a", 2));
    insert(&one, "one", slow).await.unwrap();
    assert_eq!(raise(&records, &row(1, "a", 0)).await, row(1, "a", 2));
    assert_eq!(raise(&records, &row(2, "b", 0)).await, row(2, "b", 0));
    assert_eq!(kind(insert(&one, "two", slow).await), Kind::Fenced);
    let other = believing(&records, 2, "a");
    assert_eq!(kind(insert(&other, "three", slow).await), Kind::Fenced);
    assert_eq!(raise(&records, &row(1, "a", 9)).await, row(2, "b", 0));
    insert(&believing(&records, 2, "b"), "four", slow)
        .await
        .unwrap();
    let closed = records.fenced(Fence::Closed("said so".into()));
    let refused = insert(&closed, "five", slow).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.to_string()),
        (Kind::Fenced, "said so".into())
    );
    assert_eq!(count(&closed).await, 2, "reading is free");
}

#[tokio::test]
async fn a_belief_that_is_too_old_writes_nothing_and_ends_what_is_under_way() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return skipped(missing),
    };
    let records = open(&server);
    records.migrate("line", TABLES).await.unwrap();
    raise(&records, &row(1, "a", 2)).await;
    let until = Instant::now() + Duration::from_millis(1500);
    let one = records.fenced(Fence::Open {
        epoch: 1,
        site: "a".into(),
        until,
    });
    insert(&one, "one", Duration::ZERO).await.unwrap();
    assert!(insert(&one, "slow", Duration::from_secs(5)).await.is_err());
    let refused = insert(&one, "late", Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced);
    assert_eq!(count(&records).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_fence_nothing_is_committed_on_any_server_of_a_cluster() {
    let cluster = match Galera::start(2) {
        Ok(cluster) => cluster,
        Err(missing) => return skipped(missing),
    };
    let [one, two] = [0, 1].map(|node| open(cluster.node(node)));
    one.migrate("line", TABLES).await.unwrap();
    raise(&one, &row(1, "a", 2)).await;
    while two.fence().await.ok().flatten() != Some(row(1, "a", 2)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut writers = JoinSet::new();
    for who in 0..4 {
        let records = believing([&one, &two][who % 2], 1, "a");
        writers.spawn(async move {
            let mut kept = 0;
            loop {
                let id = format!("{who}-{kept}");
                match insert(&records, &id, Duration::ZERO).await {
                    Ok(()) => kept += 1,
                    Err(error) if error.kind() == Kind::Fenced => return kept,
                    Err(_) => {}
                }
            }
        });
    }
    // This one is in the middle on the other server, and has its lock, when the fence is raised.
    let slow = believing(&two, 1, "a");
    let slow = tokio::spawn(async move { insert(&slow, "slow", Duration::from_secs(2)).await });
    while count(&one).await < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    raise(&one, &row(2, "b", 0)).await;
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    raise(&one, &row(2, "b", 1)).await;
    let settled = count(&one).await;
    let kept: i64 = writers.join_all().await.into_iter().sum();
    let refused = slow.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced, "{refused}");
    assert_eq!(
        count(&one).await,
        settled,
        "something came behind the fence"
    );
    assert_eq!(
        settled, kept,
        "what was acknowledged is there, and nothing else"
    );
    println!("{kept} lines; the fence was raised in {took:?}");
}
