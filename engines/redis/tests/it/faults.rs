//! Servers that hang, vanish, come back; connections that break in the midst of a write.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use hydrant_harness::{Proxy, skipped};
use hydrant_ports::state::Put;
use hydrant_ports::{EngineError, ErrorKind, Expect, Key, State};
use hydrant_redis::{Config, Mode, RedisState};
use tokio::task::JoinSet;

use crate::servers::{Kind, Servers, share};
use crate::watches::{Told, key, put};

type Action<'a> = &'a dyn Fn();

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

    let faults: [(&str, Action, Action); 3] = [
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

/// Each of some writers counts up a key of its own by compare-and-put while connections are reset.
/// Nobody else writes it, so a refusal would be of a write that had happened before and was sent
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_not_a_second_write() {
    let Some(share) = share(Kind::Single).await else {
        return;
    };
    let target: SocketAddr = share.config.servers[0].parse().unwrap();
    let proxy = Proxy::start(target);
    let engine = RedisState::connect(through(&proxy, &share.config)).await;
    let engine = engine.unwrap();
    // So that answers are on their way when the connection breaks.
    proxy.delay(Duration::from_millis(3));
    let end = Instant::now() + Duration::from_secs(3);
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (engine, name) = (engine.clone(), key(&format!("count/{writer}")));
        writers.spawn(async move { count_up(&engine, &name, end).await });
    }
    let mut cuts = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(70)).await;
        tokio::task::block_in_place(|| proxy.reset_all());
        cuts += 1;
    }
    let counts = writers.join_all().await;
    let direct = share.connect().await;
    let (mut all_sure, mut all_unsure) = (0, 0);
    for (name, sure, unsure) in counts {
        let counted = read_count(&direct, &name).await.unwrap().0;
        assert!((sure..=sure + unsure).contains(&counted), "{name}");
        (all_sure, all_unsure) = (all_sure + sure, all_unsure + unsure);
    }
    println!("{cuts} cuts, {all_sure} sure writes, {all_unsure} unsure ones");
    assert!(all_sure > 0 && all_unsure > 0, "the cuts met writes");
}

/// The key, and how many writes were acknowledged, and how many may have happened.
async fn count_up(engine: &RedisState, name: &Key, end: Instant) -> (Key, u64, u64) {
    let (mut sure, mut unsure) = (0, 0);
    while Instant::now() < end {
        let Ok((count, revision)) = read_count(engine, name).await else {
            continue;
        };
        let value = (count + 1).to_string().into();
        let put = engine.put(name, value, expecting(revision)).await;
        match put.map_err(|error| error.kind) {
            Ok(_) => sure += 1,
            Err(ErrorKind::Unavailable) => {
                unsure += 1;
                // What is on its way arrives.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Err(other) => panic!("{name}: {other:?} after {sure} sure and {unsure} unsure writes"),
        }
    }
    (name.clone(), sure, unsure)
}

async fn read_count(engine: &RedisState, name: &Key) -> Result<(u64, u64), EngineError> {
    let found = engine.get(name).await?;
    Ok(found.map_or((0, 0), |found| {
        let text = std::str::from_utf8(&found.entry.value).unwrap();
        (text.parse().unwrap(), found.entry.revision)
    }))
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

/// In a cluster, marks that one master has lost are raised again from the others, also by an engine
/// that has never seen them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_gets_its_marks_back() {
    let Some(mut share) = share(Kind::Cluster).await else {
        return;
    };
    let bystander = share.connect().await;
    let holder = share.connect().await;
    let marks = (0..300).map(|number| key(&format!("m/{number}")));
    let raised = marks.map(|mark| {
        let holder = holder.clone();
        async move { holder.raise(&mark, 7).await }
    });
    try_join_all(raised).await.unwrap();
    holder.close().await;
    let mut failovers = bystander.failovers();
    share.using = None;
    let alone = share.servers.clone().write_owned().await;
    tokio::task::block_in_place(|| {
        alone.redis.kill(0);
        std::fs::remove_dir_all(alone.redis.data(0).join("appendonlydir")).unwrap();
        alone.redis.restart(0);
        alone.redis.wait_cluster();
    });
    failovers.changed().await.unwrap();
    bystander.check().await.unwrap();
    for partition in 0..16 {
        let marks = format!("{}{{p{partition}}}:marks", share.config.prefix);
        let mut counts = (0..3).filter_map(|server| {
            let told = tokio::task::block_in_place(|| alone.redis.cli(server, &["HLEN", &marks]));
            told.map(|told| told.trim().to_owned())
        });
        assert_eq!(
            counts.next().as_deref(),
            Some("300"),
            "partition {partition}"
        );
    }
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
