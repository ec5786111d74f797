//! Watches: each change is told once, and none is missed when messages are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_harness::skipped;
use hydrant_ports::state::Put;
use hydrant_ports::{Change, Entry, ErrorKind, Expect, Key, State, Watch};
use hydrant_redis::RedisState;

use crate::servers::{Kind, Servers, Share, share};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a watcher knows, and how it came to know it.
pub struct Told {
    watch: Watch,
    pub entries: BTreeMap<Key, Entry>,
    /// All that came after the first word.
    pub changes: Vec<Change>,
}

impl Told {
    pub async fn new(engine: &Arc<RedisState>, prefix: &str) -> Self {
        let watch = engine.watch(&prefix.parse().unwrap()).await.unwrap();
        let mut told = Self {
            watch,
            entries: BTreeMap::new(),
            changes: Vec::new(),
        };
        told.next().await;
        assert!(matches!(told.changes.pop(), Some(Change::All(_))));
        told
    }

    pub async fn next(&mut self) {
        let next = tokio::time::timeout(PATIENCE, self.watch.next()).await;
        let change = next.expect("a change in time").expect("an open engine");
        match change.clone() {
            Change::All(entries) => {
                self.entries = entries.into_iter().map(|e| (e.key.clone(), e)).collect();
            }
            Change::Put(entry) => {
                self.entries.insert(entry.key.clone(), entry);
            }
            Change::Removed(key) => {
                let known = self.entries.remove(&key);
                assert!(known.is_some(), "{key} was removed twice");
            }
        }
        self.changes.push(change);
    }

    pub async fn until(&mut self, is_reached: impl Fn(&BTreeMap<Key, Entry>) -> bool) {
        while !is_reached(&self.entries) {
            self.next().await;
        }
    }

    /// Nothing more is told for a while.
    pub async fn is_silent(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(300), self.watch.next()).await;
        assert!(more.is_err(), "{more:?} is one change too many");
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| &*entry.value)
    }
}

pub fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub async fn put(engine: &Arc<RedisState>, name: &str, value: &str) -> u64 {
    let value = value.to_owned().into();
    engine.put(&key(name), value, Put::default()).await.unwrap()
}

pub fn cli(share: &Share, words: &[&str]) -> String {
    let redis = &share.using.as_ref().unwrap().redis;
    let told = tokio::task::block_in_place(|| redis.cli(0, words));
    told.unwrap_or_else(|| panic!("{words:?} is answered"))
}

