//! What the disk does to the promises.

use std::sync::Arc;
use std::time::Duration;

use hydrant_ports::coordination::{SeatName, SessionState};
use hydrant_ports::state::Put;
use hydrant_ports::{Change, Coordination, ErrorKind, Expect, Key};

use crate::disk::faulty::FaultyDisk;
use crate::store::Core;
use crate::{Config, EmbeddedStore};

const TTL: Duration = Duration::from_secs(5);

fn open(disk: &FaultyDisk) -> EmbeddedStore {
    let core = Core::open_on(Box::new(disk.clone()), Config::new("memory")).unwrap();
    EmbeddedStore(Arc::new(core))
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

async fn put(engine: &Arc<dyn Coordination>, name: &str) -> Result<u64, ErrorKind> {
    let put = engine.put(&key(name), "x".into(), Expect::Any).await;
    put.map_err(|error| error.kind)
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_power_cut() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let (coordination, state) = (store.coordination(), store.state());
    let session = coordination.open_session("one", TTL).await.unwrap();
    let seat_name = SeatName(key("seats/a"));
    for round in 1..=20_u64 {
        let name = key(&format!("k/{round}"));
        let revision = put(&coordination, name.as_str()).await.unwrap();
        let now = open(&disk.after_power_cut()).coordination();
        assert_eq!(now.get(&name).await.unwrap().unwrap().revision, revision);

        let write = state.put(&name, vec![7; 3000].into(), Put::default());
        let revision = write.await.unwrap();
        let now = open(&disk.after_power_cut()).state();
        assert_eq!(
            now.get(&name).await.unwrap().unwrap().entry.revision,
            revision
        );

        state.raise(&key("m"), round).await.unwrap();
        let now = open(&disk.after_power_cut()).state();
        assert_eq!(now.mark(&key("m")).await.unwrap(), round);

        let seat = session.take_seat(&seat_name, "me").await.unwrap();
        let now = open(&disk.after_power_cut()).coordination();
        let later = now.open_session("one", TTL).await.unwrap();
        let later = later.take_seat(&seat_name, "me").await.unwrap();
        assert!(later.epoch() > seat.epoch());
    }
}

#[tokio::test]
async fn ephemeral_keys_cost_no_sync() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let session = store.coordination().open_session("one", TTL).await.unwrap();
    let name = key("e/a");
    let mut last = session
        .put_ephemeral(&name, "x".into(), Expect::Any)
        .await
        .unwrap();
    let before = disk.syncs();
    for _ in 0..100 {
        let revision = session.put_ephemeral(&name, "x".into(), Expect::Any);
        last = revision.await.unwrap();
    }
    session.close().await;
    assert_eq!(disk.syncs(), before);
    // Yet the revisions go on behind a power cut.
    let later = open(&disk.after_power_cut()).coordination();
    assert!(put(&later, "e/a").await.unwrap() > last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_wait_share_a_sync() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let engine = store.coordination();
    put(&engine, "k/first").await.unwrap();
    let before = disk.syncs();
    let puts = (0..500).map(|index| {
        let engine = engine.clone();
        tokio::spawn(async move { put(&engine, &format!("k/{index}")).await.unwrap() })
    });
    let puts: Vec<_> = puts.collect();
    for put in puts {
        put.await.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < 500, "500 writes took {syncs} syncs");
}

#[tokio::test]
async fn a_failing_disk_acknowledges_nothing_and_is_used_again_when_it_works() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let (engine, state) = (store.coordination(), store.state());
    let session = engine.open_session("one", TTL).await.unwrap();
    put(&engine, "k/before").await.unwrap();
    let name = key("k/e");
    let ephemeral = session.put_ephemeral(&name, "x".into(), Expect::Any);
    ephemeral.await.unwrap();
    let mut watch = engine.watch(&"k/".parse().unwrap()).await.unwrap();
    assert!(matches!(watch.next().await, Some(Change::All(all)) if all.len() == 2));

    disk.set_failing(true);
    let seat_name = SeatName(key("seats/a"));
    for _ in 0..3 {
        assert_eq!(put(&engine, "k/during").await, Err(ErrorKind::Unavailable));
        let refused = session.take_seat(&seat_name, "me").await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        let refused = state.raise(&key("m"), 5).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
    }
    assert!(engine.check().await.is_err());
    // What is known is still read, and sessions live.
    assert!(engine.get(&key("k/before")).await.unwrap().is_some());
    assert!(engine.get(&key("k/during")).await.unwrap().is_none());
    assert_eq!(state.mark(&key("m")).await.unwrap(), 0);
    assert_eq!(*session.state().borrow(), SessionState::Connected);

    disk.set_failing(false);
    let mut tries = 0;
    while engine.check().await.is_err() {
        tries += 1;
        assert!(tries < 5, "the disk works and the store does not");
    }
    put(&engine, "k/after").await.unwrap();
    session.take_seat(&seat_name, "me").await.unwrap();
    let names: Vec<String> = engine
        .list(&"k/".parse().unwrap())
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.key.to_string())
        .collect();
    assert_eq!(names, ["k/after", "k/before", "k/e"]);
    // A watcher is told all again: what it held may be void.
    assert!(matches!(watch.next().await, Some(Change::All(_))));
    assert!(matches!(watch.next().await, Some(Change::Put(entry)) if entry.key == key("k/after")));
}

#[tokio::test]
async fn a_session_ends_though_the_disk_fails() {
    let disk = FaultyDisk::default();
    let store = open(&disk);
    let engine = store.coordination();
    let session = engine.open_session("one", TTL).await.unwrap();
    let name = key("k/e");
    let ephemeral = session.put_ephemeral(&name, "x".into(), Expect::Any);
    ephemeral.await.unwrap();
    disk.set_failing(true);
    let (failed, ()) = tokio::join!(put(&engine, "k/kept"), session.close());
    assert_eq!(failed, Err(ErrorKind::Unavailable));
    let gone = async {
        while engine.get(&key("k/e")).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}
