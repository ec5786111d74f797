//! Each piece is copied from the store that has it into the other data centre's, so that the loss of one takes
//! nothing away. Until then it is exposed, and that is counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use hydrant_records::{RecordsError, Transaction, params, read, transaction};
use hydrant_sdk::{Duty, Error, Term, turns};

use super::rows::{Piece, read_piece};
use super::stores::{new_object, unavailable};
use super::{Attachments, loose};

/// How often is looked.
const APART: Duration = Duration::from_secs(1);
/// How many are looked up at once, and how many are copied at the same time.
const PAGE: i64 = 200;
const TOGETHER: usize = 4;
/// How long a piece waits that no store gave just now.
const LATER_MS: i64 = 15_000;
const COLUMNS: [&str; 5] = ["object", "copy", "place", "since_ms", "due_ms"];

/// The duty of the one process that leads.
pub(crate) struct Copying(Attachments);

/// Pieces that are in one store only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(crate) count: u64,
    /// Since when the oldest has been there.
    pub(crate) oldest_ms: Option<i64>,
}

impl Copying {
    pub(crate) fn duty(attachments: &Attachments) -> Arc<dyn Duty> {
        Arc::new(Self(attachments.clone()))
    }
}

impl Duty for Copying {
    fn carry_out<'a>(&'a self, term: &'a Term) -> BoxFuture<'a, Error> {
        Box::pin(async {
            let mut turns = turns(APART);
            let mut older_are_known = false;
            loop {
                term.turn(&mut turns).await;
                if !self.0.0.stores.are_two() {
                    continue;
                }
                let done = async {
                    if !older_are_known {
                        self.0.wish_older().await?;
                        older_are_known = true;
                    }
                    self.0.copy_all().await
                };
                if let Err(error) = done.await {
                    tracing::debug!(%error, "pieces can't be copied now; trying again");
                }
            }
        })
    }
}

impl Attachments {
    /// How many pieces are in one store only, where there are two stores.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn exposed(&self) -> Result<Option<Exposed>, Error> {
        if !self.0.stores.are_two() {
            return Ok(None);
        }
        let records = self.0.desk.tables.ready().await?;
        let select = "SELECT COUNT(*), MIN(since_ms) FROM submission_copies WHERE place = ''";
        let rows = read!(records, |tx| tx.query(select, &[]).await)?;
        let Some(row) = rows.first() else {
            return Ok(Some(Exposed::default()));
        };
        Ok(Some(Exposed {
            count: row.get::<i64>(0)? as u64,
            oldest_ms: row.get(1)?,
        }))
    }

    /// Wishes for copies of what came while there was one store.
    pub(super) async fn wish_older(&self) -> Result<(), Error> {
        let records = self.0.desk.tables.ready().await?;
        let insert = "INSERT INTO submission_copies (object, copy, place, since_ms, due_ms) \
                      SELECT p.object, '', '', ?, 0 FROM submission_pieces p \
                      LEFT JOIN submission_copies c ON c.object = p.object \
                      WHERE c.object IS NULL LIMIT ?";
        let row = params![self.now(), PAGE];
        while transaction!(records, |tx| tx.execute(insert, &row).await)? > 0 {}
        Ok(())
    }

    /// Copies what has no copy, the oldest first.
    ///
    /// # Errors
    ///
    /// If the database, or the store that is to have the copies, does not answer.
    pub(super) async fn copy_all(&self) -> Result<(), Error> {
        loop {
            let records = self.0.desk.tables.ready().await?;
            let now = self.now();
            let pieces = read!(records, |tx| due(tx, now).await)?;
            for some in pieces.chunks(TOGETHER) {
                // Each is waited for: one that tries a store after a pause is not cut off by the others' refusal.
                let copied = join_all(some.iter().map(|piece| self.copy(piece))).await;
                copied.into_iter().collect::<Result<(), _>>()?;
            }
            if (pieces.len() as i64) < PAGE {
                return Ok(());
            }
        }
    }

    /// A copy has a name of its own, and a row of those that are loose before it is written: so whatever happens
    /// on the way, it counts or it is removed.
    pub(super) async fn copy(&self, piece: &Piece) -> Result<(), Error> {
        let records = self.0.desk.tables.ready().await?;
        let to = self.0.stores.beside(&piece.place);
        let to = to.filter(|store| store.is_well()).ok_or_else(unavailable)?;
        let _room = self.0.room.wait(piece.seal.size as usize).await?;
        let read = self.0.stores.read(&piece.place, &piece.object, &piece.seal);
        let Ok(bytes) = read.await else {
            let later = self.now() + LATER_MS;
            return Ok(transaction!(records, |tx| postpone(tx, piece, later).await)?);
        };
        let (copy, now) = (new_object(), self.now());
        transaction!(records, |tx| loose::announce(tx, &copy, to.name(), now)
            .await)?;
        if !to.write(&copy, bytes, &piece.seal).await {
            return Err(unavailable());
        }
        transaction!(records, |tx| done(tx, piece, &copy, to.name()).await)?;
        Ok(())
    }

    /// The bytes of a piece, from where it is, or from its copy.
    ///
    /// # Errors
    ///
    /// If no store gives them now.
    pub(super) async fn fetch(&self, piece: &Piece) -> Result<Bytes, Error> {
        match self
            .0
            .stores
            .read(&piece.place, &piece.object, &piece.seal)
            .await
        {
            Ok(bytes) => Ok(bytes),
            // Seldom needed, so it takes no room in each future that reads a piece.
            Err(error) => Box::pin(self.fetch_copy(piece)).await?.ok_or(error),
        }
    }

    async fn fetch_copy(&self, piece: &Piece) -> Result<Option<Bytes>, Error> {
        let records = self.0.desk.tables.ready().await?;
        let copy = read!(records, |tx| copy_of(tx, &piece.object).await)?;
        let Some((copy, place)) = copy else {
            return Ok(None);
        };
        Ok(self.0.stores.read(&place, &copy, &piece.seal).await.ok())
    }
}

