//! Transactions in each other's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Subject, count, counter, set_counters, within};
use crate::{Kind, Records, RecordsError, Transaction, params, read, transaction};

const READ: &str = "SELECT n FROM counter WHERE id = ?";
const WRITE: &str = "UPDATE counter SET n = ? WHERE id = ?";

async fn get(tx: &mut Transaction, id: i64) -> Result<i64, RecordsError> {
    let rows = tx.query(READ, &params![id]).await?;
    rows.first().map_or(Ok(0), |row| row.get(0))
}

async fn set(tx: &mut Transaction, id: i64, n: i64) -> Result<(), RecordsError> {
    tx.execute(WRITE, &params![n, id]).await.map(drop)
}

/// An error of the work takes back what the work did.
pub async fn an_error_takes_everything_back(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let tried: Result<(), RecordsError> = transaction!(records, |tx| {
        set(tx, 1, 2).await?;
        Err(RecordsError::broken("no, better not"))
    });
    assert_eq!(tried.unwrap_err().to_string(), "no, better not");
    assert_eq!(counter(&records, 1).await, 1);
}

/// Work whose caller has gone away is taken back, and holds up nobody.
pub async fn a_transaction_that_is_dropped_is_taken_back(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let (other, wrote) = (records.clone(), Arc::new(Barrier::new(2)));
    let told = wrote.clone();
    let work = tokio::spawn(async move {
        let never: Result<(), RecordsError> = transaction!(other, |tx| {
            set(tx, 1, 2).await?;
            told.wait().await;
            std::future::pending().await
        });
        never
    });
    within("it has written", wrote.wait()).await;
    work.abort();
    let next: Result<(), RecordsError> = transaction!(records, |tx| {
        let n = get(tx, 1).await?;
        set(tx, 1, n + 10).await
    });
    next.expect("the next may write");
    assert_eq!(counter(&records, 1).await, 11);
}

/// A broken rule takes back its own statement, and the work may go on.
pub async fn a_broken_rule_leaves_the_rest(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let done: Result<bool, RecordsError> = transaction!(records, |tx| {
        set(tx, 1, 5).await?;
        let again = "INSERT INTO counter (id, n) VALUES (1, 7)";
        let refused = tx.execute(again, &[]).await;
        Ok(refused.is_err_and(|error| error.is_duplicate()))
    });
    assert_eq!(done, Ok(true));
    assert_eq!(counter(&records, 1).await, 5);
}

/// Many processes read a number and write one more: each counts.
pub async fn no_update_is_lost(subject: &Subject) {
    let (processes, tasks, rounds) = (2, 3, 10);
    let first = subject.open().await;
    set_counters(&first, &[(1, 0)]).await;
    let mut all = JoinSet::new();
    for _ in 0..processes {
        let records = subject.open_with(Duration::from_secs(60));
        for _ in 0..tasks {
            let records = records.clone();
            all.spawn(async move {
                for _ in 0..rounds {
                    let added: Result<(), RecordsError> = transaction!(records, |tx| {
                        let n = get(tx, 1).await?;
                        set(tx, 1, n + 1).await
                    });
                    added.expect("one more");
                }
            });
        }
    }
    within("all have counted", all.join_all()).await;
    assert_eq!(counter(&first, 1).await, processes * tasks * rounds);
}

/// Two transactions each read what the other writes: as if one came behind the other. Of two
/// doctors on call only one goes home.
pub async fn what_was_read_still_holds_at_the_commit(subject: &Subject) {
    let records = [
        subject.open().await,
        subject.open_with(Duration::from_secs(30)),
    ];
    for round in 0..10 {
        set_counters(&records[0], &[(1, 1), (2, 1)]).await;
        let mut all = JoinSet::new();
        for (own, records) in [1, 2].into_iter().zip(records.clone()) {
            all.spawn(async move {
                let home: Result<(), RecordsError> = transaction!(records, |tx| {
                    let on_call = get(tx, 1).await? + get(tx, 2).await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if on_call > 1 {
                        set(tx, own, 0).await?;
                    }
                    Ok(())
                });
                home.expect("each decides");
            });
        }
        within("both have decided", all.join_all()).await;
        let left = count(&records[0], "SELECT SUM(n) FROM counter").await;
        assert_eq!(left, 1, "in round {round}");
    }
}

