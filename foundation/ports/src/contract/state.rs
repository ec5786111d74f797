//! The promises of [`State`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Mirror, Subject, key, kind, prefix, value, within};
use crate::state::{MAX_VALUE, Put, StateEntry, Under};
use crate::{Entry, ErrorKind, Expect, State};

async fn put(engine: &Arc<dyn State>, name: &str, text: &str) -> u64 {
    let put = engine.put(&key(name), value(text), Put::default()).await;
    put.expect("a put that expects nothing happens")
}

async fn put_for(engine: &Arc<dyn State>, name: &str, ttl: Duration) -> u64 {
    let options = Put {
        ttl: Some(ttl),
        ..Put::default()
    };
    let put = engine.put(&key(name), value("x"), options).await;
    put.expect("a put with a time to live happens")
}

async fn get(engine: &Arc<dyn State>, name: &str) -> Option<StateEntry> {
    engine.get(&key(name)).await.expect("a get is answered")
}

async fn list(engine: &Arc<dyn State>, below: &str) -> Vec<Entry> {
    let page = engine.list(&prefix(below), None, usize::MAX).await;
    let page = page.expect("a list is answered");
    page.into_iter().map(|found| found.entry).collect()
}

async fn mirror(engine: &Arc<dyn State>, below: &str) -> Mirror {
    Mirror::new(engine.watch(&prefix(below)).await.expect("a watch begins")).await
}

fn under(mark: &str, epoch: u64) -> Option<Under> {
    Some(Under {
        mark: key(mark),
        epoch,
    })
}

fn expecting(expect: Expect) -> Put {
    Put {
        expect,
        ..Put::default()
    }
}

fn fenced(mark: &str, epoch: u64) -> Put {
    Put {
        under: under(mark, epoch),
        ..Put::default()
    }
}

/// A write is durable when its call returns.
pub async fn values_outlive_a_kill(mut subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put(&engine, "s/a", "old").await;
    let revision = put(&engine, "s/a", "new").await;
    drop(engine);
    subject.kill_and_reopen().await;
    let found = get(&subject.engine(), "s/a").await.unwrap();
    assert_eq!(found.entry.value, value("new"));
    assert_eq!(found.entry.revision, revision);
    assert_eq!(found.ttl, None);
}

/// So is a deletion.
pub async fn a_deleted_key_stays_deleted_after_a_kill(mut subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put(&engine, "s/a", "1").await;
    engine.delete(&key("s/a"), Expect::Any, None).await.unwrap();
    drop(engine);
    subject.kill_and_reopen().await;
    assert_eq!(get(&subject.engine(), "s/a").await, None);
}

/// Each write has a higher revision than the one before, also when the key was deleted or ran
/// out between.
pub async fn revisions_grow_across_deletion_and_end_of_life(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let mut last = 0;
    for _ in 0..2 {
        let revision = put(&engine, "s/a", "x").await;
        assert!(revision > last, "{revision} follows {last}");
        engine.delete(&key("s/a"), Expect::Any, None).await.unwrap();
        last = put_for(&engine, "s/a", Duration::from_secs(1)).await;
        assert!(last > revision, "{last} follows {revision}");
        subject.pass(Duration::from_secs(2)).await;
        assert_eq!(get(&engine, "s/a").await, None);
    }
}

/// Also when the engine was killed between.
pub async fn revisions_grow_across_a_kill(mut subject: impl Subject<dyn State>) {
    let mut last = 0;
    for _ in 0..3 {
        let engine = subject.engine();
        let revision = put(&engine, "s/a", "x").await;
        assert!(revision > last, "{revision} follows {last}");
        last = revision;
        engine.delete(&key("s/a"), Expect::Any, None).await.unwrap();
        drop(engine);
        subject.kill_and_reopen().await;
    }
}

