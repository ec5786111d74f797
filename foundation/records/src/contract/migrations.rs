//! Tables are made and changed once, whoever comes first.

use tokio::task::JoinSet;

use super::{Subject, count, within};
use crate::{Kind, Migration, Records, Sql};

const FIRST: Migration = Migration {
    version: 1,
    statements: &[
        Sql::both("CREATE TABLE IF NOT EXISTS done (step BIGINT NOT NULL)"),
        Sql::both("INSERT INTO done (step) VALUES (1)"),
    ],
};
const SECOND: Migration = Migration {
    version: 2,
    statements: &[
        Sql::both("INSERT INTO done (step) VALUES (2)"),
        Sql::each(
            "ALTER TABLE done ADD COLUMN more BIGINT",
            "ALTER TABLE done ADD COLUMN IF NOT EXISTS more BIGINT",
        ),
        Sql::both("UPDATE done SET more = 7"),
    ],
};

const OTHER: Migration = Migration {
    version: 1,
    statements: &[Sql::both("CREATE TABLE IF NOT EXISTS other (a BIGINT)")],
};

async fn steps(records: &Records) -> i64 {
    count(records, "SELECT COUNT(*) FROM done").await
}

/// Eight processes start at the same moment on a new database.
pub async fn of_many_at_once_one_migrates(subject: &Subject) {
    let mut all = JoinSet::new();
    for _ in 0..8 {
        let records = Records::open(subject.config.clone());
        all.spawn(async move { records.migrate("a", &[FIRST, SECOND]).await });
    }
    for done in within("all have migrated", all.join_all()).await {
        done.expect("each finds the tables made");
    }
    assert_eq!(steps(&Records::open(subject.config.clone())).await, 2);
}

/// A migration that was done is not done again.
pub async fn a_migration_is_done_once(subject: &Subject) {
    let records = Records::open(subject.config.clone());
    for _ in 0..3 {
        records
            .migrate("a", &[FIRST])
            .await
            .expect("it can be done");
    }
    assert_eq!(steps(&records).await, 1);
}

/// A newer program does what is missing.
pub async fn later_migrations_follow(subject: &Subject) {
    let records = Records::open(subject.config.clone());
    records.migrate("a", &[FIRST]).await.expect("the first");
    records
        .migrate("a", &[FIRST, SECOND])
        .await
        .expect("the second");
    assert_eq!(steps(&records).await, 2);
    assert_eq!(count(&records, "SELECT MIN(more) FROM done").await, 7);
}

/// An older program does not touch tables that it does not know.
pub async fn newer_tables_are_refused(subject: &Subject) {
    let records = Records::open(subject.config.clone());
    records.migrate("a", &[FIRST, SECOND]).await.expect("both");
    let refused = records.migrate("a", &[FIRST]).await.expect_err("older");
    assert_eq!(refused.kind(), Kind::Broken);
    let told = refused.to_string();
    assert!(
        told.contains("version 2") && told.contains("knows 1"),
        "{told}"
    );
}

/// Services share a database, each with its own tables.
pub async fn services_have_numbers_of_their_own(subject: &Subject) {
    let records = Records::open(subject.config.clone());
    records
        .migrate("a", &[FIRST, SECOND])
        .await
        .expect("of one");
    records.migrate("b", &[OTHER]).await.expect("of another");
    assert_eq!(count(&records, "SELECT COUNT(*) FROM other").await, 0);
    let gap = [FIRST, FIRST];
    let refused = records.migrate("c", &gap).await.expect_err("no number 2");
    assert_eq!(refused.kind(), Kind::Broken);
}
