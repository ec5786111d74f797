//! Brings over what is missing, of one submission in one transaction.

use hydrant_records::{Migration, Records, RecordsError, Sql, Transaction, Value, params};
use serde_json::{Map, json};

use super::judge::Verdict;
use super::rows::{COPY, EVENT, HOP, Named, PIECE, STEP, SUBMISSION, UPLOAD, Whole};
use crate::attachments;
use crate::proto::{Difference, Origin};
use crate::receipt;
use crate::service::events::{self, Event};

/// What could not be brought over, kept for people.
const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[Sql::both(
        "CREATE TABLE IF NOT EXISTS submission_conflicts (\
         submission VARCHAR(36) NOT NULL, site VARCHAR(16) NOT NULL, what VARCHAR(64) NOT NULL, \
         epoch BIGINT NOT NULL, found_ms BIGINT NOT NULL, content LONGTEXT NOT NULL, \
         PRIMARY KEY (submission, site, what))",
    )],
}];
const CONFLICT: [&str; 6] = ["submission", "site", "what", "epoch", "found_ms", "content"];

pub(super) async fn make_tables(records: &Records) -> Result<(), RecordsError> {
    records.migrate("submissions_sites", TABLES).await
}

/// From where something is brought over, and when.
pub(super) struct Carry<'a> {
    pub(super) from: &'a str,
    pub(super) epoch: u64,
    pub(super) now: i64,
}

/// A verdict in words; none where only the time of day differs.
pub(super) fn tell(id: &str, verdict: &Verdict) -> Option<Difference> {
    if verdict.is_nothing() {
        return None;
    }
    let mut parts = Vec::new();
    let mut part = |number: usize, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    part(verdict.hops.len() + verdict.more_hops.len(), "hops");
    part(verdict.steps.len(), "steps");
    part(verdict.uploads.len(), "attachments");
    part(verdict.events.len(), "events");
    part(verdict.left_out.len(), "attachments left out");
    let kind = match verdict.kind {
        "" => "further",
        kind => kind,
    };
    Some(Difference {
        submission: id.to_owned(),
        kind: kind.to_owned(),
        detail: parts.join(", "),
        ..Default::default()
    })
}

impl Carry<'_> {
    /// Does what the verdict says; tells what has changed.
    pub(super) async fn over(
        &self,
        tx: &mut Transaction,
        other: &Whole,
        own: Option<&Whole>,
        verdict: &Verdict,
    ) -> Result<Option<Difference>, RecordsError> {
        let id = other.submission.text("id").to_owned();
        let kept = self.keep_conflicts(tx, other, verdict).await?;
        let mut submission = verdict.submission.clone();
        insert(tx, "submission_hops", &HOP, &verdict.hops).await?;
        for hop in &verdict.more_hops {
            let row = submission.get_or_insert_with(|| other.submission.clone());
            add_hop(tx, row, hop).await?;
        }
        if let Some(row) = &submission {
            upsert(tx, "submissions", &SUBMISSION, 1, std::slice::from_ref(row)).await?;
        }
        upsert(tx, "submission_steps", &STEP, 2, &verdict.steps).await?;
        for upload in &verdict.uploads {
            self.bring_upload(tx, other, own, upload).await?;
        }
        insert(tx, "audit_events", &EVENT, &verdict.events).await?;
        let has_changed = kept > 0 || verdict.kind != "conflict";
        if has_changed {
            self.put_event(tx, other, verdict).await?;
        }
        let told = tell(&id, verdict);
        Ok(told.filter(|_| has_changed))
    }

    /// The upload and its pieces are as they were on the other side. Their objects are not loose any more; and those of
    /// pieces that are replaced are.
    async fn bring_upload(
        &self,
        tx: &mut Transaction,
        other: &Whole,
        own: Option<&Whole>,
        upload: &Named,
    ) -> Result<(), RecordsError> {
        let id = upload.text("id");
        if own.is_some_and(|own| own.upload(id).is_some()) {
            attachments::release(tx, id, self.now).await?;
        }
        let pieces: Vec<_> = other.pieces_of(id).cloned().collect();
        let copies = pieces.iter().filter_map(|piece| other.copy_of(piece));
        let copies: Vec<_> = copies.cloned().collect();
        upsert(
            tx,
            "submission_uploads",
            &UPLOAD,
            1,
            std::slice::from_ref(upload),
        )
        .await?;
        insert(tx, "submission_pieces", &PIECE, &pieces).await?;
        insert(tx, "submission_copies", &COPY, &copies).await?;
        let objects = pieces.iter().map(|piece| piece.value("object"));
        for object in objects.chain(copies.iter().map(|copy| copy.value("copy"))) {
            let delete = "DELETE FROM submission_loose WHERE object = ?";
            tx.execute(delete, &params![object]).await?;
        }
        Ok(())
    }

    /// What can't be brought over is not thrown away; tells how much of it is new.
    async fn keep_conflicts(
        &self,
        tx: &mut Transaction,
        other: &Whole,
        verdict: &Verdict,
    ) -> Result<u64, RecordsError> {
        let id = other.submission.text("id");
        let row = |what: &str, content: String| {
            params![id, self.from, what, self.epoch as i64, self.now, content]
        };
        let mut rows = Vec::new();
        if verdict.kind == "conflict" && verdict.left_out.is_empty() {
            rows.push(row(other.submission.text("fingerprint"), content(other)));
        }
        for upload in &verdict.left_out {
            let pieces = other.pieces_of(upload.text("id")).map(document);
            let content =
                json!({ "upload": document(upload), "pieces": pieces.collect::<Vec<_>>() });
            rows.push(row(upload.text("id"), content.to_string()));
        }
        tx.insert_new("submission_conflicts", &CONFLICT, &rows)
            .await
    }

    async fn put_event(
        &self,
        tx: &mut Transaction,
        other: &Whole,
        verdict: &Verdict,
    ) -> Result<(), RecordsError> {
        let of = &other.submission;
        let origin = Origin {
            store: of.text("store").to_owned(),
            user: of.text("person").to_owned(),
            session: of.text("session").to_owned(),
            ..Default::default()
        };
        let how = if verdict.kind.is_empty() {
            "further"
        } else {
            verdict.kind
        };
        let event = Event {
            at_ms: self.now,
            kind: "reconciled",
            outcome: if how == "conflict" { "failed" } else { "ok" },
            submission: of.text("id"),
            form: of.text("form"),
            origin: &origin,
            detail: json!({ "from": self.from, "epoch": self.epoch, "how": how }).to_string(),
        };
        events::put(tx, &[event]).await
    }
}

