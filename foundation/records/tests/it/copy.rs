//! Tables go from SQLite to MariaDB as they are.

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_records::{
    Config, Migration, Records, RecordsError, Sql, compare_tables, copy_table, params, transaction,
};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both("CREATE TABLE IF NOT EXISTS head (id BIGINT NOT NULL PRIMARY KEY, n BIGINT)"),
        Sql::each(
            "INSERT OR IGNORE INTO head (id, n) VALUES (1, 0)",
            "INSERT IGNORE INTO head (id, n) VALUES (1, 0)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS a_part (name VARCHAR(100) NOT NULL PRIMARY KEY, \
             head BIGINT NOT NULL, words LONGTEXT, bytes LONGBLOB, real_number DOUBLE, \
             FOREIGN KEY (head) REFERENCES head (id))",
        ),
    ],
}];

async fn sqlite(folder: &std::path::Path, name: &str) -> Records {
    let url = format!("sqlite:{}/{name}", folder.display());
    let records = Records::open(Config::new(&url).unwrap());
    records.migrate("a", TABLES).await.unwrap();
    records
}

async fn fill(records: &Records) {
    let rows: Vec<_> = (0..1200)
        .map(|n| {
            let words = (n % 3 > 0).then(|| format!("größe 🚀 {n}"));
            params![
                format!("n{n} "),
                1,
                words,
                vec![n as u8; 5],
                f64::from(n) / 7.0
            ]
        })
        .collect();
    let columns = ["head", "words", "bytes", "real_number"];
    let done: Result<(), RecordsError> = transaction!(records, |tx| {
        tx.execute("UPDATE head SET n = 7", &[]).await?;
        tx.upsert("a_part", &["name"], &columns, &rows).await
    });
    done.unwrap();
}

async fn goes_over(from: &Records, to: &Records, fresh: &Records) {
    let states = compare_tables(from, to, fresh).await.unwrap();
    let told: Vec<_> = states
        .iter()
        .map(|s| (&*s.name, s.found, s.same, s.new))
        .collect();
    assert_eq!(
        told,
        [("a_part", 1200, false, true), ("head", 1, false, true)]
    );
    for state in &states {
        copy_table(from, to, &state.name).await.unwrap();
    }
    let states = compare_tables(from, to, fresh).await.unwrap();
    assert!(
        states.iter().all(|state| state.same && !state.new),
        "{states:?}"
    );
    let change = "UPDATE a_part SET words = 'x' WHERE name = 'n7 '";
    let done: Result<u64, RecordsError> = transaction!(to, |tx| tx.execute(change, &[]).await);
    assert_eq!(done, Ok(1));
    let states = compare_tables(from, to, fresh).await.unwrap();
    assert!(!states[0].same && !states[0].new, "a change is seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sqlite_to_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(folder.path(), "from").await;
    fill(&from).await;
    let to = sqlite(folder.path(), "to").await;
    goes_over(&from, &to, &sqlite(folder.path(), "fresh").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sqlite_to_mariadb() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return hydrant_harness::skipped(missing),
    };
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(folder.path(), "from").await;
    fill(&from).await;
    let mut config = Config::new(&server.url(DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    let to = Records::open(config);
    let fresh = sqlite(folder.path(), "fresh").await;
    let refused = compare_tables(&from, &to, &fresh).await.unwrap_err();
    assert!(refused.to_string().contains("no table a_part"), "{refused}");
    to.migrate("a", TABLES).await.unwrap();
    goes_over(&from, &to, &fresh).await;
}
