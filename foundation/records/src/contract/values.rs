//! What is written is read.

use super::{Subject, count, within};
use crate::{Kind, MAX_VALUE, Records, RecordsError, Row, Value, params, read, transaction};

const COLUMNS: &[&str] = &["number", "real_number", "words", "bytes"];

async fn put(records: &Records, name: &str, values: &[Value]) -> Result<(), RecordsError> {
    let row = [&params![name], values].concat();
    transaction!(records, |tx| tx
        .upsert("thing", &["name"], COLUMNS, &[&row])
        .await)
}

async fn get(records: &Records, name: &str) -> Row {
    let sql = "SELECT number, real_number, words, bytes FROM thing WHERE name = ?";
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(sql, &params![name]).await);
    rows.expect("it can be read").remove(0)
}

/// The beginning of a value.
fn shown(value: &Value) -> String {
    format!("{value:?}").chars().take(80).collect()
}

async fn comes_back(records: &Records, values: &[Value]) {
    put(records, "x", values).await.expect("it can be written");
    let row = get(records, "x").await;
    for (wrote, read) in values.iter().zip(row.values()) {
        assert!(
            wrote == read,
            "{} came back as {}",
            shown(wrote),
            shown(read)
        );
    }
}

/// Numbers at their ends, dates, texts of all scripts, bytes, and nothing.
pub async fn values_come_back_as_they_were(subject: &Subject) {
    let records = subject.open().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for values in [
        params![i64::MAX, f64::MAX, "x", all_bytes],
        params![i64::MIN, f64::MIN_POSITIVE, "", Vec::new()],
        params![-1, -0.1, " ' \" \\ \n\0 % _ ", vec![0u8]],
        params![
            1_795_305_600_123_i64,
            1e-300,
            "日本語 🚀 e\u{301} עברית",
            vec![255u8]
        ],
        params![None::<i64>, None::<f64>, None::<String>, None::<Vec<u8>>],
    ] {
        comes_back(&records, &values).await;
    }
}

/// 4 MB of text and of bytes.
pub async fn large_values_come_back(subject: &Subject) {
    let records = subject.open().await;
    let text = "é🚀.".repeat((4 << 20) / 7);
    let bytes: Vec<u8> = (0..4u32 << 20).map(|at| (at % 251) as u8).collect();
    let row = params![1, 1.5, text, bytes];
    within("large values", comes_back(&records, &row)).await;
}

/// A value of more than [`MAX_VALUE`] is refused before it is sent.
pub async fn a_value_over_the_limit_is_refused(subject: &Subject) {
    let records = subject.open().await;
    let fits = params![
        None::<i64>,
        None::<f64>,
        None::<String>,
        vec![7u8; MAX_VALUE]
    ];
    within("the longest value", comes_back(&records, &fits)).await;
    let values = params![
        None::<i64>,
        None::<f64>,
        None::<String>,
        vec![7u8; MAX_VALUE + 1]
    ];
    let refused = put(&records, "y", &values).await.expect_err("too long");
    assert_eq!(refused.kind(), Kind::Broken);
    assert!(refused.to_string().contains("8 MB"), "{refused}");
    assert_eq!(count(&records, "SELECT COUNT(*) FROM thing").await, 1);
}

/// An answer of more than [`MAX_ROWS`](crate::MAX_ROWS) is refused, and the next question answered.
pub async fn too_many_rows_are_refused(subject: &Subject) {
    let records = subject.open().await;
    let counters: Vec<_> = (0..330).map(|id| (id, 1)).collect();
    super::set_counters(&records, &counters).await;
    let sql = "SELECT a.id FROM counter a CROSS JOIN counter b";
    let asked: Result<_, RecordsError> = read!(records, |tx| tx.query(sql, &[]).await);
    assert_eq!(asked.expect_err("too many").kind(), Kind::Broken);
    assert_eq!(count(&records, "SELECT COUNT(*) FROM counter").await, 330);
}

/// Case, accents, forms of Unicode and blanks at the end all count.
pub async fn keys_differ_by_each_byte(subject: &Subject) {
    let records = subject.open().await;
    let names = ["a", "A", "a ", "á", "a\u{301}", "a\0", "ß", "ss", ""];
    let rows = names.map(|name| params![name]);
    let new: Result<_, RecordsError> =
        transaction!(records, |tx| tx.insert_new("thing", &["name"], &rows).await);
    assert_eq!(new.expect("all are new"), names.len() as u64);
    for name in names {
        let found: Result<_, RecordsError> = read!(records, |tx| {
            tx.query("SELECT name FROM thing WHERE name = ?", &params![name])
                .await
        });
        let found = found.expect("it can be read");
        assert_eq!(found.len(), 1, "{name:?}");
        assert_eq!(found[0].get::<String>(0).as_deref(), Ok(name));
    }
    let sorted: Result<_, RecordsError> = read!(records, |tx| tx
        .query("SELECT name FROM thing ORDER BY name", &[])
        .await);
    let sorted: Vec<String> = sorted
        .unwrap()
        .iter()
        .map(|row| row.get(0).unwrap())
        .collect();
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(sorted, expected);
}

/// A sum of whole numbers is one, an average a number, a sum of nothing is null.
pub async fn sums_and_counts_are_whole_numbers(subject: &Subject) {
    let records = subject.open().await;
    super::set_counters(&records, &[(1, 3), (2, 4)]).await;
    let sql = "SELECT SUM(n), AVG(n), COUNT(*), MAX(n), n > 3, SUM(n) / 2.0 FROM counter";
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(sql, &[]).await);
    let row = rows.expect("they can be asked for").remove(0);
    assert_eq!(row.get::<i64>(0), Ok(7));
    assert_eq!(row.get::<f64>(1), Ok(3.5));
    assert_eq!(row.get::<i64>(2), Ok(2));
    assert_eq!(row.get::<i64>(3), Ok(4));
    assert!(row.get::<bool>(4).is_ok());
    assert_eq!(row.get::<f64>(5), Ok(3.5));
    let sql = "SELECT SUM(n), COUNT(*) FROM counter WHERE id > 9";
    let rows: Result<_, RecordsError> = read!(records, |tx| tx.query(sql, &[]).await);
    let row = rows.expect("they can be asked for").remove(0);
    assert_eq!(row.get::<Option<i64>>(0), Ok(None));
    assert_eq!(row.get::<i64>(1), Ok(0));
}
