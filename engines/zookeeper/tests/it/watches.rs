//! Watches over cut connections, and how much is read for them.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use hydrant_ports::coordination::Session;
use hydrant_ports::{Coordination, Expect};
use hydrant_zookeeper::ZookeeperCoordination;

use crate::support::{SINGLE, chroot, key, next, open, prefix, put, put_in, told, within};

/// What was missed while the connection was away is told afterwards, each change once, and nothing
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_the_connection_is_away_is_told() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let other = shared.engine(&chroot).await;
    let session = open(&other, "one").await;
    for half_open in [false, true] {
        let (engine, proxies) = shared.behind_proxies(&chroot).await;
        for name in [
            "w/a/changes",
            "w/a/goes",
            "w/a/again",
            "w/a/stays",
            "w/b/goes",
            "w/c/stays",
        ] {
            put(&other, name, "1").await;
        }
        put_in(&*session, "w/b/taken", "1").await;
        let mut watch = engine.watch(&prefix("w/")).await.unwrap();
        assert_eq!(next(&mut watch).await, "all 7");
        match half_open {
            true => proxies[0].hold(),
            false => proxies[0].cut(),
        }
        put(&other, "w/a/changes", "2").await;
        put(&other, "w/a/changes", "3").await;
        for name in ["w/a/goes", "w/a/again", "w/b/goes"] {
            assert!(other.delete(&key(name), Expect::Any).await.unwrap());
        }
        put(&other, "w/a/again", "1").await;
        put(&other, "w/d/e/new", "1").await;
        // Longer than it takes to notice, shorter than the session lives.
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxies[0].restore();
        let since = Instant::now();
        let mut changes = Vec::new();
        while changes.len() < 5 {
            changes.push(next(&mut watch).await);
        }
        println!(
            "half-open: {half_open}; all was told after {:?}",
            since.elapsed()
        );
        changes.sort();
        assert_eq!(
            changes,
            [
                "-w/a/goes",
                "-w/b/goes",
                "w/a/again=1",
                "w/a/changes=3",
                "w/d/e/new=1"
            ]
        );
        // It goes on, on the new connection, and nothing is told twice.
        put(&other, "w/d/e/new", "2").await;
        put(&other, "w/f", "1").await;
        let mut changes = told(&mut watch, Duration::from_millis(500)).await;
        changes.sort();
        assert_eq!(changes, ["w/d/e/new=2", "w/f=1"]);
        for name in ["w/d/e/new", "w/f"] {
            other.delete(&key(name), Expect::Any).await.unwrap();
        }
    }
}

/// Connections that break all the time: in the end the watcher knows the truth.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_behind_a_bad_line_learns_the_truth() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let other = shared.engine(&chroot).await;
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let mut watch = engine.watch(&prefix("w/")).await.unwrap();
    let mut known = std::collections::BTreeMap::new();
    let random = fastrand::Rng::with_seed(20_250_101);
    let changes = async {
        let mut random = random;
        for round in 0..300 {
            let name = key(&format!("w/{}/{}", random.u8(0..6), random.u8(0..6)));
            if random.u8(0..3) == 0 {
                other.delete(&name, Expect::Any).await.unwrap();
            } else {
                put(&other, name.as_str(), &round.to_string()).await;
            }
            if round % 5 == 0 {
                proxies[0].reset_all();
            }
        }
    };
    changes.await;
    let truth = other.list(&prefix("w/")).await.unwrap();
    let learns = async {
        while !known.values().eq(truth.iter()) {
            match watch.next().await.unwrap() {
                hydrant_ports::Change::All(all) => {
                    known = all
                        .into_iter()
                        .map(|entry| (entry.key.clone(), entry))
                        .collect();
                }
                hydrant_ports::Change::Put(entry) => {
                    known.insert(entry.key.clone(), entry);
                }
                hydrant_ports::Change::Removed(key) => {
                    known.remove(&key);
                }
            }
        }
    };
    within("the truth", learns).await;
}

const SERVICES: usize = 1000;
const EACH: usize = 10;