/// While an amount goes to and fro, every reader finds the same sum.
pub async fn a_read_is_of_one_moment(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 100), (2, 0)]).await;
    let writer = subject.open_with(Duration::from_secs(30));
    let moves = tokio::spawn(async move {
        for round in 0..30 {
            let (from, to) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
            let moved: Result<(), RecordsError> = transaction!(writer, |tx| {
                set(tx, from, 0).await?;
                set(tx, to, 100).await
            });
            moved.expect("the amount is moved");
        }
    });
    while !moves.is_finished() {
        let sum: Result<i64, RecordsError> = read!(records, |tx| {
            let first = get(tx, 1).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(first + get(tx, 2).await?)
        });
        assert_eq!(sum, Ok(100));
    }
    moves.await.expect("all moves are done");
}

/// Two that want the same rows in opposite order: where that is a deadlock one of them is run
/// again, and both happen.
pub async fn transactions_in_each_others_way_all_happen(subject: &Subject) {
    let records = [
        subject.open().await,
        subject.open_with(Duration::from_secs(30)),
    ];
    set_counters(&records[0], &[(1, 0), (2, 0)]).await;
    let attempts = Arc::new(AtomicU32::new(0));
    let mut all = JoinSet::new();
    for (records, order) in records.clone().into_iter().zip([[1, 2], [2, 1]]) {
        let attempts = attempts.clone();
        all.spawn(async move {
            let done: Result<(), RecordsError> = transaction!(records, |tx| {
                attempts.fetch_add(1, Ordering::Relaxed);
                for id in order {
                    let add = "UPDATE counter SET n = n + 1 WHERE id = ?";
                    tx.execute(add, &params![id]).await?;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Ok(())
            });
            done.expect("both happen");
        });
    }
    within("both are done", all.join_all()).await;
    assert_eq!(counter(&records[0], 1).await, 2);
    assert_eq!(counter(&records[0], 2).await, 2);
    println!("{} attempts", attempts.load(Ordering::Relaxed));
}

/// Holds a counter until it is told to let go.
async fn hold(records: Records, id: i64, held: Arc<Barrier>, until: Arc<Barrier>) {
    let done: Result<(), RecordsError> = transaction!(records, |tx| {
        set(tx, id, 5).await?;
        held.wait().await;
        until.wait().await;
        Ok(())
    });
    done.expect("it may hold it");
}

/// Who waits for a row that another holds gives up at the deadline, and says so.
pub async fn a_wait_for_others_has_an_end(subject: &Subject) {
    let holder = subject.open().await;
    set_counters(&holder, &[(1, 1)]).await;
    let (held, until) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let holding = tokio::spawn(hold(holder.clone(), 1, held.clone(), until.clone()));
    within("the row is held", held.wait()).await;
    let other = subject.open_with(Duration::from_millis(1200));
    let start = Instant::now();
    let tried: Result<(), RecordsError> = transaction!(other, |tx| set(tx, 1, 9).await);
    let kind = tried.expect_err("it is held").kind();
    assert!(
        matches!(kind, Kind::Unavailable | Kind::Conflict),
        "{kind:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    // Reading waits for nobody.
    assert_eq!(counter(&other, 1).await, 1);
    within("it lets go", until.wait()).await;
    holding.await.expect("it has let go");
    assert_eq!(counter(&other, 1).await, 5);
}

/// Work that is not done by the deadline has not happened.
pub async fn work_that_takes_too_long_is_taken_back(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let hasty = subject.open_with(Duration::from_millis(800));
    let tried: Result<(), RecordsError> = transaction!(hasty, |tx| {
        set(tx, 1, 2).await?;
        std::future::pending().await
    });
    assert_eq!(tried.expect_err("too long").kind(), Kind::Unavailable);
    let next: Result<i64, RecordsError> = transaction!(records, |tx| {
        let n = get(tx, 1).await?;
        set(tx, 1, n + 10).await?;
        Ok(n)
    });
    assert_eq!(next, Ok(1));
}

/// More work at a time than connections, and all is done.
pub async fn connections_are_lent_in_turn(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let mut all = JoinSet::new();
    for _ in 0..40 {
        let records = records.clone();
        all.spawn(async move {
            let found: Result<i64, RecordsError> = read!(records, |tx| {
                tokio::time::sleep(Duration::from_millis(5)).await;
                get(tx, 1).await
            });
            assert_eq!(found, Ok(1));
        });
    }
    within("all have read", all.join_all()).await;
}
