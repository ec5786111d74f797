//! The rows of uploads and pieces.
//!
//! Whoever changes both locks the submission before the upload, so that nobody waits in a circle.

use std::collections::BTreeSet;

use hydrant_records::{RecordsError, Row, Transaction, Value, params};

use super::digest::Running;
use super::metadata::Metadata;
use super::refusal::{Refusal, closed, expired, gone, unknown_submission, unknown_upload};
use super::stores::Seal;
use crate::proto::Origin;

const UPLOAD: [&str; 16] = [
    "id",
    "submission",
    "position",
    "state",
    "name",
    "media",
    "metadata",
    "concat",
    "length",
    "received",
    "pieces",
    "sha256",
    "epoch",
    "created_ms",
    "expires_ms",
    "places",
];
const PIECE: [&str; 7] = [
    "upload", "number", "start", "size", "object", "place", "sha256",
];

/// What an upload is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// More is to come.
    Open,
    Whole,
    /// Whole, to be joined with others.
    Part,
    /// Joined with others: its pieces are theirs.
    Joined,
    /// Taken away by the client.
    Deleted,
    /// Nothing came for too long.
    Expired,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Whole => "whole",
            Self::Part => "part",
            Self::Joined => "joined",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "open" => Self::Open,
            "whole" => Self::Whole,
            "part" => Self::Part,
            "joined" => Self::Joined,
            "deleted" => Self::Deleted,
            _ => Self::Expired,
        }
    }
}

/// An upload.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) submission: String,
    pub(super) state: State,
    pub(super) meta: Metadata,
    /// `partial`, or the header of a final one.
    pub(super) concat: Option<String>,
    /// None while the client has not said it.
    pub(super) length: Option<u64>,
    pub(super) received: u64,
    pub(super) pieces: i64,
    pub(super) sha256: Option<String>,
    /// Grows with each request that takes it over.
    pub(super) epoch: i64,
    pub(super) expires_ms: i64,
    pub(super) running: Running,
    /// The names of the stores that have pieces of it.
    pub(super) places: BTreeSet<String>,
}

impl Upload {
    pub(super) fn is_partial(&self) -> bool {
        self.concat.as_deref() == Some("partial")
    }

    /// Whether nothing more is to come.
    pub(super) fn has_all(&self) -> bool {
        self.length == Some(self.received)
    }

    /// Whether it can still be asked about.
    pub(super) fn check_living(&self, now: i64) -> Result<(), Refusal> {
        match self.state {
            State::Open | State::Part if self.expires_ms <= now => Err(expired()),
            State::Open | State::Whole | State::Part => Ok(()),
            State::Expired => Err(expired()),
            State::Joined | State::Deleted => Err(gone()),
        }
    }
}

/// A piece, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) object: String,
    /// The name of a store.
    pub(super) place: String,
    pub(super) seal: Seal,
}

/// A submission, as attachments see it.
pub(super) struct Around {
    pub(super) form: String,
    pub(super) origin: Origin,
}

/// The submission, which must be open; nobody closes it before this transaction ends.
pub(super) async fn lock_submission(tx: &mut Transaction, id: &str) -> Result<Around, Refusal> {
    let select = "SELECT state, form, store, person, session FROM submissions WHERE id = ?";
    let rows = tx.lock(select, &params![id]).await?;
    let row = rows.first().ok_or_else(|| unknown_submission(id))?;
    if row.get::<String>(0)? != "open" {
        return Err(closed());
    }
    Ok(Around {
        form: row.get(1)?,
        origin: Origin {
            store: row.get(2)?,
            user: row.get(3)?,
            session: row.get(4)?,
            ..Default::default()
        },
    })
}

/// Says that the list of attachments has changed.
pub(super) async fn touch_submission(tx: &mut Transaction, id: &str) -> Result<(), RecordsError> {
    let update = "UPDATE submissions SET version = version + 1 WHERE id = ?";
    tx.execute(update, &params![id]).await.map(drop)
}

