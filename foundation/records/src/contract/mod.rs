//! The contract suite: one function for each promise, run on every kind of database.
//!
//! A database says how it is reached, and gets one test for each promise:
//!
//! ```text
//! hydrant_records::records_contract!(open());
//! ```
//!
//! where `open()` gives a [`Subject`] that is empty, or none where there is no such database. The
//! test crate depends on `tokio`.

pub mod conflicts;
pub mod migrations;
pub mod statements;
pub mod values;

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use crate::{Config, Migration, Records, RecordsError, Sql, params, read, transaction};

/// An empty database under test.
pub struct Subject {
    /// How it is reached. Each [`Records`] that is opened by it stands for a process of its own.
    pub config: Config,
    /// What has to live as long as it is used.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    async fn open(&self) -> Records {
        let records = Records::open(self.config.clone());
        within("the tables are made", records.migrate("contract", TABLES))
            .await
            .expect("the tables can be made");
        records
    }

    fn open_with(&self, deadline: Duration) -> Records {
        Records::open(Config {
            deadline,
            ..self.config.clone()
        })
    }
}

/// The tables of the suite.
const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS thing (name VARCHAR(190) NOT NULL PRIMARY KEY, \
             number BIGINT, real_number DOUBLE, words LONGTEXT, bytes LONGBLOB)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS counter (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL, \
             CHECK (n >= 0))",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS part (id BIGINT NOT NULL PRIMARY KEY, whole BIGINT NOT NULL, \
             FOREIGN KEY (whole) REFERENCES counter (id))",
        ),
    ],
}];

/// How long a promise may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

async fn set_counters(records: &Records, counters: &[(i64, i64)]) {
    let rows: Vec<_> = counters.iter().map(|(id, n)| params![*id, *n]).collect();
    transaction!(records, |tx| tx
        .upsert("counter", &["id"], &["n"], &rows)
        .await)
    .expect("counters can be set");
}

async fn counter(records: &Records, id: i64) -> i64 {
    let found = read!(records, |tx| {
        tx.query("SELECT n FROM counter WHERE id = ?", &params![id])
            .await
    });
    let found: Vec<crate::Row> = found.expect("a counter can be read");
    found[0].get(0).expect("it is a number")
}

async fn count(records: &Records, select: &'static str) -> i64 {
    let found: Result<_, RecordsError> = read!(records, |tx| tx.query(select, &[]).await);
    found.expect("rows can be counted")[0]
        .get(0)
        .expect("it is a number")
}

/// Makes one test of each promise of the suite.
#[macro_export]
macro_rules! records_contract {
    ($open:expr) => {
        $crate::records_contract! { tests $open, values:
            values_come_back_as_they_were
            large_values_come_back
            a_value_over_the_limit_is_refused
            too_many_rows_are_refused
            keys_differ_by_each_byte
            sums_and_counts_are_whole_numbers
        }
        $crate::records_contract! { tests $open, statements:
            rows_are_inserted_or_changed
            only_new_rows_are_inserted
            a_row_that_does_not_fit_is_no_duplicate
            many_rows_go_in_parts
            a_broken_rule_is_named_and_nothing_else
            an_error_shows_neither_statement_nor_value
            a_transaction_that_reads_changes_nothing
        }
        $crate::records_contract! { tests $open, conflicts:
            an_error_takes_everything_back
            a_transaction_that_is_dropped_is_taken_back
            a_broken_rule_leaves_the_rest
            no_update_is_lost
            what_was_read_still_holds_at_the_commit
            a_read_is_of_one_moment
            transactions_in_each_others_way_all_happen
            a_wait_for_others_has_an_end
            work_that_takes_too_long_is_taken_back
            connections_are_lent_in_turn
        }
        $crate::records_contract! { tests $open, migrations:
            of_many_at_once_one_migrates
            a_migration_is_done_once
            later_migrations_follow
            newer_tables_are_refused
            services_have_numbers_of_their_own
        }
    };
    (tests $open:expr, $part:ident: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some(subject) = $open {
                    $crate::contract::$part::$promise(&subject).await;
                }
            }
        )*
    };
}
