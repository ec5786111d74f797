//! Carries the rows of all tables from SQLite to another database: from the server that was alone to
//! those that share one.

use std::hash::{DefaultHasher, Hash, Hasher};

use futures::TryStreamExt;
use tokio::time::{Duration, Instant, timeout};

use crate::connection::{Connection, Purpose};
use crate::error::RecordsError;
use crate::params;
use crate::pool::{Borrowed, Records};
use crate::sql::{Dialect, Sql};
use crate::statements::{batches, insert_sql};
use crate::value::{Row, Value};

/// How long one table may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How many rows are held at a time.
const ROWS: usize = 200;

/// How a table is on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// How many rows the source has.
    pub found: u64,
    /// The target has the same rows.
    pub same: bool,
    /// The target has nothing but what a new table has.
    pub new: bool,
}

/// What a table holds, whatever the order: how many rows, and a sum over all of their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    rows: u64,
    sum: u64,
}

/// Compares every table of `from` with that of `to`. Both have been brought up by the same
/// migrations, and so has `fresh`, which nobody has written to.
///
/// # Errors
///
/// If a table is not the same kind of table on both sides, or a database does not answer.
pub async fn compare_tables(
    from: &Records,
    to: &Records,
    fresh: &Records,
) -> Result<Vec<TableState>, RecordsError> {
    let [mut source, mut target, mut fresh] =
        [open(from).await?, open(to).await?, open(fresh).await?];
    let mut states = Vec::new();
    for name in tables(source.connection()).await? {
        let columns = columns(source.connection(), &name).await?;
        check_columns(target.connection(), &name, &columns).await?;
        let select = select(&name, &columns);
        let found = digest(source.connection(), &select).await?;
        let there = digest(target.connection(), &select).await?;
        let untouched = digest(fresh.connection(), &select).await;
        states.push(TableState {
            name,
            found: found.rows,
            same: found == there,
            new: there.rows == 0 || untouched == Ok(there),
        });
    }
    Ok(states)
}

/// Puts the rows of one table of `from` in the place of those that `to` has, as a whole or not at
/// all.
///
/// # Errors
///
/// If a database does not answer, or refuses a row.
pub async fn copy_table(from: &Records, to: &Records, name: &str) -> Result<(), RecordsError> {
    let [mut source, mut target] = [open(from).await?, open(to).await?];
    let columns = columns(source.connection(), name).await?;
    check_columns(target.connection(), name, &columns).await?;
    let work = carry(source.connection(), target.connection(), name, &columns);
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(RecordsError::late()))
}

async fn carry(
    source: &mut Connection,
    target: &mut Connection,
    table: &str,
    columns: &[String],
) -> Result<(), RecordsError> {
    target.begin(Purpose::Write).await?;
    target.built_command(format!("DELETE FROM {table}")).await?;
    let mut rows = source.rows(select(table, columns));
    let mut held: Vec<Row> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        held.push(row);
        if held.len() == ROWS {
            insert(target, table, columns, &held).await?;
            held.clear();
        }
    }
    insert(target, table, columns, &held).await?;
    target.command("COMMIT").await
}

async fn insert(
    target: &mut Connection,
    table: &str,
    columns: &[String],
    rows: &[Row],
) -> Result<(), RecordsError> {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let values: Vec<&[Value]> = rows.iter().map(Row::values).collect();
    for batch in batches(&values) {
        let text = insert_sql("INSERT", table, &names, batch.len());
        let sql = Sql::built(target.dialect(), text);
        target.execute(&sql, &batch.concat()).await?;
    }
    Ok(())
}

/// A connection for work that takes long, on which rows may come before those that they refer to.
/// It is closed behind it.
async fn open(records: &Records) -> Result<Borrowed, RecordsError> {
    let mut borrowed = records
        .borrow(Instant::now() + records.config().deadline)
        .await?;
    let connection = borrowed.connection();
    match connection.dialect() {
        Dialect::Sqlite => connection.command("PRAGMA foreign_keys = OFF").await?,
        Dialect::MariaDb => {
            let session = "SET SESSION max_statement_time = 0, foreign_key_checks = 0, \
                           idle_transaction_timeout = 0";
            connection.command(session).await?;
        }
    }
    Ok(borrowed)
}

/// The tables of services, in order.
async fn tables(source: &mut Connection) -> Result<Vec<String>, RecordsError> {
    if source.dialect() != Dialect::Sqlite {
        return Err(RecordsError::broken("a copy comes from SQLite"));
    }
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' \
               AND name NOT LIKE 'sqlite%' AND name <> 'hydrant_migrations' ORDER BY name";
    names(source.query(&sql.into(), &[]).await?)
}

async fn columns(connection: &mut Connection, table: &str) -> Result<Vec<String>, RecordsError> {
    let sql = Sql::each(
        "SELECT name FROM pragma_table_info(?) ORDER BY name",
        "SELECT column_name FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = ? ORDER BY column_name",
    );
    let mut names = names(connection.query(&sql, &params![table]).await?)?;
    names.sort();
    Ok(names)
}

fn names(rows: Vec<Row>) -> Result<Vec<String>, RecordsError> {
    let is_plain = |name: &String| {
        let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(is_good)
    };
    let names = rows.iter().map(|row| row.get::<String>(0));
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    if names.iter().all(is_plain) {
        return Ok(names);
    }
    Err(RecordsError::broken(
        "a table or a column has a name that no service gives",
    ))
}

async fn check_columns(
    target: &mut Connection,
    table: &str,
    expected: &[String],
) -> Result<(), RecordsError> {
    if columns(target, table).await? == expected {
        return Ok(());
    }
    let message = format!("the target has no table {table} with the same columns");
    Err(RecordsError::broken(message))
}

fn select(table: &str, columns: &[String]) -> String {
    format!("SELECT {} FROM {table}", columns.join(", "))
}

async fn digest(connection: &mut Connection, select: &str) -> Result<Digest, RecordsError> {
    let read = async {
        let mut digest = Digest::default();
        let mut rows = connection.rows(select.to_owned());
        while let Some(row) = rows.try_next().await? {
            digest.rows += 1;
            digest.sum = digest.sum.wrapping_add(hash(&row));
        }
        Ok(digest)
    };
    timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| Err(RecordsError::late()))
}

fn hash(row: &Row) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in row.values() {
        std::mem::discriminant(value).hash(&mut hasher);
        match value {
            Value::Null => {}
            Value::Integer(number) => number.hash(&mut hasher),
            Value::Real(number) => number.to_bits().hash(&mut hasher),
            Value::Text(text) => text.hash(&mut hasher),
            Value::Bytes(bytes) => bytes.hash(&mut hasher),
        }
    }
    hasher.finish()
}