/// One more hop at the end of the receipt, which says what the other side's said.
async fn add_hop(
    tx: &mut Transaction,
    submission: &mut Named,
    hop: &Named,
) -> Result<(), RecordsError> {
    let number = submission.number("hops");
    let (kind, record) = (hop.text("kind"), hop.text("record").to_owned());
    let before = submission.text("hop_hash");
    let new = receipt::hop(before, kind, hop.number("at_ms"), record);
    let row = params![
        submission.text("id"),
        number,
        &new.kind,
        new.at_unix_ms,
        &new.record,
        &new.hash
    ];
    tx.insert_new("submission_hops", &HOP, &[row]).await?;
    submission.set("hops", number + 1);
    submission.set("hop_hash", &new.hash);
    Ok(())
}

async fn insert(
    tx: &mut Transaction,
    table: &'static str,
    columns: &'static [&'static str],
    rows: &[Named],
) -> Result<(), RecordsError> {
    let rows: Vec<_> = rows.iter().map(Named::values).collect();
    tx.insert_new(table, columns, &rows).await.map(drop)
}

/// The first columns are the keys.
async fn upsert(
    tx: &mut Transaction,
    table: &'static str,
    columns: &'static [&'static str],
    keys: usize,
    rows: &[Named],
) -> Result<(), RecordsError> {
    let rows: Vec<_> = rows.iter().map(Named::values).collect();
    let (keys, values) = columns.split_at(keys);
    tx.upsert(table, keys, values, &rows).await
}

fn content(other: &Whole) -> String {
    let all = |rows: &[Named]| rows.iter().map(document).collect::<Vec<_>>();
    json!({
        "submission": document(&other.submission),
        "hops": all(&other.hops),
        "steps": all(&other.steps),
        "uploads": all(&other.uploads),
        "pieces": all(&other.pieces),
    })
    .to_string()
}

fn document(row: &Named) -> serde_json::Value {
    let mut document = Map::new();
    for (name, value) in row.columns().iter().zip(row.values()) {
        let value = match value {
            Value::Null => continue,
            Value::Integer(number) => json!(number),
            Value::Real(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::Bytes(bytes) => json!(receipt::hex(bytes)),
        };
        document.insert((*name).to_owned(), value);
    }
    document.into()
}