/// A write that does not find what it expects fails with `Conflict`.
pub async fn a_write_happens_only_as_expected(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let name = key("s/a");
    let put = |text, expect| engine.put(&name, value(text), expecting(expect));
    assert_eq!(
        kind(put("x", Expect::Revision(1)).await),
        Some(ErrorKind::Conflict)
    );
    let first = put("1", Expect::Absent).await.unwrap();
    assert_eq!(
        kind(put("x", Expect::Absent).await),
        Some(ErrorKind::Conflict)
    );
    let second = put("2", Expect::Revision(first)).await.unwrap();
    assert_eq!(
        kind(put("x", Expect::Revision(first)).await),
        Some(ErrorKind::Conflict)
    );
    let delete = |expect| engine.delete(&name, expect, None);
    assert_eq!(
        kind(delete(Expect::Revision(first)).await),
        Some(ErrorKind::Conflict)
    );
    assert_eq!(get(&engine, "s/a").await.unwrap().entry.value, value("2"));
    assert!(delete(Expect::Revision(second)).await.unwrap());
    put("3", Expect::Absent).await.unwrap();
}

/// Of many that expect the same, one writes.
pub async fn of_concurrent_writers_one_wins(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let mut revision = put(&engine, "s/a", "start").await;
    for round in 0..5 {
        let mut writers = JoinSet::new();
        for _ in 0..10 {
            let engine = engine.clone();
            let options = expecting(Expect::Revision(revision));
            let text = value(&format!("round {round}"));
            writers.spawn(async move { engine.put(&key("s/a"), text, options).await });
        }
        let results = within("all writers are done", writers.join_all()).await;
        let won: Vec<u64> = results.into_iter().filter_map(Result::ok).collect();
        assert_eq!(won.len(), 1, "one wins, not {won:?}");
        revision = won[0];
    }
}

/// `delete` tells whether there was something to delete.
pub async fn delete_tells_whether_it_was_there(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let delete = || async { engine.delete(&key("s/a"), Expect::Any, None).await.unwrap() };
    assert!(!delete().await);
    put(&engine, "s/a", "x").await;
    assert!(delete().await);
    assert!(!delete().await);
    put_for(&engine, "s/a", Duration::from_secs(1)).await;
    subject.pass(Duration::from_secs(2)).await;
    assert!(!delete().await);
}

/// A key whose time is over is not read any more, and expected to be absent.
pub async fn a_key_is_gone_when_its_time_is_over(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put_for(&engine, "s/short", Duration::from_secs(2)).await;
    put_for(&engine, "s/long", Duration::from_secs(3600)).await;
    put(&engine, "s/without", "x").await;
    let ttl = get(&engine, "s/short").await.unwrap().ttl.unwrap();
    assert!(
        ttl <= Duration::from_secs(2),
        "{ttl:?} is more than was given"
    );
    subject.pass(Duration::from_secs(3)).await;
    assert_eq!(get(&engine, "s/short").await, None);
    let left: Vec<_> = list(&engine, "s/").await;
    let left: Vec<_> = left.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(left, ["s/long", "s/without"]);
    let again = engine
        .put(&key("s/short"), value("y"), expecting(Expect::Absent))
        .await;
    again.unwrap();
}

/// Watchers are told soon when a time is over.
pub async fn watchers_are_told_that_a_time_is_over(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put(&engine, "s/without", "x").await;
    put_for(&engine, "s/short", Duration::from_secs(2)).await;
    let mut mirror = mirror(&engine, "s/").await;
    assert_eq!(mirror.entries.len(), 2);
    subject.pass(Duration::from_secs(3)).await;
    mirror
        .until("the key is gone", |entries| {
            entries.keys().eq([&key("s/without")])
        })
        .await;
}

/// A time to live goes on while the engine is away.
pub async fn a_time_to_live_outlives_a_kill(mut subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put_for(&engine, "s/short", Duration::from_secs(2)).await;
    put_for(&engine, "s/long", Duration::from_secs(3600)).await;
    drop(engine);
    subject.kill_and_reopen().await;
    subject.pass(Duration::from_secs(3)).await;
    let engine = subject.engine();
    assert_eq!(get(&engine, "s/short").await, None);
    let ttl = get(&engine, "s/long").await.unwrap().ttl.unwrap();
    assert!(
        ttl < Duration::from_secs(3600),
        "{ttl:?} is left of an hour"
    );
}