async fn fill(engine: &ZookeeperCoordination) -> Box<dyn Session> {
    let session = open(engine, "fleet").await;
    let names = (0..SERVICES).flat_map(|service| {
        (0..EACH).map(move |instance| format!("instances/api/s{service}/s{service}-{instance}"))
    });
    let value = "x".repeat(200);
    stream::iter(names)
        .for_each_concurrent(64, |name| {
            let (session, value) = (&session, &value);
            async move {
                put_in(&**session, &name, value).await;
            }
        })
        .await;
    session
}

/// A large table is read once, and after a reconnect only what differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_reads_only_what_differs() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let other = shared.engine(&chroot).await;
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let since = Instant::now();
    let _session = fill(&other).await;
    println!("{} keys put in {:?}", SERVICES * EACH, since.elapsed());

    let (since, reads) = (Instant::now(), engine.reads());
    let mut watch = engine.watch(&prefix("instances/")).await.unwrap();
    assert_eq!(next(&mut watch).await, format!("all {}", SERVICES * EACH));
    let first = engine.reads() - reads;
    println!(
        "{first} znodes read for the first table, in {:?}",
        since.elapsed()
    );
    // Each directory and each leaf once.
    let most = (SERVICES * EACH + SERVICES + 10) as u64;
    assert!(first <= most, "{first} reads");

    let (since, reads) = (Instant::now(), engine.reads());
    put(&other, "instances/api/s7/s7-new", "1").await;
    assert_eq!(next(&mut watch).await, "instances/api/s7/s7-new=1");
    println!(
        "{} znodes read for a change, told after {:?}",
        engine.reads() - reads,
        since.elapsed()
    );
    assert!(engine.reads() - reads <= 4);

    let reads = engine.reads();
    proxies[0].cut();
    put(&other, "instances/api/s8/s8-new", "1").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxies[0].restore();
    let since = Instant::now();
    assert_eq!(next(&mut watch).await, "instances/api/s8/s8-new=1");
    let again = engine.reads() - reads;
    println!(
        "{again} znodes read after a reconnect, told after {:?}",
        since.elapsed()
    );
    // Each directory's mark, and the one service that differs.
    let most = (SERVICES + EACH + 20) as u64;
    assert!(again <= most, "{again} reads");
    assert_eq!(told(&mut watch, Duration::from_millis(300)).await, [""; 0]);
}

/// Many changes of one key are read as often as there is time for, not as often as they are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_changes_is_no_storm_of_reads() {
    const CHANGES: usize = 300;
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let other = shared.engine(&chroot).await;
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let session = open(&other, "one").await;
    put_in(&*session, "w/a", "0").await;
    let mut watch = engine.watch(&prefix("w/")).await.unwrap();
    assert_eq!(next(&mut watch).await, "all 1");
    let reads = engine.reads();
    proxies[0].delay(Duration::from_millis(20));
    stream::iter(1..=CHANGES)
        .for_each_concurrent(32, |_| async {
            put_in(&*session, "w/a", "x").await;
        })
        .await;
    put_in(&*session, "w/a", "last").await;
    let mut words = 1;
    while next(&mut watch).await != "w/a=last" {
        words += 1;
    }
    let reads = engine.reads() - reads;
    println!("{CHANGES} changes of a key: {reads} reads, {words} told");
    assert!(reads <= CHANGES as u64, "{reads} reads");
}

/// A change that comes while another is read is told next, not with the next event.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_comes_during_a_read_is_told_at_once() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let other = shared.engine(&chroot).await;
    let (engine, proxies) = shared.behind_proxies(&chroot).await;
    let session = open(&other, "one").await;
    put_in(&*session, "w/a", "0").await;
    let mut watch = engine.watch(&prefix("w/")).await.unwrap();
    assert_eq!(next(&mut watch).await, "all 1");
    // An event takes 20 ms, and the read that it causes 40 ms more.
    proxies[0].delay(Duration::from_millis(20));
    for round in 0..5 {
        put_in(&*session, "w/a", "x").await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let name = format!("w/b{round}");
        put_in(&*session, &name, "y").await;
        let written = Instant::now();
        while next(&mut watch).await != format!("{name}=y") {}
        let late = written.elapsed();
        println!("told after {late:?}");
        assert!(late < Duration::from_secs(5), "told after {late:?}");
    }
}
