//! Bringing over, from one database to another.

use hydrant_records::{Config, RecordsError, params, read, transaction};
use hydrant_sdk::Error;

use super::carry::{self, Carry};
use super::rows::Whole;
use super::{bring, ids, summary};
use crate::proto::{Difference, VerifyReceiptsRequest};
use crate::service::TABLES;
use crate::service::office::{Office, new_id, sent};
use crate::sites::Tables;

struct Two {
    other: Office,
    own: Office,
    _folder: tempfile::TempDir,
}

impl Two {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let office = |name: &str| {
            let url = format!("sqlite:{}", folder.path().join(name).display());
            Office::on(&Config::new(&url).unwrap())
        };
        let two = Self {
            other: office("a.db"),
            own: office("b.db"),
            _folder: folder,
        };
        for office in [&two.other, &two.own] {
            TABLES.make(&office.records).await.unwrap();
        }
        carry::make_tables(&two.own.records).await.unwrap();
        two
    }

    /// All that differs is brought over.
    async fn reconcile(&self) -> Vec<Difference> {
        let mut told = Vec::new();
        for id in ids(&self.other.records, "", 100).await.unwrap() {
            let other = read!(self.other.records, |tx| Whole::read(tx, &id).await);
            let other: Option<Whole> = other.map_err(|error: RecordsError| error).unwrap();
            let carry = Carry {
                from: "a",
                epoch: 2,
                now: 1_800_000_000_000,
            };
            let done = transaction!(self.own.records, |tx| {
                bring(tx, &id, other.as_ref().unwrap(), &carry).await
            });
            told.extend(done.map_err(|error: RecordsError| error).unwrap());
        }
        told
    }

    /// The same submission, at the same moment on both, as replication leaves it.
    async fn both(&self, name: &str) -> String {
        let id = self.other.accept(name).await;
        assert_eq!(self.reconcile().await.len(), 1);
        id
    }
}

async fn whole_receipts(office: &Office) -> u64 {
    let tables = Tables::of(&TABLES, Some(office.records.clone()));
    let request = VerifyReceiptsRequest::default();
    let told = crate::audit::receipts(&tables, &request).await.unwrap();
    assert!(told.findings.is_empty(), "{told:?}");
    told.good
}

async fn steps(office: &Office, id: &str) -> Vec<String> {
    let select = "SELECT state FROM submission_steps WHERE submission = ? ORDER BY step";
    let rows = read!(office.records, |tx| tx.query(select, &params![id]).await);
    let rows = rows.map_err(|error: RecordsError| error).unwrap();
    rows.iter().map(|row| row.get(0).unwrap()).collect()
}

#[tokio::test]
async fn what_is_missing_comes_over_whole_and_the_second_time_changes_nothing() -> Result<(), Error>
{
    let two = Two::new().await;
    let id = two.other.accept("Ada").await;
    two.other.submit(&id).await?;
    let told = two.reconcile().await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].submission.as_str(), told[0].kind.as_str()),
        (&*id, "missing")
    );
    assert_eq!(steps(&two.own, &id).await, ["ready", "waiting"]);
    assert_eq!(whole_receipts(&two.own).await, 1);
    let events = "SELECT COUNT(*) FROM audit_events";
    assert_eq!(
        two.own.count(events).await,
        3,
        "accepted, submitted, reconciled"
    );
    assert!(two.reconcile().await.is_empty());
    assert_eq!(two.own.count(events).await, 3);
    Ok(())
}

#[tokio::test]
async fn what_was_submitted_on_both_sides_stands_once_with_whole_receipts() -> Result<(), Error> {
    let two = Two::new().await;
    let id = two.both("Ada").await;
    two.other.submit(&id).await?;
    let own = Office::submit(&two.own, &id);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    own.await?;
    // The consumer of the first step had it already.
    two.other
        .tamper("UPDATE submission_steps SET state = 'done', ended_ms = 5 WHERE step = 0")
        .await;
    let told = two.reconcile().await;
    assert_eq!(told[0].kind, "both");
    assert_eq!(steps(&two.own, &id).await, ["done", "ready"]);
    assert_eq!(whole_receipts(&two.own).await, 1);
    assert!(two.reconcile().await.is_empty());
    Ok(())
}

#[tokio::test]
async fn another_content_stays_on_record_and_changes_nothing() -> Result<(), Error> {
    let two = Two::new().await;
    let id = new_id();
    two.other.desks[0].1.accept(sent(&id, "Ada")).await?;
    two.own.desks[0].1.accept(sent(&id, "Bob")).await?;
    let told = two.reconcile().await;
    assert_eq!(told[0].kind, "conflict");
    let kept = "SELECT COUNT(*) FROM submission_conflicts WHERE content LIKE '%Ada%'";
    assert_eq!(two.own.count(kept).await, 1);
    let is_bob = "SELECT COUNT(*) FROM submissions WHERE fields LIKE '%Bob%'";
    assert_eq!(two.own.count(is_bob).await, 1);
    assert!(two.reconcile().await.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_is_the_same_on_both_sides_is_not_looked_at() -> Result<(), Error> {
    let two = Two::new().await;
    let id = two.both("Ada").await;
    let stretch = ("", id.as_str());
    let other = summary(&two.other.records, stretch).await?;
    // But for the event that tells that it was brought.
    let own = summary(&two.own.records, stretch).await?;
    assert_eq!(other[&id][0], own[&id][0]);
    two.own.tamper("UPDATE submissions SET version = 9").await;
    assert_ne!(
        other[&id][0],
        summary(&two.own.records, stretch).await?[&id][0]
    );
    Ok(())
}

/// A column that somebody adds, and that is not brought over, would be lost without a word.
#[tokio::test]
async fn each_column_of_a_submission_is_brought_over() {
    use super::rows::{COPY, EVENT, HOP, PIECE, STEP, SUBMISSION, UPLOAD};
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let records = hydrant_records::Records::open(hydrant_records::Config::new(&url).unwrap());
    crate::service::TABLES.make(&records).await.unwrap();
    let tables: [(&str, &[&str]); 7] = [
        ("submissions", &SUBMISSION),
        ("submission_hops", &HOP),
        ("submission_steps", &STEP),
        ("submission_uploads", &UPLOAD),
        ("submission_pieces", &PIECE),
        ("submission_copies", &COPY),
        ("audit_events", &EVENT),
    ];
    for (table, columns) in tables {
        let select = "SELECT name FROM pragma_table_info(?)";
        let named = hydrant_records::params![table];
        let rows = hydrant_records::read!(records, |tx| tx.query(select, &named).await);
        let rows = rows.map_err(|error: hydrant_records::RecordsError| error);
        let names = rows
            .unwrap()
            .into_iter()
            .map(|row| row.get::<String>(0).unwrap());
        // The number of an event is the database's own.
        let mut there: Vec<_> = names
            .filter(|name| (table, name.as_str()) != ("audit_events", "id"))
            .collect();
        let mut brought: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
        there.sort();
        brought.sort();
        assert_eq!(brought, there, "{table}");
    }
}
