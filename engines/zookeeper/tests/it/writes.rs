//! Compare-and-put is not fooled by a key that was deleted and made again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hydrant_ports::{Coordination, ErrorKind, Expect};
use hydrant_zookeeper::ZookeeperCoordination;

use crate::support::{SINGLE, chroot, key, put, value, within};

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
