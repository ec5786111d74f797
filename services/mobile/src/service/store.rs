//! Documents and revisions, as the tables have them.

use std::collections::BTreeMap;

use hydrant_records::{RecordsError, Row, Transaction, Value, params};

use crate::bundle::Bundle;
use crate::documents::{DocumentId, Kind};

/// The texts of documents, each with the revision that changed it last.
pub(crate) type Documents = BTreeMap<DocumentId, Stored>;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) body: String,
    /// The revision that changed it last.
    pub(crate) revision: u64,
}

/// A revision, without what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) number: u64,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) at_unix_ms: i64,
    pub(crate) reverts_to: Option<u64>,
}

/// What a revision does to one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) id: DocumentId,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// The number of the newest revision. Who is going to write one keeps others from doing so.
pub(crate) async fn lock_head(tx: &mut Transaction) -> Result<u64, RecordsError> {
    let rows = tx
        .lock("SELECT revision FROM mobile_head WHERE id = 1", &[])
        .await?;
    number(rows.first())
}

/// The number of the newest revision.
pub(crate) async fn head(tx: &mut Transaction) -> Result<u64, RecordsError> {
    let rows = tx
        .query("SELECT revision FROM mobile_head WHERE id = 1", &[])
        .await?;
    number(rows.first())
}

/// A statement that changes nothing, and is refused where nothing may be changed.
pub(crate) async fn try_to_write(tx: &mut Transaction) -> Result<(), RecordsError> {
    let changed = tx.execute("DELETE FROM mobile_head WHERE id = 0", &[]);
    changed.await.map(drop)
}

fn number(row: Option<&Row>) -> Result<u64, RecordsError> {
    row.map_or(Ok(0), |row| unsigned(row, 0))
}

/// All documents as they are now.
pub(crate) async fn documents(tx: &mut Transaction) -> Result<Documents, RecordsError> {
    let rows = tx
        .query(
            "SELECT kind, name, revision, body FROM mobile_documents",
            &[],
        )
        .await?;
    read_documents(&rows)
}

/// All documents as they were at a revision.
pub(crate) async fn documents_at(
    tx: &mut Transaction,
    revision: u64,
) -> Result<Documents, RecordsError> {
    let rows = tx
        .query(
            "SELECT c.kind, c.name, c.revision, c.after_text FROM mobile_changes c \
             JOIN (SELECT kind, name, MAX(revision) AS last FROM mobile_changes \
             WHERE revision <= ? GROUP BY kind, name) newest \
             ON c.kind = newest.kind AND c.name = newest.name AND c.revision = newest.last \
             WHERE c.after_text IS NOT NULL",
            &params![signed(revision)],
        )
        .await?;
    read_documents(&rows)
}

fn read_documents(rows: &[Row]) -> Result<Documents, RecordsError> {
    let mut documents = Documents::new();
    for row in rows {
        // A kind that a later version of the program knew is left alone.
        if let Some(id) = read_id(row)? {
            let (revision, body) = (unsigned(row, 2)?, row.get(3)?);
            documents.insert(id, Stored { body, revision });
        }
    }
    Ok(documents)
}

fn read_id(row: &Row) -> Result<Option<DocumentId>, RecordsError> {
    let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
    let kind = kind.parse::<Kind>().ok();
    Ok(kind.and_then(|kind| DocumentId::new(kind, &name).ok()))
}

/// Writes a revision, the next one after the head, which is locked.
pub(crate) async fn write(
    tx: &mut Transaction,
    revision: &Revision,
    changed: &[Changed],
) -> Result<(), RecordsError> {
    let number = signed(revision.number);
    tx.execute(
        "INSERT INTO mobile_revisions (number, author, reason, at_unix_ms, reverts_to) \
         VALUES (?, ?, ?, ?, ?)",
        &params![
            number,
            &revision.author,
            &revision.reason,
            revision.at_unix_ms,
            revision.reverts_to.map(signed)
        ],
    )
    .await?;
    write_changes(tx, number, changed).await?;
    tx.execute(
        "UPDATE mobile_head SET revision = ? WHERE id = 1",
        &params![number],
    )
    .await?;
    Ok(())
}

