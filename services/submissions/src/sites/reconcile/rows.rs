//! All rows of a submission, to compare them and to bring them over.

use hydrant_records::{RecordsError, Row, Transaction, Value, params};

pub(super) use crate::service::events::COLUMNS as EVENT;

pub(super) const SUBMISSION: [&str; 16] = [
    "id",
    "nonce",
    "form",
    "state",
    "version",
    "fingerprint",
    "fields",
    "store",
    "person",
    "session",
    "accepted_ms",
    "submitted_ms",
    "ended_ms",
    "reference",
    "hops",
    "hop_hash",
];
pub(super) const HOP: [&str; 6] = ["submission", "number", "kind", "at_ms", "record", "hash"];
pub(super) const STEP: [&str; 14] = [
    "submission",
    "step",
    "consumer",
    "kind",
    "state",
    "store",
    "submitted_ms",
    "attempts",
    "due_ms",
    "epoch",
    "worker",
    "lease_until_ms",
    "reason",
    "ended_ms",
];
pub(super) const UPLOAD: [&str; 17] = [
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
    "hash_state",
    "sha256",
    "epoch",
    "created_ms",
    "expires_ms",
    "places",
];
pub(super) const PIECE: [&str; 7] = [
    "upload", "number", "start", "size", "object", "place", "sha256",
];
pub(super) const COPY: [&str; 5] = ["object", "copy", "place", "since_ms", "due_ms"];

/// A row, whose columns have names.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    columns: &'static [&'static str],
    values: Vec<Value>,
}

impl Named {
    pub(super) fn new(columns: &'static [&'static str], values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    pub(super) fn columns(&self) -> &'static [&'static str] {
        self.columns
    }

    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    fn at(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| *name == column)
    }

    pub(super) fn value(&self, column: &str) -> &Value {
        self.at(column).map_or(&Value::Null, |at| &self.values[at])
    }

    pub(super) fn number(&self, column: &str) -> i64 {
        match self.value(column) {
            Value::Integer(number) => *number,
            _ => 0,
        }
    }

    pub(super) fn text(&self, column: &str) -> &str {
        match self.value(column) {
            Value::Text(text) => text,
            _ => "",
        }
    }

    pub(super) fn set(&mut self, column: &str, value: impl Into<Value>) {
        if let Some(at) = self.at(column) {
            self.values[at] = value.into();
        }
    }
}

/// All that is kept of a submission.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whole {
    pub(super) submission: Named,
    pub(super) hops: Vec<Named>,
    pub(super) steps: Vec<Named>,
    pub(super) uploads: Vec<Named>,
    pub(super) pieces: Vec<Named>,
    pub(super) copies: Vec<Named>,
    pub(super) events: Vec<Named>,
}

impl Whole {
    pub(super) async fn read(tx: &mut Transaction, id: &str) -> Result<Option<Self>, RecordsError> {
        let select = "SELECT id, nonce, form, state, version, fingerprint, fields, store, person, session, \
                      accepted_ms, submitted_ms, ended_ms, reference, hops, hop_hash \
                      FROM submissions WHERE id = ?";
        // Who reads only locks nothing by this.
        let rows = tx.lock(select, &params![id]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let hops = "SELECT submission, number, kind, at_ms, record, hash FROM submission_hops \
                    WHERE submission = ? ORDER BY number";
        let steps = "SELECT submission, step, consumer, kind, state, store, submitted_ms, attempts, due_ms, \
                     epoch, worker, lease_until_ms, reason, ended_ms FROM submission_steps \
                     WHERE submission = ? ORDER BY step";
        let uploads = "SELECT id, submission, position, state, name, media, metadata, concat, length, \
                       received, pieces, hash_state, sha256, epoch, created_ms, expires_ms, places \
                       FROM submission_uploads WHERE submission = ? ORDER BY position";
        let pieces = "SELECT p.upload, p.number, p.start, p.size, p.object, p.place, p.sha256 \
                      FROM submission_pieces p JOIN submission_uploads u ON u.id = p.upload \
                      WHERE u.submission = ? ORDER BY p.upload, p.number";
        let copies = "SELECT c.object, c.copy, c.place, c.since_ms, c.due_ms FROM submission_copies c \
                      JOIN submission_pieces p ON p.object = c.object \
                      JOIN submission_uploads u ON u.id = p.upload WHERE u.submission = ?";
        let events = "SELECT at_ms, kind, outcome, submission, form, store, person, session, detail \
                      FROM audit_events WHERE submission = ? ORDER BY id";
        Ok(Some(Self {
            submission: named(&SUBMISSION, row),
            hops: all(tx, hops, &HOP, id).await?,
            steps: all(tx, steps, &STEP, id).await?,
            uploads: all(tx, uploads, &UPLOAD, id).await?,
            pieces: all(tx, pieces, &PIECE, id).await?,
            copies: all(tx, copies, &COPY, id).await?,
            events: all(tx, events, &EVENT, id).await?,
        }))
    }

    pub(super) fn upload(&self, id: &str) -> Option<&Named> {
        self.uploads.iter().find(|upload| upload.text("id") == id)
    }

    pub(super) fn pieces_of(&self, upload: &str) -> impl Iterator<Item = &Named> {
        let is_of = move |piece: &&Named| piece.text("upload") == upload;
        self.pieces.iter().filter(is_of)
    }

    pub(super) fn copy_of(&self, piece: &Named) -> Option<&Named> {
        let mut copies = self.copies.iter();
        copies.find(|copy| copy.value("object") == piece.value("object"))
    }

    pub(super) fn step(&self, number: i64) -> Option<&Named> {
        self.steps.iter().find(|step| step.number("step") == number)
    }
}

async fn all(
    tx: &mut Transaction,
    select: &'static str,
    columns: &'static [&'static str],
    id: &str,
) -> Result<Vec<Named>, RecordsError> {
    let rows = tx.query(select, &params![id]).await?;
    Ok(rows.iter().map(|row| named(columns, row)).collect())
}

fn named(columns: &'static [&'static str], row: &Row) -> Named {
    Named::new(columns, row.values().to_vec())
}
