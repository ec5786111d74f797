use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use sqlx::mysql::{MySql, MySqlRow};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row as _, Type, TypeInfo, ValueRef};

use crate::error::{RecordsError, sort};
use crate::value::{Row, Value};
use crate::{MAX_ANSWER, MAX_ROWS};

/// Reads rows to the end, within the limits.
pub(crate) async fn gather<R>(
    mut found: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    read: fn(&R) -> Result<Row, RecordsError>,
) -> Result<Vec<Row>, RecordsError> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.try_next().await.map_err(sort)? {
        let row = read(&row)?;
        bytes += row.values().iter().map(Value::size).sum::<usize>();
        if rows.len() == MAX_ROWS || bytes > MAX_ANSWER {
            let message = "an answer has more rows or bytes than may be read at once";
            return Err(RecordsError::broken(message));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads rows one by one.
pub(crate) fn each<'a, R: 'a>(
    found: impl Stream<Item = Result<R, sqlx::Error>> + Send + 'a,
    read: fn(&R) -> Result<Row, RecordsError>,
) -> BoxStream<'a, Result<Row, RecordsError>> {
    let rows = found.map(move |row| read(&row.map_err(sort)?));
    rows.boxed()
}

pub(crate) fn of_sqlite(row: &SqliteRow) -> Result<Row, RecordsError> {
    let columns = 0..row.len();
    let values = columns.map(|index| {
        let value = row.try_get_raw(index).map_err(sort)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let kind = value.type_info();
        Ok(match kind.name() {
            "REAL" => Value::Real(<f64 as Decode<Sqlite>>::decode(value).map_err(unread)?),
            "TEXT" => Value::Text(<String as Decode<Sqlite>>::decode(value).map_err(unread)?),
            "BLOB" => Value::Bytes(<Vec<u8> as Decode<Sqlite>>::decode(value).map_err(unread)?),
            _ => Value::Integer(<i64 as Decode<Sqlite>>::decode(value).map_err(unread)?),
        })
    });
    values.collect::<Result<_, RecordsError>>().map(Row)
}

pub(crate) fn of_mariadb(row: &MySqlRow) -> Result<Row, RecordsError> {
    let columns = 0..row.len();
    let values = columns.map(|index| {
        let value = row.try_get_raw(index).map_err(sort)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let kind = value.type_info();
        // The name calls texts that compare by their bytes binary; what is binary has no charset.
        let is_text = <str as Type<MySql>>::compatible(&kind);
        let kind = kind.name();
        Ok(match kind {
            _ if is_text => Value::Text(<String as Decode<MySql>>::decode(value).map_err(unread)?),
            "FLOAT" => Value::Real(
                <f32 as Decode<MySql>>::decode(value)
                    .map_err(unread)?
                    .into(),
            ),
            "DOUBLE" => Value::Real(<f64 as Decode<MySql>>::decode(value).map_err(unread)?),
            // A sum of whole numbers is one.
            "DECIMAL" => decimal(<&str as Decode<MySql>>::decode(value).map_err(unread)?)?,
            "BIGINT UNSIGNED" => {
                let number = <u64 as Decode<MySql>>::decode(value).map_err(unread)?;
                Value::Integer(i64::try_from(number).map_err(|_| unread("too large"))?)
            }
            _ if kind == "BOOLEAN" || kind.contains("INT") => {
                Value::Integer(<i64 as Decode<MySql>>::decode(value).map_err(unread)?)
            }
            _ if kind.contains("BLOB") || kind.contains("BINARY") => {
                Value::Bytes(<Vec<u8> as Decode<MySql>>::decode(value).map_err(unread)?)
            }
            _ => return Err(unread("unknown type")),
        })
    });
    values.collect::<Result<_, RecordsError>>().map(Row)
}

fn decimal(text: &str) -> Result<Value, RecordsError> {
    if text.contains('.') {
        return text.parse().map(Value::Real).map_err(unread);
    }
    text.parse().map(Value::Integer).map_err(unread)
}

fn unread(error: impl ToString) -> RecordsError {
    tracing::error!(reason = %error.to_string().escape_debug(), "a column can't be read");
    RecordsError::broken("a column of an answer has a type or a value that is not known here")
}
