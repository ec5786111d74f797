//! Two data centres: the loss of one takes nothing away.

use super::faulty::{Fault, Faulty};
use super::*;
use crate::attachments::copies::Exposed;

async fn sent(fault: Fault) -> (Bench, Arc<Faulty>, Arc<Faulty>, Upload, Vec<u8>) {
    let (near, far) = (Faulty::new(Fault::None), Faulty::new(fault));
    let stores: Vec<(&str, Arc<dyn ObjectStore>)> = vec![("a", near.clone()), ("b", far.clone())];
    let bench = Bench::on(stores).await;
    let all = bytes(1300, 3);
    let desk = bench.process();
    let id = bench.begin(&desk, 1300).await.id;
    let whole = bench.send(&desk, &id, 0, &all, How::default()).await;
    (bench, near, far, whole.unwrap(), all)
}

async fn exposed(bench: &Bench) -> Exposed {
    bench.process().exposed().await.unwrap().unwrap()
}

#[tokio::test]
async fn each_piece_is_copied_and_either_store_may_be_lost() {
    let (bench, near, far, whole, all) = sent(Fault::None).await;
    let before = Exposed {
        count: 3,
        oldest_ms: Some(BEGIN_MS as i64),
    };
    assert_eq!(exposed(&bench).await, before);
    bench.process().copy_all().await.unwrap();
    assert_eq!([near.len().await, far.len().await], [3, 3]);
    assert_eq!(exposed(&bench).await, Exposed::default());
    assert_eq!(
        bench.count("SELECT COUNT(*) FROM submission_loose").await,
        0
    );
    for (one, other) in [(&near, &far), (&far, &near)] {
        one.set(Fault::Away);
        other.set(Fault::None);
        assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
    }
    bench.process().copy_all().await.unwrap();
    assert_eq!([near.len().await, far.len().await], [3, 3], "each once");
}

#[tokio::test]
async fn what_the_other_store_does_not_have_whole_stays_exposed() {
    let faults = [Fault::Away, Fault::Forgets, Fault::Short, Fault::Wrong];
    futures::future::join_all(faults.map(|fault| async move {
        let (bench, _, far, whole, all) = sent(fault).await;
        bench.process().copy_all().await.unwrap_err();
        assert_eq!(exposed(&bench).await.count, 3, "{fault:?}");
        far.set(Fault::None);
        // It is left alone for some seconds; then one piece is let through, and after it all.
        while bench.process().copy_all().await.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(exposed(&bench).await, Exposed::default(), "{fault:?}");
        assert_eq!(bench.fetch(&whole, 0).await.unwrap(), all);
    }))
    .await;
}

#[tokio::test]
async fn a_piece_that_no_store_gives_holds_up_no_other() {
    let (bench, near, far, _, _) = sent(Fault::None).await;
    near.set(Fault::Away);
    bench.process().copy_all().await.unwrap();
    assert_eq!((exposed(&bench).await.count, far.len().await), (3, 0));
    near.set(Fault::None);
    bench.process().copy_all().await.unwrap();
    assert_eq!(far.len().await, 0, "not asked for again at once");
    bench.clock.advance(Duration::from_secs(16));
    bench.process().copy_all().await.unwrap();
    assert_eq!((exposed(&bench).await.count, far.len().await), (0, 3));
}

#[tokio::test]
async fn what_is_taken_away_goes_in_both_stores_also_while_it_is_copied() {
    let (bench, near, far, whole, _) = sent(Fault::None).await;
    let desk = bench.process();
    let due = read!(bench.records, |tx| super::super::copies::due(tx, i64::MAX)
        .await);
    let due = due.map_err(|error: RecordsError| error).unwrap();
    desk.copy(&due[0]).await.unwrap();
    desk.delete(&bench.id, &whole.id).await.unwrap();
    // Somebody was about to copy the others.
    desk.copy(&due[1]).await.unwrap();
    assert_eq!([near.len().await, far.len().await], [3, 2]);
    for _ in 0..3 {
        bench
            .clock
            .advance(Limits::default().loose + Duration::from_secs(1));
        desk.sweep().await.unwrap();
    }
    assert_eq!([near.len().await, far.len().await], [0, 0]);
    let left = "SELECT COUNT(*) FROM submission_copies";
    assert_eq!(bench.count(left).await, 0);
}

#[tokio::test]
async fn what_came_while_there_was_one_store_is_copied_when_there_are_two() {
    let near = Faulty::new(Fault::None);
    let bench = Bench::on(vec![("a", near.clone() as Arc<dyn ObjectStore>)]).await;
    let (desk, all) = (bench.process(), bytes(1300, 3));
    let id = bench.begin(&desk, 1300).await.id;
    bench
        .send(&desk, &id, 0, &all, How::default())
        .await
        .unwrap();
    assert_eq!(desk.exposed().await.unwrap(), None, "there is nowhere else");
    let far = Faulty::new(Fault::None);
    let bench = Bench {
        stores: Stores::of(vec![("a", near.clone()), ("b", far.clone())]),
        ..bench
    };
    let desk = bench.process();
    desk.wish_older().await.unwrap();
    desk.copy_all().await.unwrap();
    assert_eq!(far.len().await, 3);
}
