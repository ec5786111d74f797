//! Writes that compare, and reads of what was written elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hydrant_ports::{Coordination, ErrorKind, Expect};
use hydrant_zookeeper::ZookeeperCoordination;

use crate::support::{ENSEMBLE, SINGLE, chroot, config, key, prefix, put, value, within};

/// Puts over what it has read, and tells which revisions it has put over which.
async fn compare(engine: &ZookeeperCoordination, stop: &AtomicBool) -> Vec<(u64, u64)> {
    let name = key("aba/a");
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(found) = engine.get(&name).await.unwrap() else {
            continue;
        };
        let expect = Expect::Revision(found.revision);
        match engine.put(&name, value("compared"), expect).await {
            Ok(revision) => done.push((found.revision, revision)),
            Err(error) => assert_eq!(error.kind, ErrorKind::Conflict),
        }
    }
    done
}

/// Deletes the key and puts it again: its znode's version is what it was.
async fn replace(engine: &ZookeeperCoordination, stop: &AtomicBool) -> Vec<u64> {
    let mut done = Vec::new();
    for _ in 0..100 {
        engine.delete(&key("aba/a"), Expect::Any).await.unwrap();
        done.push(put(engine, "aba/a", "replaced").await);
        // Time for a compare to succeed.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40))).await;
    }
    stop.store(true, Ordering::Relaxed);
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_again_is_another() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    // The time between a compare's look and its write is long enough for the other.
    let (one, proxies) = shared.behind_proxies(&chroot).await;
    let (two, more) = shared.behind_proxies(&chroot).await;
    for proxy in proxies.iter().chain(&more) {
        proxy.delay(Duration::from_millis(3));
    }
    let three = shared.engine(&chroot).await;
    put(&one, "aba/a", "first").await;
    let stop = AtomicBool::new(false);
    let all = async {
        tokio::join!(
            compare(&one, &stop),
            compare(&two, &stop),
            replace(&three, &stop)
        )
    };
    let (first, second, replaced) = within("all are done", all).await;
    let compared: Vec<(u64, u64)> = first.into_iter().chain(second).collect();
    println!("{} of the compares succeeded", compared.len());
    assert!(!compared.is_empty());
    let puts = compared.iter().map(|(_, put)| put).chain(&replaced);
    for between in puts {
        for (read, put) in &compared {
            assert!(
                !(read < between && between < put),
                "{put} was put over {read}, but {between} came between"
            );
        }
    }
}

/// Sessions may be connected to different servers: a read still sees every earlier write.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_what_was_written_by_another_server() {
    let Some(shared) = ENSEMBLE.as_ref() else {
        return;
    };
    let (_at_work, chroot) = (shared.at_work().await, chroot());
    let mut engines = Vec::new();
    for address in shared.servers.addresses() {
        let engine = ZookeeperCoordination::connect(config([address], &chroot)).await;
        engines.push(engine.unwrap());
    }
    for round in 0..100 {
        let writer = &engines[round % 3];
        let revision = put(writer, "f/a", &round.to_string()).await;
        for reader in &engines {
            let found = reader.get(&key("f/a")).await.unwrap().unwrap();
            assert_eq!(found.revision, revision, "round {round}");
            let listed = reader.list(&prefix("f/")).await.unwrap();
            assert_eq!(listed[0].revision, revision, "round {round}");
        }
    }
}
