//! Servers that hang, vanish, come back; connections that break in the midst of a write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hydrant_harness::{Proxy, skipped};
use hydrant_ports::state::Put;
use hydrant_ports::{ErrorKind, Expect, State};
use hydrant_redis::{Config, Mode, RedisState};
use tokio::task::JoinSet;

use crate::servers::{Kind, Servers, share};
use crate::watches::{Told, key, put};

fn through(proxy: &Proxy, config: &Config) -> Config {
    let mut config = config.clone();
    config.servers = vec![proxy.address().to_string()];
    config
}

fn expecting(revision: u64) -> Put {
    Put {
        expect: match revision {
            0 => Expect::Absent,
            revision => Expect::Revision(revision),
        },
        ..Put::default()
    }
}

/// A server that does not answer is noticed within the time of a request, whether it is frozen or
/// the way to it is, and used again when it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_noticed_in_time() {
    let servers = match tokio::task::block_in_place(|| Servers::start(Kind::Single, |_| ())) {
        Ok(servers) => servers,
        Err(missing) => return skipped(missing),
    };
    let redis = &servers.redis;
    let target: SocketAddr = redis.addresses()[0].parse().unwrap();
    let proxy = Proxy::start(target);
    let mut config = through(&proxy, &servers.config());
    config.request_timeout = "500ms".parse().unwrap();
    config.replica_timeout = "100ms".parse().unwrap();
    let engine = RedisState::connect(config.clone()).await.unwrap();
    put(&engine, "a", "1").await;
    let mut told = Told::new(&engine, "").await;

    let faults: [(&str, &dyn Fn(), &dyn Fn()); 3] = [
        ("frozen", &|| redis.pause(0), &|| redis.resume(0)),
        ("half-open", &|| proxy.hold(), &|| proxy.restore()),
        ("refused", &|| proxy.cut(), &|| proxy.restore()),
    ];
    for (round, (name, begin, end)) in faults.into_iter().enumerate() {
        tokio::task::block_in_place(begin);
        let started = Instant::now();
        let read = engine.get(&key("a")).await.unwrap_err();
        let read_after = started.elapsed();
        let write = engine.put(&key("a"), "2".into(), Put::default()).await;
        let write = write.unwrap_err();
        println!(
            "{name}: read failed after {read_after:.1?} ({read}), write after {:.1?} ({write})",
            started.elapsed() - read_after
        );
        assert_eq!([read.kind, write.kind], [ErrorKind::Unavailable; 2]);
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(700)).await;
        let started = Instant::now();
        engine.get(&key("a")).await.unwrap_err();
        println!("{name}: later reads fail after {:.1?}", started.elapsed());

        tokio::task::block_in_place(end);
        let started = Instant::now();
        while engine.get(&key("a")).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        println!("{name}: answers {:.1?} after it is well", started.elapsed());
        let value = format!("well {round}");
        while engine
            .put(&key("a"), value.clone().into(), Put::default())
            .await
            .is_err()
        {
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        told.until(|known| known.values().all(|entry| entry.value == value.as_bytes()))
            .await;
        println!("{name}: told {:.1?} after it is well", started.elapsed());
    }
    assert_eq!(*engine.failovers().borrow(), 0, "no server lost anything");
}

