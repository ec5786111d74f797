//! SQL for services that own tables: one way to ask, over SQLite by default and MariaDB by its URL.
//!
//! ```no_run
//! # use hydrant_records::{Config, Migration, Records, RecordsError, Sql, params, transaction};
//! # async fn example() -> Result<(), RecordsError> {
//! const MIGRATIONS: &[Migration] = &[Migration {
//!     version: 1,
//!     statements: &[Sql::both(
//!         "CREATE TABLE IF NOT EXISTS visitor (name VARCHAR(100) PRIMARY KEY, visits BIGINT NOT NULL)",
//!     )],
//! }];
//!
//! let records = Records::open(Config::new("sqlite:/var/lib/visitors.db")?);
//! records.migrate("visitors", MIGRATIONS).await?;
//! let name = "Ann";
//! let visits = transaction!(records, |tx| {
//!     let known = tx.lock("SELECT visits FROM visitor WHERE name = ?", &params![name]).await?;
//!     let visits = known.first().map_or(Ok(0), |row| row.get::<i64>(0))? + 1;
//!     tx.upsert("visitor", &["name"], &["visits"], &[params![name, visits]]).await?;
//!     Ok::<i64, RecordsError>(visits)
//! })?;
//! # let _ = visits;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds on both databases
//!
//! - A transaction is serializable: what it read is still so when it commits, or it is run again.
//!   Its body may therefore run several times and does nothing that it could not do twice. It
//!   is repeated on conflicts and on connections that broke before the commit, with jittered
//!   waits, until its [time](Config::deadline) is over.
//! - What is committed is on disk. When the answer to a commit did not come, the error says
//!   [`Uncertain`](Kind::Uncertain), and nothing is repeated.
//! - Texts are compared by their bytes: case, accents and trailing blanks count, also in keys.
//! - Dates are `i64`: milliseconds since 1970.
//! - No wait is longer than the deadline. A process that freezes in a transaction loses it.
//!
//! # Writing SQL for both
//!
//! `BIGINT`, `DOUBLE`, `VARCHAR(n)` for keys (190 or less), `LONGTEXT` and `LONGBLOB` mean the same
//! in both, and parameters are `?`. What differs is here: [`Transaction::upsert`],
//! [`Transaction::insert_new`], [`Transaction::lock`]; and for the rest [`Sql::each`].

mod config;
mod connection;
pub mod contract;
mod copy;
mod error;
mod fence;
mod migration;
mod pool;
mod retry;
mod rows;
mod server;
mod servers;
mod sql;
mod statements;
mod tables;
mod transaction;
mod value;

pub use config::{Address, Config, InvalidUrl, Tls};
pub use copy::{TableState, compare_tables, copy_table};
pub use error::{Constraint, Kind, RecordsError};
pub use fence::{Fence, FenceRow};
pub use migration::Migration;
pub use pool::Records;
#[doc(hidden)]
pub use retry::Attempts;
pub use server::{FAILOVER_ROLE, Following, Server, Standing};
pub use sql::{Dialect, Sql};
pub use tables::{Schema, Tables};
pub use transaction::Transaction;
pub use value::{FromValue, Row, Value};

/// The longest text or blob, in bytes: what fits into a packet of MariaDB as it comes, with room.
pub const MAX_VALUE: usize = 8 << 20;
/// The most rows that one question may have as its answer.
pub const MAX_ROWS: usize = 100_000;
/// The most bytes that one answer may have.
pub const MAX_ANSWER: usize = 256 << 20;
