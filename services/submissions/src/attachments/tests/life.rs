//! What begins, ends, is joined and swept.

use super::faulty::{Fault, Faulty};
use super::*;
use crate::attachments::listing;
use crate::attachments::rows::State;
use crate::receipt::sha256_of;

async fn close(bench: &Bench, now: i64) -> Result<Vec<serde_json::Value>, hydrant_sdk::Error> {
    transaction!(bench.records, |tx| listing::close(tx, &bench.id, now).await)
}

#[tokio::test]
async fn parts_are_joined_without_a_copy_and_the_hash_is_that_of_the_whole() {
    let store = Faulty::new(Fault::None);
    let bench = Bench::on(vec![("main", store.clone())]).await;
    joined(&bench, &store).await;
}

#[tokio::test]
async fn parts_are_joined_expire_and_are_swept_on_mariadb() {
    let server = match hydrant_harness::MariaDb::start(hydrant_harness::mariadb::Options::default())
    {
        Ok(server) => server,
        Err(missing) => return hydrant_harness::skipped(&missing),
    };
    let store = Faulty::new(Fault::None);
    let mut config = Config::new(&server.url(hydrant_harness::mariadb::DATABASE)).unwrap();
    config.password_file = Some(server.password_file());
    let stores: Vec<(&str, Arc<dyn ObjectStore>)> = vec![("main", store.clone())];
    let bench = Bench::with(config, tempfile::tempdir().unwrap(), stores).await;
    joined(&bench, &store).await;
    swept(&bench, &store).await;
}