/// What the script of a put does, but without its message.
fn put_silently(share: &Share, key: &str, value: &str, revision: u64) {
    let name = |what: &str| format!("{}{{p0}}:{what}", share.config.prefix);
    let (entry, revision) = (name(&format!("entry:{key}")), revision.to_string());
    cli(share, &["HSET", &entry, "v", value, "r", &revision]);
    cli(share, &["ZADD", &name("names"), "0", key]);
    cli(share, &["SET", &name("counter"), &revision]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_told_once() {
    for kind in [Kind::Single, Kind::Cluster] {
        let Some(share) = share(kind).await else {
            return;
        };
        let (writer, reader) = (share.connect().await, share.connect().await);
        let mut told = Told::new(&reader, "w/").await;
        for round in 0..10 {
            for name in ["w/a", "w/b", "x/a", "w/c"] {
                put(&writer, name, &round.to_string()).await;
            }
        }
        let deleted = writer.delete(&key("w/b"), Expect::Any, None).await;
        assert!(deleted.unwrap());
        told.until(|known| {
            let is_last = |name| known.get(name).is_some_and(|entry| &*entry.value == b"9");
            is_last("w/a") && is_last("w/c") && known.len() == 2
        })
        .await;
        told.is_silent().await;
        assert_eq!(told.changes.len(), 31, "{:?}", told.changes);

        // One whose time is over is told once too, whoever sweeps.
        let options = Put {
            ttl: Some(Duration::from_millis(50)),
            ..Put::default()
        };
        let short = writer.put(&key("w/short"), "x".into(), options).await;
        short.unwrap();
        told.until(|known| known.contains_key("w/short")).await;
        told.until(|known| !known.contains_key("w/short")).await;
        told.is_silent().await;
        assert_eq!(told.changes.len(), 33, "{:?}", told.changes);
        assert_eq!(reader.counts().lost_messages, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_too_large_for_a_message_is_told() {
    let Some(share) = share(Kind::Cluster).await else {
        return;
    };
    let (writer, reader) = (share.connect().await, share.connect().await);
    let mut told = Told::new(&reader, "w/").await;
    for round in 0..20 {
        let large = round.to_string().repeat(40_000);
        put(&writer, "w/large", &large).await;
        put(&writer, "w/gone", &large).await;
        let deleted = writer.delete(&key("w/gone"), Expect::Any, None).await;
        assert!(deleted.unwrap());
    }
    put(&writer, "w/small", "x").await;
    let last = "19".repeat(40_000);
    told.until(|known| {
        let large = known.get("w/large");
        large.is_some_and(|entry| entry.value == last.as_bytes())
            && known.contains_key("w/small")
            && !known.contains_key("w/gone")
    })
    .await;
    told.is_silent().await;
    assert!(told.changes.len() <= 61, "{}", told.changes.len());
}

/// Connections of subscribers are cut again and again while others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_subscription_misses_nothing() {
    // Of its own: the subscriptions of other tests would be cut too.
    let servers = match tokio::task::block_in_place(|| Servers::start(Kind::Single, |_| ())) {
        Ok(servers) => servers,
        Err(missing) => return skipped(missing),
    };
    let config = servers.config();
    let writer = RedisState::connect(config.clone()).await.unwrap();
    let reader = RedisState::connect(config).await.unwrap();
    let mut told = Told::new(&reader, "w/").await;
    let rounds = 60;
    for round in 0..rounds {
        put(&writer, &format!("w/{}", round % 7), &round.to_string()).await;
        let deleted = writer.delete(&key("w/3"), Expect::Any, None).await;
        deleted.unwrap();
        if round % 6 == 5 {
            let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
            tokio::task::block_in_place(|| servers.redis.cli(0, &kill)).unwrap();
        }
    }
    put(&writer, "w/last", "x").await;
    let truth = writer.list(&"w/".parse().unwrap(), None, 99).await.unwrap();
    let truth: BTreeMap<Key, Entry> = truth
        .into_iter()
        .map(|found| (found.entry.key.clone(), found.entry))
        .collect();
    let started = Instant::now();
    told.until(|known| *known == truth).await;
    println!(
        "converged {:?} after the last write, {} changes told of {}, subscribed {} times",
        started.elapsed(),
        told.changes.len(),
        2 * rounds + 1,
        reader.counts().subscriptions
    );
    told.is_silent().await;
    assert!(reader.counts().subscriptions > 1);
    // Compared, not told anew: no key is told twice at one revision.
    let mut revisions = BTreeMap::new();
    for change in &told.changes {
        match change {
            Change::Put(entry) => {
                let before = revisions.insert(entry.key.clone(), entry.revision);
                assert!(before.is_none_or(|before| before < entry.revision));
            }
            Change::Removed(_) => {}
            Change::All(_) => panic!("a watcher that keeps up is told changes only"),
        }
    }
}

/// A change whose message nobody got is found by comparison.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_message_is_found_by_comparison() {
    let Some(mut share) = share(Kind::Single).await else {
        return;
    };
    share.config.compare = "200ms".parse().unwrap();
    let engine = share.connect().await;
    put(&engine, "w/old", "1").await;
    let mut told = Told::new(&engine, "w/").await;
    let revision = put(&engine, "w/heard", "2").await;
    told.until(|known| known.len() == 2).await;

    // As the scripts of a delete and a put do, but without their messages.
    let name = |what: &str| format!("{}{{p0}}:{what}", share.config.prefix);
    cli(&share, &["DEL", &name("entry:w/old")]);
    cli(&share, &["ZREM", &name("names"), "w/old"]);
    put_silently(&share, "w/silent", "3", revision + 1);
    let started = Instant::now();
    told.until(|known| known.contains_key("w/silent") && !known.contains_key("w/old"))
        .await;
    println!("found {:?} after it happened", started.elapsed());
    told.is_silent().await;
    assert_eq!(told.value("w/silent"), Some(b"3".as_slice()));
    assert_eq!(told.changes.len(), 3, "{:?}", told.changes);
    assert!(engine.counts().lost_messages >= 1);
}

/// A message that follows lost ones tells of them, long before the next comparison.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_after_a_lost_one_tells_of_it() {
    let Some(mut share) = share(Kind::Single).await else {
        return;
    };
    share.config.compare = "1h".parse().unwrap();
    let engine = share.connect().await;
    let mut told = Told::new(&engine, "w/").await;
    let revision = put(&engine, "w/heard", "1").await;
    told.until(|known| known.len() == 1).await;
    put_silently(&share, "w/silent", "2", revision + 1);
    put(&engine, "w/heard", "3").await;
    told.until(|known| known.len() == 2 && known["w/heard"].revision > revision)
        .await;
    told.is_silent().await;
    assert_eq!(told.value("w/silent"), Some(b"2".as_slice()));
    assert_eq!(told.changes.len(), 3, "{:?}", told.changes);
    assert_eq!(engine.counts().lost_messages, 1);
}

/// One watch more than the configuration allows is refused; one that has ended leaves its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_have_a_bound() {
    let Some(mut share) = share(Kind::Single).await else {
        return;
    };
    share.config.watchers = 2;
    let engine = share.connect().await;
    let (first, mut second) = (Told::new(&engine, "w/").await, Told::new(&engine, "").await);
    let refused = engine.watch(&"w/".parse().unwrap()).await;
    let refused = refused.err().expect("a third watch is refused");
    assert_eq!(refused.kind, ErrorKind::TooLarge);
    assert!(refused.to_string().contains("`watchers`"), "{refused}");
    drop(first);
    let mut third = Told::new(&engine, "w/").await;
    put(&engine, "w/a", "1").await;
    for told in [&mut second, &mut third] {
        told.until(|known| known.len() == 1).await;
    }
}

/// A closed engine ends its watches and refuses requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_engine_ends_its_watches() {
    let Some(share) = share(Kind::Single).await else {
        return;
    };
    let engine = share.connect().await;
    let mut watch = engine.watch(&"w/".parse().unwrap()).await.unwrap();
    assert!(watch.next().await.is_some());
    engine.close().await;
    assert_eq!(watch.next().await, None);
    let refused = engine.get(&key("w/a")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Closed);
    let refused = engine.watch(&"w/".parse().unwrap()).await;
    assert!(refused.is_err());
}
