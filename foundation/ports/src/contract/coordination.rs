//! The promises of [`Coordination`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{Mirror, Subject, key, kind, prefix, value, within};
use crate::coordination::{MAX_VALUE, Seat, SeatName, Session, SessionState};
use crate::{Change, Coordination, Entry, ErrorKind, Expect, Versioned};

/// Long enough for a command that was begun to reach the engine.
const SETTLE: Duration = Duration::from_millis(200);

/// How long a seat is held where another must not take it.
const HOLD: Duration = Duration::from_millis(20);

const TTL: Duration = Duration::from_secs(5);

fn seat_name(text: &str) -> SeatName {
    SeatName(key(text))
}

/// A session of an owner of its own.
async fn session(engine: &Arc<dyn Coordination>) -> Arc<dyn Session> {
    static OWNERS: AtomicU64 = AtomicU64::new(0);
    let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
    session_of(&format!("owner-{owner}"), engine).await
}

async fn session_of(owner: &str, engine: &Arc<dyn Coordination>) -> Arc<dyn Session> {
    let session = within("a session opens", engine.open_session(owner, TTL)).await;
    session.expect("a session opens").into()
}

async fn put(engine: &Arc<dyn Coordination>, name: &str, text: &str) -> u64 {
    let put = engine.put(&key(name), value(text), Expect::Any).await;
    put.expect("a put that expects nothing happens")
}

async fn get(engine: &Arc<dyn Coordination>, name: &str) -> Option<Versioned> {
    engine.get(&key(name)).await.expect("a get is answered")
}

async fn list(engine: &Arc<dyn Coordination>, below: &str) -> Vec<Entry> {
    engine
        .list(&prefix(below))
        .await
        .expect("a list is answered")
}

async fn mirror(engine: &Arc<dyn Coordination>, below: &str) -> Mirror {
    Mirror::new(engine.watch(&prefix(below)).await.expect("a watch begins")).await
}

async fn seat(session: &Arc<dyn Session>, name: &SeatName, holder: &str) -> Box<dyn Seat> {
    let taken = within("a free seat is taken", session.take_seat(name, holder)).await;
    taken.expect("a free seat is taken")
}

/// Begins to wait in line, and gives the engine time to know.
async fn candidate(
    session: &Arc<dyn Session>,
    name: &SeatName,
    holder: &'static str,
) -> tokio::task::JoinHandle<Box<dyn Seat>> {
    let (session, name) = (session.clone(), name.clone());
    let waits = async move {
        let taken = session.take_seat(&name, holder).await;
        taken.expect("the seat is taken in the end")
    };
    let waits = tokio::spawn(waits);
    tokio::time::sleep(SETTLE).await;
    waits
}

/// A kept key's write is durable when its call returns.
pub async fn kept_keys_outlive_a_kill(mut subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    put(&engine, "kept/a", "old").await;
    let revision = put(&engine, "kept/a", "new").await;
    drop(engine);
    subject.kill_and_reopen().await;
    let found = get(&subject.engine(), "kept/a").await;
    assert_eq!(
        found,
        Some(Versioned {
            value: value("new"),
            revision
        })
    );
}

/// So is its deletion.
pub async fn a_deleted_key_stays_deleted_after_a_kill(mut subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    put(&engine, "kept/a", "1").await;
    put(&engine, "kept/b", "2").await;
    engine.delete(&key("kept/a"), Expect::Any).await.unwrap();
    drop(engine);
    subject.kill_and_reopen().await;
    let left = list(&subject.engine(), "kept/").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].key, key("kept/b"));
}

/// An ephemeral key is never durable.
pub async fn ephemeral_keys_are_gone_after_a_kill(mut subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let session = session(&engine).await;
    put(&engine, "mixed/kept", "1").await;
    let ephemeral = session
        .put_ephemeral(&key("mixed/gone"), value("2"), Expect::Any)
        .await;
    ephemeral.unwrap();
    put(&engine, "mixed/kept", "3").await;
    drop(engine);
    subject.kill_and_reopen().await;
    let mut after = mirror(&subject.engine(), "mixed/").await;
    after
        .until("ephemeral keys are gone", |entries| {
            entries.keys().eq([&key("mixed/kept")])
        })
        .await;
    drop(session);
}

