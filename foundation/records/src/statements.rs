//! Statements that are written differently in the two databases, put together from names that the
//! program itself wrote.

use crate::error::{Kind, RecordsError};
use crate::sql::{Dialect, Sql};
use crate::transaction::Transaction;
use crate::value::Value;

/// How many parameters one statement has at most; the databases allow 32,766 and 65,535.
const MAX_PARAMS: usize = 8_192;
/// How many bytes of values one statement has at most: a packet of MariaDB has 16 MB.
const MAX_BYTES: usize = 4 << 20;
/// MariaDB's code for a row that `INSERT IGNORE` left out because its key is there.
const DUPLICATE: i64 = 1062;

impl Transaction {
    /// Inserts rows, or changes `values` where a row with these `keys` is there. The columns of a
    /// row are the keys first. The table's other unique keys must not be in the way.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn upsert<R: AsRef<[Value]>>(
        &mut self,
        table: &'static str,
        keys: &[&'static str],
        values: &[&'static str],
        rows: &[R],
    ) -> Result<(), RecordsError> {
        let columns = [keys, values].concat();
        for batch in batches(rows) {
            let sql = upsert_sql(self.dialect(), table, keys, values, batch.len());
            let params = flat(batch, columns.len())?;
            self.execute(sql, &params).await?;
        }
        Ok(())
    }

    /// Inserts the rows whose keys are not there yet, and leaves the others as they are. Tells how
    /// many were new.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn insert_new<R: AsRef<[Value]>>(
        &mut self,
        table: &'static str,
        columns: &[&'static str],
        rows: &[R],
    ) -> Result<u64, RecordsError> {
        let mut new = 0;
        for batch in batches(rows) {
            let sql = insert_new_sql(self.dialect(), table, columns, batch.len());
            let params = flat(batch, columns.len())?;
            new += self.execute(sql, &params).await?;
            self.check_warnings().await?;
        }
        Ok(new)
    }

    /// `INSERT IGNORE` of MariaDB makes warnings of all mistakes: only duplicates are meant.
    async fn check_warnings(&mut self) -> Result<(), RecordsError> {
        if self.dialect() != Dialect::MariaDb {
            return Ok(());
        }
        let warnings = self.plain_query("SHOW WARNINGS").await?;
        for warning in warnings {
            if warning.get::<i64>(1)? != DUPLICATE {
                let message = "a row does not fit into its table";
                let kind = Kind::Constraint(crate::Constraint::Check);
                return Err(self.give_up(RecordsError::new(kind, message)));
            }
        }
        Ok(())
    }
}

fn upsert_sql(dialect: Dialect, table: &str, keys: &[&str], values: &[&str], rows: usize) -> Sql {
    let insert = insert_sql("INSERT", table, &[keys, values].concat(), rows);
    let set = |column: &str, value: String| format!("{column} = {value}");
    let text = match dialect {
        Dialect::Sqlite if values.is_empty() => format!("{insert} ON CONFLICT DO NOTHING"),
        Dialect::Sqlite => {
            let sets = values.iter().map(|v| set(v, format!("excluded.{v}")));
            let (keys, sets) = (keys.join(", "), sets.collect::<Vec<_>>().join(", "));
            format!("{insert} ON CONFLICT ({keys}) DO UPDATE SET {sets}")
        }
        Dialect::MariaDb => {
            // With no values there is nothing to change: a key is set to itself.
            let changed = if values.is_empty() { keys } else { values };
            let sets = changed.iter().map(|v| set(v, format!("VALUES({v})")));
            let sets = sets.collect::<Vec<_>>().join(", ");
            format!("{insert} ON DUPLICATE KEY UPDATE {sets}")
        }
    };
    Sql::built(dialect, text)
}

fn insert_new_sql(dialect: Dialect, table: &str, columns: &[&str], rows: usize) -> Sql {
    let text = match dialect {
        Dialect::Sqlite => insert_sql("INSERT", table, columns, rows) + " ON CONFLICT DO NOTHING",
        Dialect::MariaDb => insert_sql("INSERT IGNORE", table, columns, rows),
    };
    Sql::built(dialect, text)
}

pub(crate) fn insert_sql(verb: &str, table: &str, columns: &[&str], rows: usize) -> String {
    let marks = vec!["?"; columns.len()].join(", ");
    let rows = vec![format!("({marks})"); rows].join(", ");
    let columns = columns.join(", ");
    format!("{verb} INTO {table} ({columns}) VALUES {rows}")
}

/// Cuts rows into parts that fit into one statement each.
pub(crate) fn batches<R: AsRef<[Value]>>(rows: &[R]) -> Vec<&[R]> {
    let mut parts = Vec::new();
    let (mut start, mut params, mut bytes) = (0, 0, 0);
    for (index, row) in rows.iter().enumerate() {
        let row = row.as_ref();
        let size: usize = row.iter().map(Value::size).sum();
        if index > start && (params + row.len() > MAX_PARAMS || bytes + size > MAX_BYTES) {
            parts.push(&rows[start..index]);
            (start, params, bytes) = (index, 0, 0);
        }
        params += row.len();
        bytes += size;
    }
    if start < rows.len() {
        parts.push(&rows[start..]);
    }
    parts
}

fn flat<R: AsRef<[Value]>>(rows: &[R], columns: usize) -> Result<Vec<Value>, RecordsError> {
    let mut params = Vec::new();
    for row in rows {
        if row.as_ref().len() != columns {
            return Err(RecordsError::broken(
                "a row has not as many values as columns",
            ));
        }
        params.extend_from_slice(row.as_ref());
    }
    Ok(params)
}