const SELECT: &str = "SELECT id, submission, state, name, media, metadata, concat, length, received, \
                      pieces, sha256, epoch, expires_ms, hash_state, places FROM submission_uploads WHERE id = ?";

/// The upload of this id.
pub(super) async fn find(tx: &mut Transaction, id: &str) -> Result<Option<Upload>, RecordsError> {
    let rows = tx.query(SELECT, &params![id]).await?;
    rows.first().map(read).transpose()
}

/// The same, kept from others until this transaction ends.
pub(super) async fn lock(tx: &mut Transaction, id: &str) -> Result<Option<Upload>, RecordsError> {
    let rows = tx.lock(SELECT, &params![id]).await?;
    rows.first().map(read).transpose()
}

/// The same, of a submission.
pub(super) async fn lock_of(
    tx: &mut Transaction,
    submission: &str,
    id: &str,
) -> Result<Upload, Refusal> {
    let upload = lock(tx, id).await?;
    let upload = upload.filter(|upload| upload.submission == submission);
    upload.ok_or_else(unknown_upload)
}

fn read(row: &Row) -> Result<Upload, RecordsError> {
    let hash_state: Option<Vec<u8>> = row.get(13)?;
    let running = hash_state.and_then(|state| Running::from_bytes(&state));
    Ok(Upload {
        id: row.get(0)?,
        submission: row.get(1)?,
        state: State::parse(&row.get::<String>(2)?),
        meta: Metadata {
            name: row.get(3)?,
            media: row.get(4)?,
            text: row.get(5)?,
        },
        concat: row.get(6)?,
        length: row.get::<Option<i64>>(7)?.map(|length| length as u64),
        received: row.get::<i64>(8)? as u64,
        pieces: row.get(9)?,
        sha256: row.get(10)?,
        epoch: row.get(11)?,
        expires_ms: row.get(12)?,
        running: running.unwrap_or_default(),
        places: read_places(&row.get::<String>(14)?).collect(),
    })
}

/// Puts a new upload behind the others of its submission.
pub(super) async fn insert(
    tx: &mut Transaction,
    upload: &Upload,
    now: i64,
) -> Result<(), RecordsError> {
    let select =
        "SELECT COALESCE(MAX(position), -1) + 1 FROM submission_uploads WHERE submission = ?";
    let rows = tx.query(select, &params![&upload.submission]).await?;
    let position = rows.first().map_or(Ok(0), |row| row.get::<i64>(0))?;
    let row = params![
        &upload.id,
        &upload.submission,
        position,
        upload.state.as_str(),
        &upload.meta.name,
        &upload.meta.media,
        &upload.meta.text,
        upload.concat.as_ref(),
        upload.length.map(|length| length as i64),
        upload.received as i64,
        upload.pieces,
        upload.sha256.as_ref(),
        upload.epoch,
        now,
        upload.expires_ms,
        write_places(&upload.places),
    ];
    tx.insert_new("submission_uploads", &UPLOAD, &[row]).await?;
    Ok(())
}

/// How many uploads of a submission live: attachments, and parts of some.
pub(super) async fn count(
    tx: &mut Transaction,
    submission: &str,
) -> Result<[i64; 2], RecordsError> {
    let select = "SELECT concat, COUNT(*) FROM submission_uploads \
                  WHERE submission = ? AND state IN ('open', 'whole', 'part') GROUP BY concat";
    let mut counts = [0, 0];
    for row in tx.query(select, &params![submission]).await? {
        let concat: Option<String> = row.get(0)?;
        counts[usize::from(concat.as_deref() == Some("partial"))] += row.get::<i64>(1)?;
    }
    Ok(counts)
}