/// A piece counts from now on, and is to be in both stores.
pub(super) async fn wish(tx: &mut Transaction, object: &str, now: i64) -> Result<(), RecordsError> {
    let row = params![object, "", "", now, now];
    tx.insert_new("submission_copies", &COLUMNS, &[row]).await?;
    Ok(())
}

/// The pieces of an upload are about to be pieces no more, and so their copies.
pub(super) async fn release(
    tx: &mut Transaction,
    upload: &str,
    now: i64,
) -> Result<(), RecordsError> {
    let insert = "INSERT INTO submission_loose (object, place, state, since_ms) \
                  SELECT c.copy, c.place, 'removed', ? FROM submission_copies c \
                  JOIN submission_pieces p ON p.object = c.object \
                  WHERE p.upload = ? AND c.place <> ''";
    tx.execute(insert, &params![now, upload]).await?;
    let delete = "DELETE FROM submission_copies WHERE object IN \
                  (SELECT object FROM submission_pieces WHERE upload = ?)";
    tx.execute(delete, &params![upload]).await.map(drop)
}

pub(super) async fn due(tx: &mut Transaction, now: i64) -> Result<Vec<Piece>, RecordsError> {
    let select = "SELECT p.object, p.place, p.size, p.sha256 FROM submission_copies c \
                  JOIN submission_pieces p ON p.object = c.object \
                  WHERE c.place = '' AND c.due_ms <= ? ORDER BY c.due_ms LIMIT ?";
    let rows = tx.query(select, &params![now, PAGE]).await?;
    rows.iter().map(read_piece).collect()
}

async fn postpone(tx: &mut Transaction, piece: &Piece, due: i64) -> Result<(), RecordsError> {
    let update = "UPDATE submission_copies SET due_ms = ? WHERE object = ?";
    tx.execute(update, &params![due, &piece.object])
        .await
        .map(drop)
}

/// The copy counts, if it is still wished for and nobody has begun to remove it; else it stays loose.
async fn done(
    tx: &mut Transaction,
    piece: &Piece,
    copy: &str,
    place: &str,
) -> Result<(), RecordsError> {
    let lock = "SELECT place FROM submission_copies WHERE object = ?";
    let rows = tx.lock(lock, &params![&piece.object]).await?;
    let wished = rows.first().map(|row| row.get::<String>(0)).transpose()?;
    if wished.is_some_and(|place| place.is_empty()) && loose::adopt(tx, copy).await? {
        let update = "UPDATE submission_copies SET copy = ?, place = ? WHERE object = ?";
        tx.execute(update, &params![copy, place, &piece.object])
            .await?;
    }
    Ok(())
}

async fn copy_of(
    tx: &mut Transaction,
    object: &str,
) -> Result<Option<(String, String)>, RecordsError> {
    let select = "SELECT copy, place FROM submission_copies WHERE object = ? AND place <> ''";
    let rows = tx.query(select, &params![object]).await?;
    let read = rows.first().map(|row| Ok((row.get(0)?, row.get(1)?)));
    read.transpose()
}
