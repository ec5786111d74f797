//! Documents in revisions, as every database has to keep them.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_records::{Config, Records, Tables, read};
use hydrant_runtime::Clock;
use hydrant_sdk::Code;
use proptest::prelude::*;

use super::desk::{Done, What, Wish, at};
use super::{Desk, Edit, Published, Refused, TABLES, revise, store};
use crate::bundle::Bundle;
use crate::documents::{DocumentId, Kind};

fn flags(name: &str) -> DocumentId {
    DocumentId::new(Kind::Flags, name).unwrap()
}

/// A flag set with one flag, named as the set.
fn set(name: &str, default: &str) -> String {
    format!(
        r#"{{"flags": {{"{name}": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "{default}"}}}}}}"#
    )
}

fn put(name: &str, default: &str) -> Edit {
    Edit {
        id: flags(name),
        body: Some(set(name, default)),
    }
}

fn remove(name: &str) -> Edit {
    Edit {
        id: flags(name),
        body: None,
    }
}

fn key(name: &str, digit: char) -> Edit {
    let sha256: String = std::iter::repeat_n(digit, 64).collect();
    Edit {
        id: DocumentId::new(Kind::Key, name).unwrap(),
        body: Some(format!(r#"{{"sha256": "{sha256}", "role": "client"}}"#)),
    }
}

fn wish(what: What) -> Wish {
    Wish {
        author: "ann".into(),
        reason: "a test".into(),
        what,
        base: None,
        dry_run: false,
        own: false,
    }
}

/// A desk on a database.
struct Office {
    desk: Desk,
    _folder: Option<tempfile::TempDir>,
}

impl Office {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/mobile.db", folder.path().display());
        Self {
            desk: desk(&url),
            _folder: Some(folder),
        }
    }

    async fn edit(&self, edits: Vec<Edit>) -> Result<Done, Refused> {
        self.desk.fulfil(wish(What::Edits(edits))).await
    }

    async fn revert(&self, to: u64, only: &[DocumentId]) -> Result<Done, Refused> {
        let only = only.to_vec();
        self.desk.fulfil(wish(What::Revert { to, only })).await
    }

    async fn documents(&self) -> BTreeMap<Kind, BTreeMap<String, String>> {
        self.desk.newest().await.unwrap().documents
    }

    async fn at(&self, revision: u64) -> Bundle {
        let records = self.desk.records().await.unwrap();
        let found = read!(records, |tx| {
            let head = store::head(tx).await?;
            at(tx, head, revision).await
        });
        found.unwrap()
    }
}

fn desk(url: &str) -> Desk {
    desk_on(Config::new(url).unwrap())
}

fn desk_on(config: Config) -> Desk {
    let records = Records::open(config);
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1000));
    Desk::new(
        Tables::of(&TABLES, Some(records)),
        Published::new(None),
        clock,
        Vec::new(),
    )
}

#[tokio::test]
async fn a_change_is_a_revision_and_nothing_new_is_none() {
    keeps_revisions(&Office::sqlite()).await;
}

async fn keeps_revisions(office: &Office) {
    let first = office
        .edit(vec![put("a", "on"), put("b", "on")])
        .await
        .unwrap();
    assert_eq!((first.revision, first.changed.len()), (1, 2));
    let same = office.edit(vec![put("a", "on")]).await.unwrap();
    assert_eq!((same.revision, same.changed.len()), (1, 0));
    let second = office
        .edit(vec![put("a", "off"), remove("b")])
        .await
        .unwrap();
    assert_eq!(second.revision, 2);
    let names: Vec<_> = second
        .changed
        .iter()
        .map(|one| one.id.to_string())
        .collect();
    assert_eq!(names, ["flags/a", "flags/b"]);
    assert_eq!(second.changed[0].before, Some(set("a", "on")));
    assert_eq!(second.changed[1].after, None);
    let then = office.at(1).await;
    assert_eq!(then.get(Kind::Flags, "b"), Some(set("b", "on").as_str()));
    assert_eq!(office.at(0).await.documents, BTreeMap::new());
    assert_eq!(office.at(2).await.documents, office.documents().await);
    let current = office.desk.current().await.unwrap();
    assert_eq!(current.revision, 2);
    office.revert(1, &[]).await.unwrap();
    let records = office.desk.records().await.unwrap();
    let history = read!(records, |tx| store::revisions(tx, None, None, 9).await).unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|one| (one.number, one.reverts_to))
        .collect();
    assert_eq!(told, [(3, Some(1)), (2, None), (1, None)]);
}

#[tokio::test]
async fn what_is_wrong_leaves_no_trace() {
    refuses(&Office::sqlite()).await;
}