/// The last write alone says how long a key lives.
pub async fn a_new_write_sets_the_time_to_live_anew(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put_for(&engine, "s/cleared", Duration::from_secs(2)).await;
    put_for(&engine, "s/longer", Duration::from_secs(2)).await;
    put(&engine, "s/cleared", "y").await;
    put_for(&engine, "s/longer", Duration::from_secs(3600)).await;
    assert_eq!(get(&engine, "s/cleared").await.unwrap().ttl, None);
    subject.pass(Duration::from_secs(4)).await;
    assert_eq!(list(&engine, "s/").await.len(), 2);
}

/// A list is sorted, has at most `limit` keys, and goes on behind `after`.
pub async fn a_list_has_pages(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    for index in [3, 1, 4, 0, 2, 6, 5] {
        put(&engine, &format!("p/{index}"), "x").await;
    }
    put(&engine, "o", "x").await;
    put(&engine, "q", "x").await;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = engine.list(&prefix("p/"), after.as_ref(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.entry.key.clone());
        found.extend(page.into_iter().map(|found| found.entry.key.to_string()));
    }
    assert_eq!(found, ["p/0", "p/1", "p/2", "p/3", "p/4", "p/5", "p/6"]);
    // What is behind need not be there, nor lie below the prefix.
    for (after, expected) in [("p/3x", 3), ("a", 7), ("q", 0)] {
        let page = engine.list(&prefix("p/"), Some(&key(after)), 9).await;
        assert_eq!(page.unwrap().len(), expected, "behind {after}");
    }
}

/// The largest value is carried, a larger one refused.
pub async fn a_value_over_the_limit_is_refused(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let largest = vec![7; MAX_VALUE];
    let put = engine
        .put(&key("v/a"), largest.clone().into(), Put::default())
        .await;
    put.unwrap();
    let found = get(&engine, "v/a").await.unwrap();
    assert_eq!(found.entry.value, largest);
    let larger = vec![7; MAX_VALUE + 1];
    let put = engine.put(&key("v/a"), larger.into(), Put::default()).await;
    assert_eq!(kind(put), Some(ErrorKind::TooLarge));
}

/// The first word of a watch is all that is there, also when that is nothing.
pub async fn a_watch_begins_with_all(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put(&engine, "w/a", "1").await;
    put(&engine, "x", "2").await;
    let known = mirror(&engine, "w/").await.entries;
    assert!(known.values().eq(&list(&engine, "w/").await));
    assert!(mirror(&engine, "nothing/").await.entries.is_empty());
}

/// However fast changes follow each other, the last is told.
pub async fn a_watch_misses_no_final_state(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let mut early = mirror(&engine, "w/").await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let engine = engine.clone();
        writers.spawn(async move {
            for round in 0..15 {
                let name = format!("w/{}", (writer * 7 + round * 3) % 10);
                if (writer + round) % 4 == 0 {
                    let delete = engine.delete(&key(&name), Expect::Any, None).await;
                    delete.unwrap();
                } else {
                    put(&engine, &name, &format!("{writer} {round}")).await;
                }
            }
        });
    }
    let mut during = mirror(&engine, "w/").await;
    within("all writers are done", writers.join_all()).await;
    let truth = list(&engine, "w/").await;
    early.converges_to(&truth).await;
    during.converges_to(&truth).await;
}

/// Once a mark is raised, a write under a lower epoch is refused on every key, touched or not.
pub async fn a_lower_epoch_is_refused_on_every_key(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let write = |name: &'static str, epoch| {
        let engine = engine.clone();
        async move {
            engine
                .put(&key(name), value("x"), fenced("m/a", epoch))
                .await
        }
    };
    write("s/old", 3).await.unwrap();
    engine.raise(&key("m/a"), 5).await.unwrap();
    for name in ["s/old", "s/new", "other/new"] {
        assert_eq!(
            kind(write(name, 4).await),
            Some(ErrorKind::Superseded { known: 5 })
        );
    }
    assert_eq!(list(&engine, "").await.len(), 1);
    write("s/old", 5).await.unwrap();
    // Without an epoch, everybody may.
    put(&engine, "s/free", "x").await;
}