/// Closing a session gives up its keys, and returns when that is seen.
pub async fn ephemeral_keys_end_with_a_closed_session(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let (first, second) = (session(&engine).await, session(&engine).await);
    for (session, name) in [(&first, "e/a"), (&first, "e/b"), (&second, "e/c")] {
        let put = session
            .put_ephemeral(&key(name), value("x"), Expect::Absent)
            .await;
        put.unwrap();
    }
    assert_eq!(list(&engine, "e/").await.len(), 3);
    within("a session closes", first.close()).await;
    let left = list(&engine, "e/").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].key, key("e/c"));
}

/// So does dropping it, soon.
pub async fn ephemeral_keys_end_with_a_dropped_session(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let session = session(&engine).await;
    let put = session
        .put_ephemeral(&key("e/a"), value("x"), Expect::Any)
        .await;
    put.unwrap();
    let mut mirror = mirror(&engine, "e/").await;
    assert_eq!(mirror.entries.len(), 1);
    drop(session);
    mirror
        .until("the key is gone", |entries| entries.is_empty())
        .await;
    assert_eq!(get(&engine, "e/a").await, None);
}

/// Each write has a higher revision than the one before, also when the key was deleted between.
pub async fn revisions_grow_across_deletion(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let mut last = 0;
    for round in 0..10 {
        let revision = put(&engine, "r/a", "x").await;
        assert!(revision > last, "{revision} follows {last}");
        assert_eq!(get(&engine, "r/a").await.unwrap().revision, revision);
        last = revision;
        if round % 2 == 0 {
            engine.delete(&key("r/a"), Expect::Any).await.unwrap();
        }
    }
}

/// Also when the engine was killed between.
pub async fn revisions_grow_across_a_kill(mut subject: impl Subject<dyn Coordination>) {
    let mut last = 0;
    for _ in 0..3 {
        let engine = subject.engine();
        let revision = put(&engine, "r/a", "x").await;
        assert!(revision > last, "{revision} follows {last}");
        last = revision;
        engine.delete(&key("r/a"), Expect::Any).await.unwrap();
        drop(engine);
        subject.kill_and_reopen().await;
    }
}

/// And when it was a key of another session.
pub async fn ephemeral_revisions_grow_across_sessions(mut subject: impl Subject<dyn Coordination>) {
    let mut last = 0;
    for round in 0..4 {
        let engine = subject.engine();
        let session = session(&engine).await;
        let put = session
            .put_ephemeral(&key("r/e"), value("x"), Expect::Any)
            .await;
        let revision = put.unwrap();
        assert!(revision > last, "{revision} follows {last}");
        last = revision;
        session.close().await;
        if round % 2 == 1 {
            drop((engine, session));
            subject.kill_and_reopen().await;
        }
    }
}

/// A write that does not find what it expects fails with `Conflict`.
pub async fn a_write_happens_only_as_expected(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = key("cas/a");
    let put = |text, expect| engine.put(&name, value(text), expect);
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
    assert_eq!(
        kind(engine.delete(&name, Expect::Revision(first)).await),
        Some(ErrorKind::Conflict)
    );
    assert_eq!(get(&engine, "cas/a").await.unwrap().value, value("2"));
    assert!(
        engine
            .delete(&name, Expect::Revision(second))
            .await
            .unwrap()
    );
    put("3", Expect::Absent).await.unwrap();
}

/// What was refused is not seen, by no reader and no watcher.
pub async fn a_refused_write_changes_nothing(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    put(&engine, "cas/a", "1").await;
    let mut mirror = mirror(&engine, "cas/").await;
    let refused = engine.put(&key("cas/a"), value("x"), Expect::Absent).await;
    assert_eq!(kind(refused), Some(ErrorKind::Conflict));
    put(&engine, "cas/z", "2").await;
    mirror
        .until("the next write is told", |entries| entries.len() == 2)
        .await;
    assert_eq!(mirror.entries[&key("cas/a")].value, value("1"));
}

