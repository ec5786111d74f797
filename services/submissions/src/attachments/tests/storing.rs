//! Stores that are away, or lie.

use super::faulty::{Fault, Faulty};
use super::*;
use crate::receipt::sha256_of;

async fn two(fault: Fault) -> (Bench, Arc<Faulty>, Arc<Faulty>) {
    let (near, far) = (Faulty::new(fault), Faulty::new(Fault::None));
    let stores: Vec<(&str, Arc<dyn ObjectStore>)> = vec![("a", near.clone()), ("b", far.clone())];
    (Bench::on(stores).await, near, far)
}

#[tokio::test]
async fn a_store_that_lies_or_is_away_is_found_out_and_the_other_has_the_pieces() {
    for fault in [Fault::Away, Fault::Forgets, Fault::Short, Fault::Wrong] {
        let (bench, _, far) = two(fault).await;
        let (desk, all) = (bench.process(), bytes(1300, 3));
        let id = bench.begin(&desk, 1300).await.id;
        let whole = bench
            .send(&desk, &id, 0, &all, How::default())
            .await
            .unwrap();
        assert_eq!(far.len().await, 3, "{fault:?}");
        assert_eq!(whole.places.iter().collect::<Vec<_>>(), ["b"], "{fault:?}");
        assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
        // The near one is left alone after its first failure.
        let loose = "SELECT COUNT(*) FROM submission_loose WHERE place = 'a'";
        assert_eq!(bench.count(loose).await, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_one_piece_and_comes_back() {
    let (bench, near, _) = two(Fault::None).await;
    let (desk, all) = (bench.process(), bytes(3000, 3));
    let id = bench.begin(&desk, 3000).await.id;
    bench
        .send(&desk, &id, 0, &all[..1000], How::default())
        .await
        .unwrap();
    near.set(Fault::Hangs);
    let begun = tokio::time::Instant::now();
    bench
        .send(&desk, &id, 1000, &all[1000..2000], How::default())
        .await
        .unwrap();
    let waited = begun.elapsed();
    println!("{waited:?} for two pieces");
    let tried = "SELECT COUNT(*) FROM submission_loose WHERE place = 'a'";
    assert_eq!(bench.count(tried).await, 1, "one waited, and not each");
    near.set(Fault::None);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let whole = bench
        .send(&desk, &id, 2000, &all[2000..], How::default())
        .await
        .unwrap();
    assert_eq!(whole.places.len(), 2);
    let at_the_end = "SELECT COUNT(*) FROM submission_pieces WHERE place = 'a' AND start >= 2000";
    assert!(bench.count(at_the_end).await > 0, "it is used again");
    assert_eq!(whole.sha256.clone().unwrap(), sha256_of(&all));
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}

#[tokio::test]
async fn without_any_store_nothing_is_acknowledged_and_it_goes_on_later() {
    let (bench, near, far) = two(Fault::Away).await;
    far.set(Fault::Wrong);
    let (desk, all) = (bench.process(), bytes(700, 3));
    let id = bench.begin(&desk, 700).await.id;
    let refused = bench.send(&desk, &id, 0, &all, How::default()).await;
    assert_eq!(refused.err().unwrap().error.reason, "objects_unavailable");
    assert_eq!(bench.look(&id).await.received, 0);
    near.set(Fault::None);
    far.set(Fault::Away);
    let whole = bench
        .send(&desk, &id, 0, &all, How::default())
        .await
        .unwrap();
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}

#[tokio::test]
async fn a_piece_that_was_changed_or_lost_is_never_sent() {
    use object_store::ObjectStoreExt as _;
    let (bench, near, _) = two(Fault::None).await;
    let (desk, all) = (bench.process(), bytes(1300, 3));
    let id = bench.begin(&desk, 1300).await.id;
    let whole = bench
        .send(&desk, &id, 0, &all, How::default())
        .await
        .unwrap();
    let pieces = read!(bench.records, |tx| super::super::rows::pieces(
        tx, &id, 0, 9
    )
    .await);
    let second = object_store::path::Path::from(&*pieces.unwrap()[1].object);
    near.inner
        .put(&second, bytes(PIECE, 4).into())
        .await
        .unwrap();
    let error = bench.fetch(&whole, 0).await.unwrap_err();
    assert_eq!(error.reason, "objects_broken");
    assert!(error.message.contains(second.as_ref()), "{error}");
    // A copy in the other store is as good, when its bytes are right.
    let right = all[PIECE..2 * PIECE].to_vec();
    bench.fetch(&whole, 1024).await.unwrap();
    let far = bench.stores.to_write().unwrap()[1];
    assert_eq!(far.name(), "b");
    let seal = super::super::stores::Seal {
        size: PIECE as u64,
        sha256: sha256_of(&right),
    };
    assert!(far.write(second.as_ref(), right.into(), &seal).await);
    assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
}