/// Keeps how far an upload has come.
pub(super) async fn save(tx: &mut Transaction, upload: &Upload) -> Result<(), RecordsError> {
    let update = "UPDATE submission_uploads SET state = ?, length = ?, received = ?, pieces = ?, \
                  hash_state = ?, sha256 = ?, epoch = ?, expires_ms = ?, places = ? WHERE id = ?";
    let row = params![
        upload.state.as_str(),
        upload.length.map(|length| length as i64),
        upload.received as i64,
        upload.pieces,
        upload.running.to_bytes(),
        upload.sha256.as_ref(),
        upload.epoch,
        upload.expires_ms,
        write_places(&upload.places),
        &upload.id,
    ];
    tx.execute(update, &row).await.map(drop)
}

/// Adds a piece at the end of what an upload has so far.
pub(super) async fn add_piece(
    tx: &mut Transaction,
    upload: &Upload,
    piece: &Piece,
) -> Result<(), RecordsError> {
    let row = params![
        &upload.id,
        upload.pieces,
        upload.received as i64,
        piece.seal.size as i64,
        &piece.object,
        &piece.place,
        &piece.seal.sha256,
    ];
    let new = tx.insert_new("submission_pieces", &PIECE, &[row]).await?;
    debug_assert_eq!(new, 1, "the upload is locked and counts its pieces");
    Ok(())
}

/// The pieces of an upload from a number on, in order, at most `most`.
pub(super) async fn pieces(
    tx: &mut Transaction,
    upload: &str,
    from: i64,
    most: i64,
) -> Result<Vec<Piece>, RecordsError> {
    let select = "SELECT object, place, size, sha256 FROM submission_pieces \
                  WHERE upload = ? AND number >= ? ORDER BY number LIMIT ?";
    let rows = tx.query(select, &params![upload, from, most]).await?;
    rows.iter().map(read_piece).collect()
}

pub(super) fn read_piece(row: &Row) -> Result<Piece, RecordsError> {
    Ok(Piece {
        object: row.get(0)?,
        place: row.get(1)?,
        seal: Seal {
            size: row.get::<i64>(2)? as u64,
            sha256: row.get(3)?,
        },
    })
}

/// The number of the piece that has a byte, and where the piece begins; none behind the end.
pub(super) async fn piece_at(
    tx: &mut Transaction,
    upload: &str,
    byte: u64,
) -> Result<Option<(i64, u64)>, RecordsError> {
    let select = "SELECT number, start FROM submission_pieces \
                  WHERE upload = ? AND start <= ? ORDER BY number DESC LIMIT 1";
    let rows = tx.query(select, &params![upload, byte as i64]).await?;
    let read = |row: &Row| Ok((row.get(0)?, row.get::<i64>(1)? as u64));
    rows.first().map(read).transpose()
}

/// The uploads of a submission that are whole, or may become so, in the order in which they were begun.
pub(super) async fn living(
    tx: &mut Transaction,
    submission: &str,
) -> Result<Vec<Upload>, RecordsError> {
    let select = "SELECT id, submission, state, name, media, metadata, concat, length, received, \
                  pieces, sha256, epoch, expires_ms, hash_state, places FROM submission_uploads \
                  WHERE submission = ? AND state IN ('open', 'whole', 'part') ORDER BY position";
    let rows = tx.query(select, &params![submission]).await?;
    rows.iter().map(read).collect()
}

/// The names of stores, as a row has them.
pub(super) fn read_places(text: &str) -> impl Iterator<Item = String> {
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned)
}

fn write_places(places: &BTreeSet<String>) -> String {
    places
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",")
}

/// The pieces of a part become those of another upload, behind what that has; nothing is copied.
pub(super) async fn hand_over(
    tx: &mut Transaction,
    from: &Upload,
    to: &Upload,
) -> Result<(), RecordsError> {
    let update = "UPDATE submission_pieces SET upload = ?, number = number + ?, start = start + ? \
                  WHERE upload = ?";
    let row: [Value; 4] = params![&to.id, to.pieces, to.received as i64, &from.id];
    tx.execute(update, &row).await.map(drop)
}