async fn write_changes(
    tx: &mut Transaction,
    number: i64,
    changed: &[Changed],
) -> Result<(), RecordsError> {
    let keys = |one: &Changed| {
        [
            one.id.kind.as_str().into(),
            one.id.name().into(),
            number.into(),
        ]
    };
    let history: Vec<Vec<Value>> = changed
        .iter()
        .map(|one| {
            let texts = [one.before.clone().into(), one.after.clone().into()];
            keys(one).into_iter().chain(texts).collect()
        })
        .collect();
    let (ids, texts) = (["kind", "name", "revision"], ["before_text", "after_text"]);
    tx.upsert("mobile_changes", &ids, &texts, &history).await?;
    let put: Vec<Vec<Value>> = changed
        .iter()
        .filter_map(|one| {
            let body = Value::from(one.after.clone()?);
            Some(keys(one).into_iter().chain([body]).collect())
        })
        .collect();
    let (ids, values) = (["kind", "name"], ["revision", "body"]);
    tx.upsert("mobile_documents", &ids, &values, &put).await?;
    for one in changed.iter().filter(|one| one.after.is_none()) {
        tx.execute(
            "DELETE FROM mobile_documents WHERE kind = ? AND name = ?",
            &params![one.id.kind.as_str(), one.id.name()],
        )
        .await?;
    }
    Ok(())
}

/// One revision; `None` when there is no such.
pub(crate) async fn revision(
    tx: &mut Transaction,
    number: u64,
) -> Result<Option<Revision>, RecordsError> {
    let rows = tx
        .query(
            "SELECT number, author, reason, at_unix_ms, reverts_to FROM mobile_revisions \
             WHERE number = ?",
            &params![signed(number)],
        )
        .await?;
    rows.first().map(read_revision).transpose()
}

/// At most `limit` revisions before `before`, newest first; only those that changed `document`, when
/// one is given.
pub(crate) async fn revisions(
    tx: &mut Transaction,
    document: Option<&DocumentId>,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Revision>, RecordsError> {
    let before = before.map_or(i64::MAX, signed);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match document {
        None => {
            let sql = "SELECT number, author, reason, at_unix_ms, reverts_to \
                       FROM mobile_revisions WHERE number < ? ORDER BY number DESC LIMIT ?";
            tx.query(sql, &params![before, limit]).await?
        }
        Some(id) => {
            let sql = "SELECT r.number, r.author, r.reason, r.at_unix_ms, r.reverts_to \
                       FROM mobile_changes c JOIN mobile_revisions r ON r.number = c.revision \
                       WHERE c.kind = ? AND c.name = ? AND c.revision < ? \
                       ORDER BY c.revision DESC LIMIT ?";
            let of = params![id.kind.as_str(), id.name(), before, limit];
            tx.query(sql, &of).await?
        }
    };
    rows.iter().map(read_revision).collect()
}

fn read_revision(row: &Row) -> Result<Revision, RecordsError> {
    Ok(Revision {
        number: unsigned(row, 0)?,
        author: row.get(1)?,
        reason: row.get(2)?,
        at_unix_ms: row.get(3)?,
        reverts_to: row.get::<Option<i64>>(4)?.map(i64::unsigned_abs),
    })
}

/// Who made which of the revisions that changed a document last, and when.
pub(crate) async fn authors(
    tx: &mut Transaction,
) -> Result<BTreeMap<u64, (String, i64)>, RecordsError> {
    let rows = tx
        .query(
            "SELECT number, author, at_unix_ms FROM mobile_revisions \
             WHERE number IN (SELECT DISTINCT revision FROM mobile_changes)",
            &[],
        )
        .await?;
    let read = |row: &Row| Ok((unsigned(row, 0)?, (row.get(1)?, row.get(2)?)));
    rows.iter().map(read).collect()
}

/// Which documents were changed by which of the revisions from `from` to `to`, both included.
pub(crate) async fn changed(
    tx: &mut Transaction,
    from: u64,
    to: u64,
) -> Result<Vec<(u64, DocumentId)>, RecordsError> {
    let rows = tx
        .query(
            "SELECT kind, name, revision FROM mobile_changes \
             WHERE revision >= ? AND revision <= ? ORDER BY revision, kind, name",
            &params![signed(from), signed(to)],
        )
        .await?;
    let mut changed = Vec::new();
    for row in &rows {
        if let Some(id) = read_id(row)? {
            changed.push((unsigned(row, 2)?, id));
        }
    }
    Ok(changed)
}

/// All documents of a revision, as they are published; the newest when `documents` are.
pub(crate) fn bundle(revision: u64, at_unix_ms: i64, documents: &Documents) -> Bundle {
    let mut bundle = Bundle {
        revision,
        at_unix_ms,
        ..Bundle::default()
    };
    for (id, stored) in documents {
        let of_kind = bundle.documents.entry(id.kind).or_default();
        of_kind.insert(id.name().to_owned(), stored.body.clone());
    }
    bundle
}

/// The newest revision with all its documents.
pub(crate) async fn newest(tx: &mut Transaction) -> Result<Bundle, RecordsError> {
    let head = head(tx).await?;
    let at = revision(tx, head).await?.map_or(0, |one| one.at_unix_ms);
    Ok(bundle(head, at, &documents(tx).await?))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row, column: usize) -> Result<u64, RecordsError> {
    row.get::<i64>(column).map(i64::unsigned_abs)
}