/// Compare-and-put loses no update, however many write.
pub async fn of_concurrent_writers_one_wins(subject: impl Subject<dyn Coordination>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 10;
    let engine = subject.engine();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let engine = engine.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                increment(&engine).await;
            }
        });
    }
    within("all writers are done", writers.join_all()).await;
    let sum = get(&engine, "cas/sum").await.unwrap().value;
    assert_eq!(sum, value(&(WRITERS * EACH).to_string()));
}

async fn increment(engine: &Arc<dyn Coordination>) {
    loop {
        let found = get(engine, "cas/sum").await;
        let expect = found
            .as_ref()
            .map_or(Expect::Absent, |found| Expect::Revision(found.revision));
        let sum: u64 = found.map_or(0, |found| {
            std::str::from_utf8(&found.value).unwrap().parse().unwrap()
        });
        let next = value(&(sum + 1).to_string());
        match engine.put(&key("cas/sum"), next, expect).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind, ErrorKind::Conflict),
        }
    }
}

/// Neither another session nor a kept write takes an ephemeral key over.
pub async fn an_ephemeral_key_belongs_to_its_session(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let (owner, other) = (session(&engine).await, session(&engine).await);
    let name = key("e/a");
    let mine = |text, expect| owner.put_ephemeral(&name, value(text), expect);
    let first = mine("1", Expect::Absent).await.unwrap();
    let second = mine("2", Expect::Revision(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(
        kind(mine("x", Expect::Absent).await),
        Some(ErrorKind::Conflict)
    );
    let theirs = other.put_ephemeral(&name, value("x"), Expect::Any).await;
    assert_eq!(kind(theirs), Some(ErrorKind::Conflict));
    let kept = engine.put(&name, value("x"), Expect::Any).await;
    assert_eq!(kind(kept), Some(ErrorKind::Conflict));
    assert_eq!(get(&engine, "e/a").await.unwrap().value, value("2"));
    // Anybody may delete it, and then it is free.
    assert!(engine.delete(&name, Expect::Any).await.unwrap());
    let theirs = other.put_ephemeral(&name, value("3"), Expect::Absent);
    theirs.await.unwrap();
    owner.close().await;
    assert_eq!(get(&engine, "e/a").await.unwrap().value, value("3"));
}

/// A later session of an owner takes its keys over, and no watcher sees them absent.
pub async fn a_later_session_of_an_owner_takes_its_keys_over(
    subject: impl Subject<dyn Coordination>,
) {
    let engine = subject.engine();
    let (first, second) = (
        session_of("one", &engine).await,
        session_of("one", &engine).await,
    );
    let name = key("e/a");
    let put = first.put_ephemeral(&name, value("1"), Expect::Absent);
    let revision = put.await.unwrap();
    let mut watcher = engine.watch(&prefix("e/")).await.unwrap();
    within("a watch begins", watcher.next()).await;
    let taken = second.put_ephemeral(&name, value("2"), Expect::Any);
    let taken = taken.await.unwrap();
    assert!(taken > revision, "{taken} follows {revision}");
    let told = within("the change is told", watcher.next()).await;
    assert!(
        matches!(&told, Some(Change::Put(entry)) if entry.value == value("2")),
        "{told:?}"
    );
    first.close().await;
    tokio::time::sleep(SETTLE).await;
    assert_eq!(get(&engine, "e/a").await.unwrap().value, value("2"));
    second.close().await;
    assert_eq!(get(&engine, "e/a").await, None);
}

/// `delete` tells whether there was something to delete.
pub async fn delete_tells_whether_it_was_there(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = key("d/a");
    assert!(!engine.delete(&name, Expect::Any).await.unwrap());
    put(&engine, "d/a", "x").await;
    assert!(engine.delete(&name, Expect::Any).await.unwrap());
    assert!(!engine.delete(&name, Expect::Any).await.unwrap());
    assert_eq!(get(&engine, "d/a").await, None);
}

/// A list is sorted by key; a prefix need not end at a slash.
pub async fn a_list_is_sorted_and_keeps_to_its_prefix(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    for name in ["l/c", "l/a", "l/b/2", "l/b/1", "l2", "k", "l/b"] {
        put(&engine, name, name).await;
    }
    let names = |entries: Vec<Entry>| -> Vec<String> {
        let names = entries.into_iter().map(|entry| entry.key.to_string());
        names.collect()
    };
    assert_eq!(
        names(list(&engine, "l/").await),
        ["l/a", "l/b", "l/b/1", "l/b/2", "l/c"]
    );
    assert_eq!(names(list(&engine, "l/b").await), ["l/b", "l/b/1", "l/b/2"]);
    assert_eq!(names(list(&engine, "").await).len(), 7);
    assert!(list(&engine, "m").await.is_empty());
}

/// The largest value is carried, a larger one refused.
pub async fn a_value_over_the_limit_is_refused(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let largest = vec![7; MAX_VALUE];
    let put = engine
        .put(&key("v/a"), largest.clone().into(), Expect::Any)
        .await;
    put.unwrap();
    assert_eq!(get(&engine, "v/a").await.unwrap().value, largest);
    let larger = vec![7; MAX_VALUE + 1];
    let put = engine
        .put(&key("v/a"), larger.clone().into(), Expect::Any)
        .await;
    assert_eq!(kind(put), Some(ErrorKind::TooLarge));
    let session = session(&engine).await;
    let put = session
        .put_ephemeral(&key("v/b"), larger.into(), Expect::Any)
        .await;
    assert_eq!(kind(put), Some(ErrorKind::TooLarge));
}

/// The first word of a watch is all that is there, also when that is nothing.
pub async fn a_watch_begins_with_all(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    put(&engine, "w/a", "1").await;
    put(&engine, "x", "2").await;
    let mirror_of_w = mirror(&engine, "w/").await;
    let known: Vec<Entry> = mirror_of_w.entries.into_values().collect();
    assert_eq!(known, list(&engine, "w/").await);
    assert!(mirror(&engine, "nothing/").await.entries.is_empty());
}

/// Changes outside the prefix are not told.
pub async fn a_watch_tells_changes_of_its_prefix_only(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let mut mirror = mirror(&engine, "w/").await;
    put(&engine, "v/a", "1").await;
    put(&engine, "w2/a", "1").await;
    put(&engine, "w/a", "1").await;
    engine.delete(&key("w/a"), Expect::Any).await.unwrap();
    put(&engine, "w/b", "1").await;
    mirror
        .until("the change is told", |entries| {
            entries.keys().eq([&key("w/b")])
        })
        .await;
}

/// However fast changes follow each other, the last is told.
pub async fn a_watch_misses_no_final_state(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let mut early = mirror(&engine, "w/").await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let engine = engine.clone();
        writers.spawn(async move {
            for round in 0..15 {
                let name = format!("w/{}", (writer * 7 + round * 3) % 10);
                if (writer + round) % 4 == 0 {
                    engine.delete(&key(&name), Expect::Any).await.unwrap();
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

/// A watcher that does not listen for thousands of changes loses some; then it is told all again.
pub async fn a_slow_watcher_learns_the_truth(subject: impl Subject<dyn Coordination>) {
    const WRITERS: usize = 50;
    const EACH: usize = 100;
    let engine = subject.engine();
    let mut slow = mirror(&engine, "w/").await;
    let session = session(&engine).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let session = session.clone();
        writers.spawn(async move {
            for round in 0..EACH {
                let name = key(&format!("w/{writer}/{round}"));
                let put = session.put_ephemeral(&name, value("x"), Expect::Any);
                put.await.unwrap();
            }
        });
    }
    within("all writers are done", writers.join_all()).await;
    let truth = list(&engine, "w/").await;
    assert_eq!(truth.len(), WRITERS * EACH);
    slow.converges_to(&truth).await;
    assert!(
        slow.alls > 1 || slow.changes >= WRITERS * EACH,
        "{} changes are neither told nor made up for",
        WRITERS * EACH - slow.changes
    );
    // It is told single changes again.
    put(&engine, "w/last", "x").await;
    let truth = list(&engine, "w/").await;
    slow.converges_to(&truth).await;
}

/// Every one of many watchers learns the truth; those that left disturb nobody.
pub async fn many_watchers_learn_the_truth(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let mut mirrors = Vec::new();
    for index in 0..100 {
        let below = if index % 2 == 0 { "w/" } else { "w/b" };
        let mirror = mirror(&engine, below).await;
        if index % 5 != 0 {
            mirrors.push((below, mirror));
        }
    }
    for name in ["w/a", "w/b1", "w/b2", "w/c"] {
        put(&engine, name, "x").await;
    }
    engine.delete(&key("w/b1"), Expect::Any).await.unwrap();
    for (below, mut mirror) in mirrors {
        let truth = list(&engine, below).await;
        mirror.converges_to(&truth).await;
    }
}

/// The end of a session is told key by key.
pub async fn a_watch_tells_the_end_of_a_session(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let session = session(&engine).await;
    put(&engine, "w/kept", "x").await;
    for index in 0..20 {
        let name = key(&format!("w/e{index}"));
        let put = session.put_ephemeral(&name, value("x"), Expect::Any);
        put.await.unwrap();
    }
    let mut mirror = mirror(&engine, "w/").await;
    assert_eq!(mirror.entries.len(), 21);
    session.close().await;
    mirror
        .until("the keys are gone", |entries| {
            entries.keys().eq([&key("w/kept")])
        })
        .await;
}

/// A session is connected until it is closed, and then lost for good.
pub async fn a_closed_session_is_lost_and_refuses(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let session = session(&engine).await;
    let mut state = session.state();
    assert_eq!(*state.borrow(), SessionState::Connected);
    session.close().await;
    let lost = state.wait_for(|state| *state == SessionState::Lost);
    within("the session is lost", lost).await.unwrap();
    let put = session
        .put_ephemeral(&key("e/a"), value("x"), Expect::Any)
        .await;
    assert_eq!(kind(put), Some(ErrorKind::Closed));
    let name = seat_name("seats/a");
    let take = session.take_seat(&name, "me");
    assert_eq!(
        kind(within("it refuses", take).await),
        Some(ErrorKind::Closed)
    );
    // Twice does no harm.
    session.close().await;
}

/// Whoever holds a seat holds it alone, and under a higher epoch than everybody before.
pub async fn a_seat_has_one_holder_at_a_time(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let seated = Arc::new(AtomicUsize::new(0));
    let last_epoch = Arc::new(AtomicU64::new(0));
    let mut candidates = JoinSet::new();
    for _ in 0..8 {
        let session = session(&engine).await;
        let (name, seated, last_epoch) = (name.clone(), seated.clone(), last_epoch.clone());
        candidates.spawn(async move {
            for round in 0..4 {
                let held = seat(&session, &name, "me").await;
                assert_eq!(
                    seated.fetch_add(1, Ordering::SeqCst),
                    0,
                    "two hold the seat"
                );
                let before = last_epoch.swap(held.epoch(), Ordering::SeqCst);
                assert!(held.epoch() > before, "{} follows {before}", held.epoch());
                // Long enough for the engine to seat another, if it would.
                tokio::time::sleep(HOLD).await;
                seated.fetch_sub(1, Ordering::SeqCst);
                if round % 2 == 0 {
                    held.give_up().await;
                }
            }
        });
    }
    within("everybody has held it", candidates.join_all()).await;
}

/// Who asked first is served first.
pub async fn a_seat_is_taken_in_turn(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let session = session(&engine).await;
    let first = seat(&session, &name, "first").await;
    let second = candidate(&session, &name, "second").await;
    let third = candidate(&session, &name, "third").await;
    first.give_up().await;
    let second = within("the second has its turn", second).await.unwrap();
    tokio::time::sleep(SETTLE).await;
    assert!(!third.is_finished(), "the third came before its turn");
    drop(second);
    within("the third has its turn", third).await.unwrap();
}

/// Dropping the future leaves the line.
pub async fn who_leaves_the_line_gets_no_seat(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let session = session(&engine).await;
    let holder = seat(&session, &name, "holder").await;
    let leaves = candidate(&session, &name, "leaves").await;
    let stays = candidate(&session, &name, "stays").await;
    leaves.abort();
    let _ = leaves.await;
    holder.give_up().await;
    within("who stayed has its turn", stays).await.unwrap();
}

/// A seat that is dropped goes to the next.
pub async fn a_dropped_seat_is_free(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let (first, second) = (session(&engine).await, session(&engine).await);
    let held = seat(&first, &name, "first").await;
    let waits = candidate(&second, &name, "second").await;
    let epoch = held.epoch();
    drop(held);
    let next = within("the next has its turn", waits).await.unwrap();
    assert!(next.epoch() > epoch);
}

/// The end of a session frees its seats, and their holder is told.
pub async fn a_closed_session_gives_up_its_seats(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let (first, second) = (session(&engine).await, session(&engine).await);
    let held = seat(&first, &name, "first").await;
    let waits = candidate(&second, &name, "second").await;
    first.close().await;
    within("the loss is told", held.lost()).await;
    let next = within("the next has its turn", waits).await.unwrap();
    assert!(next.epoch() > held.epoch());
    // What is lost already can't be given up for another.
    held.give_up().await;
    tokio::time::sleep(SETTLE).await;
    let lost = tokio::time::timeout(SETTLE, next.lost()).await;
    assert!(lost.is_err(), "another's seat was given up");
}

/// So does it with places in line.
pub async fn a_closed_session_leaves_the_line(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let (holder, leaves) = (session(&engine).await, session(&engine).await);
    let held = seat(&holder, &name, "holder").await;
    let waits = {
        let (leaves, name) = (leaves.clone(), name.clone());
        tokio::spawn(async move { kind(leaves.take_seat(&name, "leaves").await) })
    };
    tokio::time::sleep(SETTLE).await;
    leaves.close().await;
    let refused = within("who waits is told", waits).await.unwrap();
    assert_eq!(refused, Some(ErrorKind::Closed));
    held.give_up().await;
    seat(&holder, &name, "again").await;
}

/// An epoch is higher than every earlier one of its name, also after a restart.
pub async fn epochs_grow_across_a_kill(mut subject: impl Subject<dyn Coordination>) {
    let name = seat_name("seats/a");
    let mut last = 0;
    for _ in 0..4 {
        let engine = subject.engine();
        let session = session(&engine).await;
        for _ in 0..2 {
            let held = seat(&session, &name, "me").await;
            assert!(held.epoch() > last, "{} follows {last}", held.epoch());
            last = held.epoch();
            held.give_up().await;
        }
        let held = seat(&session, &name, "me").await;
        last = held.epoch();
        // Killed while the seat is held.
        drop(engine);
        subject.kill_and_reopen().await;
        drop((held, session));
    }
}

/// Seats of different names know nothing of each other.
pub async fn seats_of_different_names_are_apart(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let session = session(&engine).await;
    let _first = seat(&session, &seat_name("seats/a"), "me").await;
    let _second = seat(&session, &seat_name("seats/b"), "me").await;
    let _third = seat(&session, &seat_name("seats/a/b"), "me").await;
}

/// Who holds a seat can be observed, from before anybody did.
pub async fn the_holder_is_seen(subject: impl Subject<dyn Coordination>) {
    let engine = subject.engine();
    let name = seat_name("seats/a");
    let mut observed = engine.holder(&name).await.unwrap();
    assert_eq!(*observed.borrow(), None);
    let session = session(&engine).await;
    for who in ["first", "second"] {
        let held = seat(&session, &name, who).await;
        let seen = observed.wait_for(|holder| {
            let holder = holder.as_ref();
            holder.is_some_and(|holder| holder.name == who && holder.epoch == held.epoch())
        });
        within("the holder is seen", seen).await.unwrap();
        let mut late = engine.holder(&name).await.unwrap();
        let seen = late.wait_for(|holder| holder.is_some());
        within("the holder is seen late", seen).await.unwrap();
        held.give_up().await;
        let gone = observed.wait_for(|holder| holder.is_none());
        within("the free seat is seen", gone).await.unwrap();
    }
}
