//! Objects that no piece names.
//!
//! A row stands here before its object is written, and the transaction that makes the object a piece takes
//! the row away, or is refused when it is not there any more. So whatever a time-out leaves behind is known
//! without asking a store, and no writer, however slow, loses a piece to the sweeper: it loses its row first,
//! and hears it.

use hydrant_records::{RecordsError, Row, Transaction, params};

use super::copies;

const COLUMNS: [&str; 4] = ["object", "place", "state", "since_ms"];

/// What is to happen to a loose object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Somebody writes it, and may make it a piece.
    Written,
    /// It is removed, whoever may still write it.
    Removed,
    /// It has been removed; and is again, for a write that the store took late.
    RemovedAgain,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Removed => "removed",
            Self::RemovedAgain => "again",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "written" => Self::Written,
            "removed" => Self::Removed,
            _ => Self::RemovedAgain,
        }
    }
}

/// An object that no piece names, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loose {
    pub(super) object: String,
    pub(super) place: String,
    pub(super) fate: Fate,
}

/// An object is about to be written.
pub(super) async fn announce(
    tx: &mut Transaction,
    object: &str,
    place: &str,
    now: i64,
) -> Result<(), RecordsError> {
    let row = params![object, place, Fate::Written.as_str(), now];
    tx.insert_new("submission_loose", &COLUMNS, &[row]).await?;
    Ok(())
}

/// An object becomes a piece; false when it is to be removed by now.
pub(super) async fn adopt(tx: &mut Transaction, object: &str) -> Result<bool, RecordsError> {
    let delete = "DELETE FROM submission_loose WHERE object = ? AND state = 'written'";
    Ok(tx.execute(delete, &params![object]).await? == 1)
}

/// The pieces of an upload are pieces no more.
pub(crate) async fn release(
    tx: &mut Transaction,
    upload: &str,
    now: i64,
) -> Result<(), RecordsError> {
    copies::release(tx, upload, now).await?;
    let insert = "INSERT INTO submission_loose (object, place, state, since_ms) \
                  SELECT object, place, 'removed', ? FROM submission_pieces WHERE upload = ?";
    tx.execute(insert, &params![now, upload]).await?;
    let delete = "DELETE FROM submission_pieces WHERE upload = ?";
    tx.execute(delete, &params![upload]).await.map(drop)
}

/// The oldest that are as they are since a time.
pub(super) async fn since(
    tx: &mut Transaction,
    time: i64,
    most: i64,
) -> Result<Vec<Loose>, RecordsError> {
    let select = "SELECT object, place, state FROM submission_loose \
                  WHERE since_ms <= ? ORDER BY since_ms LIMIT ?";
    let rows = tx.query(select, &params![time, most]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Loose, RecordsError> {
    Ok(Loose {
        object: row.get(0)?,
        place: row.get(1)?,
        fate: Fate::parse(&row.get::<String>(2)?),
    })
}

/// Goes on to the next fate; a change that another made in between stays. False when it did.
pub(super) async fn move_on(
    tx: &mut Transaction,
    loose: &Loose,
    fate: Fate,
    now: i64,
) -> Result<bool, RecordsError> {
    let update =
        "UPDATE submission_loose SET state = ?, since_ms = ? WHERE object = ? AND state = ?";
    let row = params![fate.as_str(), now, &loose.object, loose.fate.as_str()];
    Ok(tx.execute(update, &row).await? == 1)
}

/// Puts one at the end of the line.
pub(super) async fn postpone(
    tx: &mut Transaction,
    loose: &Loose,
    now: i64,
) -> Result<(), RecordsError> {
    move_on(tx, loose, loose.fate, now).await.map(drop)
}

/// Nothing is left of it.
pub(super) async fn forget(tx: &mut Transaction, object: &str) -> Result<(), RecordsError> {
    let delete = "DELETE FROM submission_loose WHERE object = ? AND state = 'again'";
    tx.execute(delete, &params![object]).await.map(drop)
}