async fn refuses(office: &Office) {
    office.edit(vec![put("a", "on")]).await.unwrap();
    let before = office.documents().await;
    let with = |body: &str| Edit {
        id: flags("a"),
        body: Some(body.into()),
    };
    let refused = office
        .edit(vec![put("b", "on"), with("{\n  \"flags\": ,\n}")])
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.error.code, Code::InvalidArgument);
    let mistake = &refused.mistakes[0];
    assert_eq!((mistake.document.as_str(), mistake.line), ("flags/a", 2));
    let refused = office.edit(vec![put("a", "none")]).await.unwrap_err();
    assert!(refused.error.message.starts_with("flags/a:1:"), "{refused}");
    for (edits, reason) in [
        (vec![], "bad_change"),
        (vec![put("a", "on"), put("a", "off")], "bad_change"),
        (vec![remove("nobody")], "no_such_document"),
        (
            vec![with(&format!("\"{}\"", "x".repeat(1 << 20)))],
            "does_not_compile",
        ),
        (
            vec![Edit {
                id: DocumentId::new(Kind::Allocation, "experiment.x").unwrap(),
                body: Some("{}".into()),
            }],
            "own_document",
        ),
    ] {
        let refused = office.edit(edits).await.unwrap_err();
        assert_eq!(refused.error.reason, reason, "{refused}");
    }
    let mut nameless = wish(What::Edits(vec![put("a", "off")]));
    nameless.reason = " \n".into();
    assert!(office.desk.fulfil(nameless).await.is_err());
    assert_eq!(office.documents().await, before);
    assert_eq!(
        office.edit(vec![put("a", "off")]).await.unwrap().revision,
        2
    );
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_tells_what_would_be() {
    let office = Office::sqlite();
    let mut only_check = wish(What::Edits(vec![put("a", "on")]));
    only_check.dry_run = true;
    let done = office.desk.fulfil(only_check).await.unwrap();
    assert_eq!((done.revision, done.changed.len()), (0, 1));
    assert!(office.documents().await.is_empty());
}

#[tokio::test]
async fn who_has_seen_an_older_revision_does_not_overwrite_what_came_since() {
    let office = Office::sqlite();
    office
        .edit(vec![put("a", "on"), put("b", "on")])
        .await
        .unwrap();
    office.edit(vec![put("a", "off")]).await.unwrap();
    let based = async |edit: Edit, base: u64| {
        let mut wish = wish(What::Edits(vec![edit]));
        wish.base = Some(base);
        office.desk.fulfil(wish).await
    };
    let refused = based(put("a", "on"), 1).await.unwrap_err();
    assert_eq!(refused.error.code, Code::Aborted);
    let expected = "flags/a changed since revision 1: revision 2 by ann, \"a test\"";
    assert_eq!(refused.error.message, expected);
    assert_eq!(based(put("b", "off"), 1).await.unwrap().revision, 3);
    assert_eq!(based(put("a", "on"), 3).await.unwrap().revision, 4);
    let refused = based(put("a", "off"), 9).await.unwrap_err();
    assert_eq!(refused.error.code, Code::NotFound);
}

#[tokio::test]
async fn two_who_change_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/mobile.db", folder.path().display());
    lose_nothing(|| desk(&url), 10).await;
}

#[tokio::test]
async fn mariadb_keeps_documents_as_well() {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => return hydrant_harness::skipped(&missing),
    };
    let office = |database: &str| {
        server.create_database(database);
        let mut config = Config::new(&server.url(database)).unwrap();
        config.password_file = Some(server.password_file());
        Office {
            desk: desk_on(config),
            _folder: None,
        }
    };
    keeps_revisions(&office("one")).await;
    refuses(&office("two")).await;
    reverts(&office("three")).await;
    knows_every_revision(&office("four"), 40).await;
    let mut config = Config::new(&server.url(DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    lose_nothing(|| desk_on(config.clone()), 10).await;
}

/// Two processes, as they have nothing in common but the database. Each change is checked together with
/// all that came before it: of two sets with the same flag one is refused, and nothing is lost.
async fn lose_nothing(desk: impl Fn() -> Desk, rounds: usize) {
    let (one, other) = (desk(), desk());
    let change = async |desk: &Desk, mine: &str, round: usize| {
        let twice = set(&format!("twice{round}"), "on");
        let edits = vec![
            put(&format!("own-{mine}{round}"), "on"),
            Edit {
                id: flags(&format!("{mine}{round}")),
                body: Some(twice),
            },
        ];
        desk.fulfil(wish(What::Edits(edits))).await
    };
    for round in 0..rounds {
        let done = tokio::join!(change(&one, "x", round), change(&other, "y", round));
        let good = [&done.0, &done.1]
            .iter()
            .filter(|done| done.is_ok())
            .count();
        assert_eq!(good, 1, "round {round}: {done:?}");
    }
    let newest = desk().newest().await.unwrap();
    assert_eq!(newest.revision, rounds as u64);
    assert_eq!(newest.ids().count(), 2 * rounds);
    desk().current().await.unwrap();
}

#[tokio::test]
async fn a_revert_is_a_revision_that_makes_the_documents_of_the_older_one() {
    reverts(&Office::sqlite()).await;
}

async fn reverts(office: &Office) {
    office
        .edit(vec![put("a", "on"), put("b", "on"), key("app", '1')])
        .await
        .unwrap();
    office
        .edit(vec![put("a", "off"), remove("b"), put("c", "on")])
        .await
        .unwrap();
    let done = office.revert(1, &[flags("a")]).await.unwrap();
    assert_eq!((done.revision, done.changed.len()), (3, 1));
    let revoked = Edit {
        body: None,
        ..key("app", '1')
    };
    office.edit(vec![revoked]).await.unwrap();
    let done = office.revert(1, &[]).await.unwrap();
    assert_eq!(done.revision, 5);
    let mut expected = office.at(1).await;
    expected.put(&key("app", '1').id, None);
    let documents = office.documents().await;
    assert_eq!(documents, expected.documents, "the revoked key stays away");
    office.revert(1, &[key("app", '1').id]).await.unwrap();
    assert_eq!(office.documents().await, office.at(1).await.documents);
    for (to, only, code) in [
        (99, vec![], Code::NotFound),
        (1, vec![flags("z")], Code::NotFound),
    ] {
        assert_eq!(office.revert(to, &only).await.unwrap_err().error.code, code);
    }
}

#[tokio::test]
async fn the_first_revision_is_made_once_and_before_any_change() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/mobile.db", folder.path().display());
    let tables = Tables::of(&TABLES, Some(Records::open(Config::new(&url).unwrap())));
    let (first, clock) = (vec![put("a", "on")], Clock::system());
    let office = Office {
        desk: Desk::new(tables, Published::new(None), clock, first),
        _folder: Some(folder),
    };
    let changed = office.edit(vec![put("b", "on")]).await.unwrap();
    assert_eq!(changed.revision, 2, "somebody is quicker than the leader");
    assert_eq!(office.desk.begun().await.unwrap(), 2);
    assert_eq!(office.documents().await[&Kind::Flags].len(), 2);
    office.edit(vec![remove("a"), remove("b")]).await.unwrap();
    assert_eq!(office.desk.begun().await.unwrap(), 3, "nothing new");
    assert!(office.documents().await.is_empty());
}

