//! What differs between the databases means the same.

use super::{Subject, count, counter, set_counters};
use crate::{Constraint, Kind, Records, RecordsError, Value, params, read, transaction};

async fn insert(records: &Records, id: i64, n: i64) -> Result<u64, RecordsError> {
    let sql = "INSERT INTO counter (id, n) VALUES (?, ?)";
    transaction!(records, |tx| tx.execute(sql, &params![id, n]).await)
}

/// `upsert` inserts what is not there and changes what is.
pub async fn rows_are_inserted_or_changed(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 10), (2, 20)]).await;
    set_counters(&records, &[(2, 21), (3, 30)]).await;
    let mut found = Vec::new();
    for id in 1..=3 {
        found.push(counter(&records, id).await);
    }
    assert_eq!(found, [10, 21, 30]);
    let only_keys: Result<(), RecordsError> = transaction!(records, |tx| {
        tx.upsert("thing", &["name"], &[], &[params!["a"], params!["a"]])
            .await?;
        tx.upsert("thing", &["name"], &[], &[params!["a"]]).await
    });
    only_keys.expect("keys alone are rows too");
    assert_eq!(count(&records, "SELECT COUNT(*) FROM thing").await, 1);
}

/// `insert_new` leaves what is there, and says how many were new.
pub async fn only_new_rows_are_inserted(subject: &Subject) {
    let records = subject.open().await;
    let add = async |rows: &[(i64, i64)]| {
        let rows: Vec<_> = rows.iter().map(|(id, n)| params![*id, *n]).collect();
        let new: Result<u64, RecordsError> = transaction!(records, |tx| tx
            .insert_new("counter", &["id", "n"], &rows)
            .await);
        new.expect("rows can be inserted")
    };
    assert_eq!(add(&[(1, 10), (2, 20)]).await, 2);
    assert_eq!(add(&[(2, 99), (3, 30), (3, 31)]).await, 1);
    assert_eq!(add(&[(1, 99)]).await, 0);
    assert_eq!(add(&[]).await, 0);
    assert_eq!(counter(&records, 2).await, 20);
    assert_eq!(counter(&records, 3).await, 30);
}

/// A row that breaks another rule than that of its key is a failure, and nothing is inserted.
pub async fn a_row_that_does_not_fit_is_no_duplicate(subject: &Subject) {
    let records = subject.open().await;
    for bad in [params![2, None::<i64>], params![2, -1]] {
        let rows = [params![1, 1], bad];
        let tried: Result<u64, RecordsError> = transaction!(records, |tx| tx
            .insert_new("counter", &["id", "n"], &rows)
            .await);
        let kind = tried.expect_err("it does not fit").kind();
        assert!(matches!(kind, Kind::Constraint(_)), "{kind:?}");
        assert_eq!(count(&records, "SELECT COUNT(*) FROM counter").await, 0);
    }
}

/// More rows than fit into one statement.
pub async fn many_rows_go_in_parts(subject: &Subject) {
    let records = subject.open().await;
    let counters: Vec<_> = (0..20_000).map(|id| (id, 1)).collect();
    set_counters(&records, &counters).await;
    assert_eq!(count(&records, "SELECT SUM(n) FROM counter").await, 20_000);
    let large: Vec<_> = (0..4)
        .map(|at| [Value::from(format!("{at}")), Value::from(vec![at; 3 << 20])])
        .collect();
    let put: Result<(), RecordsError> = transaction!(records, |tx| tx
        .upsert("thing", &["name"], &["bytes"], &large)
        .await);
    put.expect("12 MB go in parts");
    assert_eq!(
        count(&records, "SELECT SUM(LENGTH(bytes)) FROM thing").await,
        12 << 20
    );
}

/// The rule that is broken is told apart, and named where the database names it.
pub async fn a_broken_rule_is_named_and_nothing_else(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let broken = async |sql: &'static str| {
        let tried: Result<u64, RecordsError> =
            transaction!(records, |tx| tx.execute(sql, &[]).await);
        tried.expect_err("a rule is broken").kind()
    };
    let twice = insert(&records, 1, 2).await.expect_err("it is there");
    assert!(twice.is_duplicate(), "{twice}");
    let part = "INSERT INTO part (id, whole) VALUES (1, 77)";
    assert_eq!(broken(part).await, Kind::Constraint(Constraint::Reference));
    let null = "INSERT INTO counter (id, n) VALUES (3, NULL)";
    assert_eq!(broken(null).await, Kind::Constraint(Constraint::NotNull));
    let check = "INSERT INTO counter (id, n) VALUES (3, -1)";
    assert_eq!(broken(check).await, Kind::Constraint(Constraint::Check));
}

/// What people see of an error has nothing of statement and values in it.
pub async fn an_error_shows_neither_statement_nor_value(subject: &Subject) {
    let records = subject.open().await;
    let sql = "INSERT INTO thing (name, words) VALUES (?, ?)";
    let values = params!["hush-hush", "very secret"];
    let mut told = Vec::new();
    for statement in [
        sql,
        sql,
        "SELEKT 'very secret'",
        "SELECT * FROM nothing_of_that_name",
    ] {
        let values: &[Value] = if statement == sql { &values } else { &[] };
        let tried: Result<_, RecordsError> =
            transaction!(records, |tx| tx.execute(statement, values).await);
        told.extend(tried.err().map(|error| format!("{error} {error:?}")));
    }
    assert_eq!(told.len(), 3, "{told:?}");
    for text in told {
        for part in ["secret", "hush", "INSERT", "SELE", "nothing_of"] {
            assert!(!text.contains(part), "{text}");
        }
    }
}

/// `read!` is for reading.
pub async fn a_transaction_that_reads_changes_nothing(subject: &Subject) {
    let records = subject.open().await;
    set_counters(&records, &[(1, 1)]).await;
    let tried: Result<_, RecordsError> = read!(records, |tx| tx
        .execute("UPDATE counter SET n = 9", &[])
        .await);
    assert_eq!(
        tried.expect_err("it changes something").kind(),
        Kind::Broken
    );
    assert_eq!(counter(&records, 1).await, 1);
}
