use std::collections::HashSet;

use hydrant_records::{Config, params};

use super::office::{Office, new_id, on_each_database, sent};
use super::*;
use crate::receipt;

on_each_database!(
    a_repeat_has_the_same_answer_and_another_content_is_refused,
    a_repeat_has_the_same_answer_and_another_content_is_refused_on_mariadb,
    repeats
);

async fn repeats(office: &Office) {
    let id = new_id();
    let first = office.desks[0].1.accept(sent(&id, "Ada")).await.unwrap();
    let again = office.desks[1].1.accept(sent(&id, "Ada")).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.accepted_unix_ms, again.accepted_unix_ms);
    assert_eq!(first.receipt, again.receipt);
    let other = office.desks[1]
        .1
        .accept(sent(&id, "Bob"))
        .await
        .unwrap_err();
    assert_eq!(other.reason, "key_reused");
    let rows = "SELECT (SELECT COUNT(*) FROM submissions) + (SELECT COUNT(*) FROM submission_hops) \
                + (SELECT COUNT(*) FROM audit_events)";
    assert_eq!(office.count(rows).await, 3);
}

on_each_database!(
    of_many_at_once_one_wins_and_all_learn_the_same,
    of_many_at_once_one_wins_and_all_learn_the_same_on_mariadb,
    races
);

async fn races(office: &Office) {
    let ids: Vec<_> = (0..20).map(|_| new_id()).collect();
    let racing = (0..400).map(|number: usize| {
        let (_, intake) = office.desks[number % 2].clone();
        let id = ids[number % ids.len()].clone();
        // A few send another content, and may be the first.
        let name = if number.is_multiple_of(7) {
            "Bob"
        } else {
            "Ada"
        };
        tokio::spawn(async move { (id.clone(), name, intake.accept(sent(&id, name)).await) })
    });
    let answers = futures::future::join_all(racing).await;
    for id in &ids {
        let mine = answers.iter().map(|answer| answer.as_ref().unwrap());
        let mine: Vec<_> = mine.filter(|(of, ..)| of == id).collect();
        let good = mine
            .iter()
            .filter_map(|(_, name, told)| Some((name, told.as_ref().ok()?)));
        let good: Vec<_> = good.collect();
        let names: HashSet<_> = good.iter().map(|(name, _)| **name).collect();
        assert_eq!(names.len(), 1, "one content wins");
        let first = good.iter().filter(|(_, told)| !told.replayed).count();
        assert_eq!(first, 1, "one is the first");
        assert!(
            good.iter()
                .all(|(_, told)| told.receipt == good[0].1.receipt)
        );
        let refused = mine.iter().filter_map(|(_, _, told)| told.as_ref().err());
        assert!(refused.clone().all(|error| error.reason == "key_reused"));
        assert_eq!(refused.count() + good.len(), mine.len());
    }
    for table in [
        "SELECT COUNT(*) FROM submissions",
        "SELECT COUNT(*) FROM submission_hops",
        "SELECT COUNT(*) FROM audit_events",
    ] {
        assert_eq!(office.count(table).await, ids.len() as i64, "{table}");
    }
}

on_each_database!(
    what_is_submitted_has_its_steps_once_and_a_receipt_that_is_whole,
    what_is_submitted_has_its_steps_once_and_a_receipt_that_is_whole_on_mariadb,
    submits
);

async fn submits(office: &Office) {
    let id = new_id();
    assert_eq!(
        office.submit(&id).await.unwrap_err().reason,
        "unknown_submission"
    );
    office.desks[0].1.accept(sent(&id, "Ada")).await.unwrap();
    let first = office.submit(&id).await.unwrap();
    let again = office.submit(&id).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.state, "submitted");
    let steps = first.steps.iter();
    let steps: Vec<_> = steps
        .map(|step| (&*step.consumer, &*step.kind, &*step.state))
        .collect();
    let expected = [
        ("demo-consumer", "rest", "ready"),
        ("demo-folder", "folder", "waiting"),
    ];
    assert_eq!(steps, expected);

    let receipt = hops::receipt(&office.desks[1].0, &id).await.unwrap();
    let kinds: Vec<_> = receipt.hops.iter().map(|hop| &*hop.kind).collect();
    assert_eq!(kinds, ["accepted", "submitted"]);
    let mut before = String::new();
    for hop in &receipt.hops {
        before = receipt::hash(&before, &hop.kind, hop.at_unix_ms, &hop.record);
        assert_eq!(hop.hash, before);
    }
}

on_each_database!(
    who_waits_hears_of_a_change_of_another_process,
    who_waits_hears_of_a_change_of_another_process_on_mariadb,
    waits
);

async fn waits(office: &Office) {
    let id = new_id();
    office.desks[0].1.accept(sent(&id, "Ada")).await.unwrap();
    let request = GetRequest {
        id: id.clone(),
        known_version: 1,
        wait_ms: 25_000,
        ..Default::default()
    };
    let begun = tokio::time::Instant::now();
    let (waited, submitted) = tokio::join!(
        status::get(&office.desks[1].0, &request),
        office.submit(&id)
    );
    println!("heard after {:?}", begun.elapsed());
    assert_eq!(waited.unwrap().version, submitted.unwrap().version);
}

#[tokio::test]
async fn an_attachment_that_is_not_whole_holds_the_submission_open() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let office = Office::on(&Config::new(&url).unwrap());
    let id = new_id();
    office.desks[0].1.accept(sent(&id, "Ada")).await.unwrap();
    let insert = "INSERT INTO submission_uploads (id, submission, position, state, name, media, metadata, \
                  length, received, pieces, epoch, created_ms, expires_ms, places) \
                  VALUES ('u', ?, 1, ?, 'a.png', 'image/png', '', 7, 0, 0, 0, 0, 9000000000000000, '')";
    let put = |state| {
        let (records, id) = (office.records.clone(), id.clone());
        async move {
            hydrant_records::transaction!(records, |tx| {
                tx.execute("DELETE FROM submission_uploads", &[]).await?;
                tx.execute(insert, &params![&id, state]).await
            })
            .map_err(|error: hydrant_records::RecordsError| error)
            .unwrap();
        }
    };
    put("open").await;
    let refused = office.submit(&id).await.unwrap_err();
    assert_eq!(refused.reason, "attachments_unfinished");
    assert!(refused.message.contains("a.png"), "{refused:?}");
    put("whole").await;
    assert_eq!(office.submit(&id).await.unwrap().state, "submitted");
}

#[tokio::test]
async fn what_is_no_submission_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("records.db").display());
    let office = Office::on(&Config::new(&url).unwrap());
    let accept = |request| office.desks[0].1.accept(request);
    let upper = new_id().to_uppercase();
    for id in ["", "x", upper.as_str()] {
        let refused = accept(sent(id, "Ada")).await.unwrap_err();
        assert_eq!(refused.reason, "invalid_submission", "{id}");
    }
    let mut other = sent(&new_id(), "Ada");
    other.form = "none".into();
    assert_eq!(accept(other).await.unwrap_err().reason, "unknown_form");
    let mut long = sent(&new_id(), "Ada");
    long.fields = " ".repeat(2 << 20);
    assert_eq!(accept(long).await.unwrap_err().reason, "invalid_submission");
    assert_eq!(office.count("SELECT COUNT(*) FROM audit_events").await, 0);
}