/// A mark is never lowered.
pub async fn a_lower_epoch_raises_nothing(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let mark = key("m/a");
    assert_eq!(engine.mark(&mark).await.unwrap(), 0);
    engine.raise(&mark, 7).await.unwrap();
    engine.raise(&mark, 7).await.unwrap();
    assert_eq!(
        kind(engine.raise(&mark, 6).await),
        Some(ErrorKind::Superseded { known: 7 })
    );
    assert_eq!(engine.mark(&mark).await.unwrap(), 7);
}

/// A mark is durable when `raise` returns.
pub async fn a_mark_outlives_a_kill(mut subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    engine.raise(&key("m/raised"), 5).await.unwrap();
    let write = engine
        .put(&key("s/a"), value("x"), fenced("m/written", 6))
        .await;
    write.unwrap();
    drop(engine);
    subject.kill_and_reopen().await;
    let engine = subject.engine();
    assert_eq!(engine.mark(&key("m/raised")).await.unwrap(), 5);
    assert_eq!(engine.mark(&key("m/written")).await.unwrap(), 6);
    let late = engine
        .put(&key("s/b"), value("x"), fenced("m/raised", 4))
        .await;
    assert_eq!(kind(late), Some(ErrorKind::Superseded { known: 5 }));
}

/// A write under a higher epoch raises the mark in the same step.
pub async fn a_write_under_a_higher_epoch_raises_the_mark(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    let write = engine.put(&key("s/a"), value("x"), fenced("m/a", 9)).await;
    write.unwrap();
    assert_eq!(engine.mark(&key("m/a")).await.unwrap(), 9);
    let late = engine.put(&key("s/b"), value("x"), fenced("m/a", 8)).await;
    assert_eq!(kind(late), Some(ErrorKind::Superseded { known: 9 }));
}

/// Marks of different names know nothing of each other.
pub async fn marks_are_apart(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    engine.raise(&key("m/a"), 9).await.unwrap();
    let other = engine.put(&key("s/a"), value("x"), fenced("m/b", 1)).await;
    other.unwrap();
    assert_eq!(engine.mark(&key("m/b")).await.unwrap(), 1);
    assert_eq!(engine.mark(&key("m")).await.unwrap_or(0), 0);
}

/// A delete is refused below the mark as a put is.
pub async fn a_delete_is_fenced_too(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    put(&engine, "s/a", "x").await;
    engine.raise(&key("m/a"), 2).await.unwrap();
    let name = key("s/a");
    let delete = |epoch| engine.delete(&name, Expect::Any, under("m/a", epoch));
    let refused = delete(1).await;
    assert_eq!(kind(refused), Some(ErrorKind::Superseded { known: 2 }));
    assert!(get(&engine, "s/a").await.is_some());
    assert!(delete(2).await.unwrap());
}

/// The check and the write are one step: a write that was accepted under the old epoch was
/// accepted before `raise` returned.
pub async fn no_write_of_the_old_epoch_follows_a_raise(subject: impl Subject<dyn State>) {
    let engine = subject.engine();
    for epoch in 1..=5 {
        let raised = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            let (engine, raised) = (engine.clone(), raised.clone());
            writers.spawn(async move {
                loop {
                    let was_raised = raised.load(Ordering::SeqCst);
                    let name = key(&format!("s/{writer}"));
                    let put = engine.put(&name, value("x"), fenced("m/a", epoch));
                    match put.await {
                        Ok(_) => assert!(!was_raised, "epoch {epoch} wrote after its end"),
                        Err(error) => {
                            let known = epoch + 1;
                            assert_eq!(error.kind, ErrorKind::Superseded { known });
                            return;
                        }
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        engine.raise(&key("m/a"), epoch + 1).await.unwrap();
        raised.store(true, Ordering::SeqCst);
        let before = list(&engine, "s/").await;
        within("all writers are refused", writers.join_all()).await;
        assert_eq!(list(&engine, "s/").await, before);
    }
}
