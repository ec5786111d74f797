//! Epochs grow also when the ensemble was rebuilt from nothing.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hydrant_runtime::Clock;
use hydrant_zookeeper::{Config, ZookeeperCoordination};

use crate::support::{SINGLE, Shared, chroot, config, open, seat, within};

const DAY: u64 = 24 * 60 * 60;

/// Some day in 2026.
const NOW: u64 = 1_790_000_000;

async fn connect(config: Config, now: u64) -> Arc<ZookeeperCoordination> {
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(now));
    ZookeeperCoordination::connect_with(config, clock)
        .await
        .unwrap()
}

/// Takes a seat and tells its epoch.
async fn epoch(engine: &ZookeeperCoordination) -> u64 {
    let taken = async {
        loop {
            let session = open(engine, "one").await;
            match session.take_seat(&seat("s/a"), "me").await {
                Ok(held) => return held.epoch(),
                Err(error) => println!("{error}"),
            }
        }
    };
    within("a seat is taken", taken).await
}

async fn wipe(shared: &Shared) {
    tokio::task::block_in_place(|| shared.servers.wipe());
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_grow_when_the_ensemble_is_rebuilt() {
    let Some(shared) = SINGLE.as_ref() else {
        return;
    };
    let alone = shared.alone().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(shared.servers.addresses(), &chroot());
    let mut with_file = config.clone();
    with_file.era_file = Some(folder.path().join("era"));
    config.limits.request_timeout = "10s".parse().unwrap();

    let stays = connect(config.clone(), NOW).await;
    let remembers = connect(with_file.clone(), NOW).await;
    let mut last = epoch(&stays).await;
    assert!(
        last < 1 << 53,
        "{last} is more than every language can carry"
    );
    let next = epoch(&remembers).await;
    assert!(next > last, "{next} follows {last}");
    last = next;
    remembers.close().await;
    drop(remembers);

    // The engine that goes on raises what it makes anew, although its clock stands still.
    wipe(shared).await;
    let next = epoch(&stays).await;
    assert!(next > last, "{next} follows {last}");
    last = next;

    // One that knows nothing makes it anew, by a clock that was set back. It may give a lower
    // epoch; one that knows better raises the era, and then both do.
    wipe(shared).await;
    let knows_nothing = connect(config.clone(), NOW - DAY).await;
    println!("{} follows {last}", epoch(&knows_nothing).await);
    for engine in [&stays, &knows_nothing, &stays] {
        let next = epoch(engine).await;
        assert!(next > last, "{next} follows {last}");
        last = next;
    }
    drop((stays, knows_nothing));

    // All is down, the ensemble is rebuilt and the clock set back: the file remembers.
    let remembers = connect(with_file.clone(), NOW).await;
    last = epoch(&remembers).await.max(last);
    remembers.close().await;
    wipe(shared).await;
    let remembers = connect(with_file, NOW - DAY).await;
    let next = epoch(&remembers).await;
    assert!(next > last, "{next} follows {last}");
    drop(alone);
}