#[tokio::test]
async fn without_a_database_it_says_what_to_write() {
    let clock = Clock::system();
    let desk = Desk::new(
        Tables::of(&TABLES, None),
        Published::new(None),
        clock,
        Vec::new(),
    );
    let refused = desk.fulfil(wish(What::Edits(vec![put("a", "on")]))).await;
    let error = refused.unwrap_err().error;
    assert_eq!(error.code, Code::FailedPrecondition);
    assert!(error.mend.contains("[records]\nurl = "), "{error}");
    assert_eq!(desk.current().await.unwrap().revision, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, bool),
    Remove(u8),
    Revert(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, any::<bool>()).prop_map(|(set, on)| Step::Put(set, on)),
        2 => (0..4u8).prop_map(Step::Remove),
        1 => (0..8u8).prop_map(Step::Revert),
    ]
}

proptest! {
    /// Without tables: whatever happens, a revert makes exactly the documents of its revision, and
    /// what changed leads from one revision to the next and back.
    #[test]
    fn any_revision_can_be_gone_back_to(steps in prop::collection::vec(step(), 1..20)) {
        let mut revisions = vec![Bundle::default()];
        for step in steps {
            let current = revisions.last().unwrap().clone();
            let mut next = match step {
                Step::Put(set, on) => {
                    let edit = put(&format!("s{set}"), ["on", "off"][usize::from(on)]);
                    revise::edited(&current, &[edit]).unwrap()
                }
                Step::Remove(set) => {
                    revise::edited(&current, &[remove(&format!("s{set}"))]).unwrap_or_else(|_| current.clone())
                }
                Step::Revert(to) => {
                    let then = &revisions[usize::from(to) % revisions.len()];
                    let reverted = revise::reverted(&current, then, &[]).unwrap();
                    prop_assert_eq!(&reverted.documents, &then.documents);
                    reverted
                }
            };
            revise::finish(&current, &mut next).unwrap();
            let changed = revise::changed(&current, &next);
            let (mut forth, mut back) = (current.clone(), next.clone());
            for one in changed {
                forth.put(&one.id, one.after);
                back.put(&one.id, one.before);
            }
            prop_assert_eq!(&forth.documents, &next.documents);
            prop_assert_eq!(&back.documents, &current.documents);
            revisions.push(next);
        }
    }
}

/// With tables: as they keep it, every revision is what it was when it was made.
#[tokio::test]
async fn the_tables_know_every_revision() {
    knows_every_revision(&Office::sqlite(), 40).await;
}

async fn knows_every_revision(office: &Office, steps: usize) {
    let mut lots = fastrand::Rng::with_seed(hydrant_harness::seed());
    let mut known = vec![BTreeMap::new()];
    for _ in 0..steps {
        let name = format!("s{}", lots.u8(0..4));
        let done = match lots.u8(0..8) {
            0..4 => {
                office
                    .edit(vec![put(&name, ["on", "off"][lots.usize(0..2)])])
                    .await
            }
            4..6 => office.edit(vec![remove(&name)]).await,
            _ => office.revert(lots.u64(0..known.len() as u64), &[]).await,
        };
        if done.is_ok_and(|done| !done.changed.is_empty()) {
            known.push(office.documents().await);
        }
    }
    for (revision, documents) in known.iter().enumerate() {
        assert_eq!(
            office.at(revision as u64).await.documents,
            *documents,
            "{revision}"
        );
    }
}