async fn joined(bench: &Bench, store: &Faulty) {
    let (desk, all) = (bench.process(), bytes(2000, 9));
    let mut ids = Vec::new();
    for part in [&all[..700], &all[700..700], &all[700..]] {
        let upload = bench
            .begin_as(&desk, Some(part.len()), Some(Concat::Partial))
            .await
            .unwrap();
        bench
            .send(&desk, &upload.id, 0, part, How::default())
            .await
            .unwrap();
        ids.push(upload.id);
    }
    assert_eq!(
        close(bench, 0).await.unwrap_err().reason,
        "attachments_unfinished"
    );
    let objects = store.len().await;
    let twice = vec![ids[0].clone(), ids[0].clone()];
    let twice = Concat::Final("final;x".into(), twice);
    let refused = bench
        .begin_as(&desk, None, Some(twice))
        .await
        .err()
        .unwrap();
    assert_eq!(status(&refused), 400);
    let text = format!("final;{}", ids.join(" "));
    let last = Concat::Final(text, ids.clone());
    let whole = bench
        .begin_as(&desk, None, Some(last.clone()))
        .await
        .unwrap();
    assert_eq!(whole.sha256.clone().unwrap(), sha256_of(&all));
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
    assert_eq!(bench.fetch(&whole, 1500).await.unwrap(), all[1500..]);
    assert_eq!(store.len().await, objects);
    let gone = desk.look(&bench.id, &ids[0]).await.err().unwrap();
    assert_eq!(status(&gone), 410);
    let again = bench.begin_as(&desk, None, Some(last)).await.err().unwrap();
    assert_eq!(status(&again), 400);
    let refused = bench
        .send(&desk, &whole.id, 2000, b"x", How::default())
        .await;
    assert_eq!(status(&refused.err().unwrap()), 403);
    assert_eq!(close(bench, 0).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_closed_is_not_changed() {
    let bench = Bench::new().await;
    let desk = bench.process();
    let id = bench.begin(&desk, 10).await.id;
    bench
        .send(&desk, &id, 0, &[7; 10], How::default())
        .await
        .unwrap();
    bench
        .execute(
            "UPDATE submissions SET state = 'submitted' WHERE id = ?",
            &bench.id,
        )
        .await;
    for refused in [
        bench.begin_as(&desk, Some(1), None).await.err(),
        desk.delete(&bench.id, &id).await.err(),
    ] {
        assert_eq!(status(&refused.unwrap()), 403);
    }
    assert_eq!(desk.look(&bench.id, &id).await.unwrap().state, State::Whole);
}

#[tokio::test]
async fn a_first_post_whose_answer_was_lost_holds_up_nothing() {
    let bench = Bench::new().await;
    let desk = bench.process();
    let lost = bench.begin(&desk, 10).await.id;
    let id = bench.begin(&desk, 10).await.id;
    assert!(close(&bench, 0).await.is_err());
    bench
        .send(&desk, &id, 0, &[7; 10], How::default())
        .await
        .unwrap();
    // So may be that to the POST of a part.
    let part = bench.begin_as(&desk, Some(10), Some(Concat::Partial));
    part.await.unwrap();
    let receipt = close(&bench, 0).await.unwrap();
    assert_eq!(receipt.len(), 1);
    assert_eq!(receipt[0]["stored"], serde_json::json!(["main"]));
    assert_eq!(
        status(&desk.look(&bench.id, &lost).await.err().unwrap()),
        410
    );
    // With a key there is no second one.
    let new = || New {
        key: Some("3f2a7c1e-8d7b-4f0e-9a55-6c1b2d3e4f50".into()),
        meta: Metadata::parse("filename YS5wbmc=,filetype aW1hZ2UvcG5n").unwrap(),
        length: Some(11),
        concat: None,
    };
    let (one, is_new) = desk.create(&bench.id, new()).await.unwrap();
    let (other, is_second) = desk.create(&bench.id, new()).await.unwrap();
    assert_eq!((one.id, is_new, is_second), (other.id, true, false));
    let changed = New {
        length: Some(12),
        ..new()
    };
    assert_eq!(
        status(&desk.create(&bench.id, changed).await.err().unwrap()),
        422
    );
}

#[tokio::test]
async fn what_nobody_goes_on_with_expires_and_its_objects_are_swept_twice() {
    let store = Faulty::new(Fault::None);
    let bench = Bench::on(vec![("main", store.clone())]).await;
    swept(&bench, &store).await;
}

async fn swept(bench: &Bench, store: &Faulty) {
    let (desk, limits) = (bench.process(), Limits::default());
    let others = store.len().await;
    let id = bench.begin(&desk, 2000).await.id;
    let kept = bench.begin(&desk, 100).await;
    bench
        .send(&desk, &kept.id, 0, &bytes(100, 1), How::default())
        .await
        .unwrap();
    bench
        .send(&desk, &id, 0, &bytes(1500, 1), How::default())
        .await
        .unwrap();
    desk.sweep().await.unwrap();
    assert_eq!(store.len().await, others + 4);
    bench.clock.advance(limits.life + Duration::from_secs(1));
    assert_eq!(status(&desk.look(&bench.id, &id).await.err().unwrap()), 410);
    desk.sweep().await.unwrap();
    for _ in 0..2 {
        bench.clock.advance(limits.loose + Duration::from_secs(1));
        store.set(Fault::Away);
        desk.sweep().await.unwrap();
        bench.clock.advance(limits.loose + Duration::from_secs(1));
        store.set(Fault::None);
        desk.sweep().await.unwrap();
        assert_eq!(store.len().await, others + 1, "what a row names stays");
    }
    assert_eq!(
        bench.count("SELECT COUNT(*) FROM submission_loose").await,
        0
    );
    let whole = bench.look(&kept.id).await;
    assert_eq!(bench.fetch(&whole, 0).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_writer_that_slept_hears_that_its_piece_was_given_up() {
    let store = Faulty::new(Fault::None);
    let bench = Bench::on(vec![("main", store.clone())]).await;
    let desk = bench.process();
    let (id, all) = (bench.begin(&desk, 600).await.id, bytes(600, 1));
    // The first piece is written and waits for its checksum; then the process sleeps for hours.
    let (sweeper, clock) = (bench.process(), bench.clock.clone());
    let body = stream::iter([&all[..520], &all[520..]]).then(|chunk| {
        let (sweeper, clock) = (sweeper.clone(), clock.clone());
        let (store, chunk) = (store.clone(), Bytes::copy_from_slice(chunk));
        async move {
            // Whoever writes it is shut out in one turn, and it goes in the next.
            for left in [1, 0, 0]
                .into_iter()
                .take(3 * usize::from(chunk.len() == 80))
            {
                clock.advance(Duration::from_secs(4000));
                sweeper.sweep().await.unwrap();
                assert_eq!(store.len().await, left);
            }
            Ok::<_, &str>(chunk)
        }
    });
    use base64::Engine as _;
    use sha2::Digest as _;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(&all));
    let sent = Sent {
        offset: 0,
        length: None,
        announced: None,
        checksum: Checksum::parse(&format!("sha256 {hash}")),
    };
    let refused = desk
        .receive(&bench.id, &id, sent, body)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.error.reason, "swept");
    assert_eq!(bench.look(&id).await.received, 0);
    bench
        .send(&desk, &id, 0, &all, How::default())
        .await
        .unwrap();
    let whole = bench.look(&id).await;
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}

#[tokio::test]
async fn a_form_takes_so_many_so_large_and_of_these_types() {
    let bench = Bench::new().await;
    let desk = bench.process();
    let large = bench
        .begin_as(&desk, Some(200_000_000), None)
        .await
        .err()
        .unwrap();
    assert_eq!(status(&large), 413);
    let other = New {
        key: None,
        meta: Metadata::parse("filename YS5wbmc=,filetype dGV4dC9odG1s").unwrap(),
        length: Some(1),
        concat: None,
    };
    assert_eq!(
        status(&desk.create(&bench.id, other).await.err().unwrap()),
        415
    );
    for _ in 0..10 {
        bench.begin(&desk, 1).await;
    }
    let eleventh = bench.begin_as(&desk, Some(1), None).await.err().unwrap();
    assert_eq!(status(&eleventh), 422);
    let deferred = bench
        .begin_as(&desk, None, Some(Concat::Partial))
        .await
        .unwrap();
    let more = bench
        .send(&desk, &deferred.id, 0, &bytes(900, 1), How::default())
        .await
        .unwrap();
    assert_eq!((more.received, more.length), (900, None));
}