/// Many count up one key by compare-and-put while their connections are reset: no acknowledged
/// step is lost, and none is done that was told to have failed for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_a_second_write() {
    let Some(share) = share(Kind::Single).await else {
        return;
    };
    let target: SocketAddr = share.config.servers[0].parse().unwrap();
    let proxy = Arc::new(Proxy::start(target));
    let engine = RedisState::connect(through(&proxy, &share.config)).await;
    let engine = engine.unwrap();
    // So that answers are on their way when the connection breaks.
    proxy.delay(Duration::from_millis(3));
    let (sure, unsure) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    let end = Instant::now() + Duration::from_secs(3);
    for _ in 0..8 {
        let (engine, sure, unsure) = (engine.clone(), sure.clone(), unsure.clone());
        writers.spawn(async move {
            while Instant::now() < end {
                let Ok(found) = engine.get(&key("count")).await else {
                    continue;
                };
                let (count, revision) = found.map_or((0, 0), |found| {
                    let text = std::str::from_utf8(&found.entry.value).unwrap();
                    (text.parse::<u64>().unwrap(), found.entry.revision)
                });
                let value = (count + 1).to_string().into();
                let put = engine.put(&key("count"), value, expecting(revision)).await;
                match put.map_err(|error| error.kind) {
                    Ok(_) => sure.fetch_add(1, Ordering::Relaxed),
                    Err(ErrorKind::Unavailable) => unsure.fetch_add(1, Ordering::Relaxed),
                    Err(ErrorKind::Conflict) => 0,
                    Err(other) => panic!("{other:?}"),
                };
            }
        });
    }
    let mut cuts = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(70)).await;
        tokio::task::block_in_place(|| proxy.reset_all());
        cuts += 1;
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let counted = share.connect().await.get(&key("count")).await.unwrap();
    let counted = String::from_utf8(counted.unwrap().entry.value.to_vec()).unwrap();
    let counted: u64 = counted.parse().unwrap();
    let [sure, unsure] = [sure, unsure].map(|count| count.load(Ordering::Relaxed));
    println!("{cuts} cuts, counted to {counted}: {sure} sure, {unsure} unsure");
    assert!(sure > 0 && unsure > 0, "the cuts met writes");
    assert!((sure..=sure + unsure).contains(&counted));
}

/// A server that was killed and started again may have lost its last writes: who listens learns
/// of it, and marks are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_a_failover() {
    let servers = match tokio::task::block_in_place(|| Servers::start(Kind::Single, |_| ())) {
        Ok(servers) => servers,
        Err(missing) => return skipped(missing),
    };
    let engine = RedisState::connect(servers.config()).await.unwrap();
    put(&engine, "a", "1").await;
    engine.raise(&key("m"), 7).await.unwrap();
    let mut told = Told::new(&engine, "").await;
    let mut failovers = engine.failovers();
    // As if it had not kept anything.
    tokio::task::block_in_place(|| {
        servers.redis.kill(0);
        let files = servers.redis.data(0).join("appendonlydir");
        std::fs::remove_dir_all(files).unwrap();
        servers.redis.restart(0);
    });
    let started = Instant::now();
    failovers.changed().await.unwrap();
    println!("noticed {:.1?} after it answers again", started.elapsed());
    told.until(|known| known.is_empty()).await;
    assert_eq!(engine.mark(&key("m")).await.unwrap(), 7);
    let revision = put(&engine, "a", "2").await;
    told.until(|known| known.values().any(|entry| entry.revision == revision))
        .await;

    // The same without a restart.
    let before = *failovers.borrow_and_update();
    tokio::task::block_in_place(|| servers.redis.cli(0, &["FLUSHALL"])).unwrap();
    failovers.changed().await.unwrap();
    assert_eq!(*failovers.borrow(), before + 1);
    told.until(|known| known.is_empty()).await;
    assert_eq!(engine.mark(&key("m")).await.unwrap(), 7);
}

/// No more requests are under way than the configuration allows, and the rest wait no longer than
/// a request may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_a_bound() {
    let Some(share) = share(Kind::Single).await else {
        return;
    };
    assert_eq!(share.using.as_ref().unwrap().mode, Mode::Single);
    let target: SocketAddr = share.config.servers[0].parse().unwrap();
    let proxy = Proxy::start(target);
    let mut config = through(&proxy, &share.config);
    config.requests = 4;
    config.request_timeout = "1s".parse().unwrap();
    let engine = RedisState::connect(config).await.unwrap();
    tokio::task::block_in_place(|| proxy.hold());
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let engine = engine.clone();
        readers.spawn(async move { engine.get(&key("a")).await.unwrap_err().to_string() });
    }
    let told = readers.join_all().await;
    let waited = told
        .iter()
        .filter(|told| told.contains("too many requests"));
    assert!(waited.count() > 0, "{told:?}");
    tokio::task::block_in_place(|| proxy.restore());
}
