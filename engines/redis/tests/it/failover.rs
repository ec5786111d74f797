//! A fail-over to a replica that has not got the last writes: what holds afterwards, and what does
//! not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_harness::redis::Options;
use hydrant_harness::skipped;
use hydrant_ports::state::Put;
use hydrant_ports::{ErrorKind, Expect, State};
use hydrant_redis::{Config, RedisState};

use crate::fence::under;
use crate::servers::{Kind, Servers};
use crate::watches::{Told, key};

const PATIENCE: Duration = Duration::from_secs(60);

async fn until(what: &str, mut is_reached: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_reached().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: after {:.1?}", started.elapsed());
}

struct Stage {
    servers: Servers,
    prefix: String,
}

impl Stage {
    fn config(&self) -> Config {
        let mut config = self.servers.config();
        config.prefix = self.prefix.clone();
        config.request_timeout = "2s".parse().unwrap();
        config.replica_timeout = "200ms".parse().unwrap();
        config
    }

    async fn connect(&self) -> Arc<RedisState> {
        RedisState::connect(self.config()).await.unwrap()
    }

    /// Where replicas are required, a write that none confirms fails; it has happened nevertheless.
    async fn strict_write_fails(&self) {
        let mut config = self.config();
        config.require_replicas = true;
        let strict = RedisState::connect(config).await.unwrap();
        let name = key("strict");
        let put = strict.put(&name, "x".into(), Put::default()).await;
        let unconfirmed = put.unwrap_err();
        println!("strict put: {unconfirmed}");
        assert_eq!(unconfirmed.kind, ErrorKind::Unavailable);
        assert!(unconfirmed.to_string().contains("is written, but"));
        assert!(strict.get(&name).await.unwrap().is_some());
        let unconfirmed = strict.delete(&name, Expect::Any, None).await;
        assert_eq!(unconfirmed.unwrap_err().kind, ErrorKind::Unavailable);
        assert!(strict.get(&name).await.unwrap().is_none());
        assert_eq!(strict.counts().unconfirmed_writes, 2);
        strict.close().await;
    }

    fn cli(&self, server: usize, words: &[&str]) -> Option<String> {
        let told = tokio::task::block_in_place(|| self.servers.redis.cli(server, words));
        told.map(|told| told.trim().to_owned())
    }

    fn master(&self) -> Option<usize> {
        tokio::task::block_in_place(|| self.servers.redis.master())
    }

    async fn replica_follows(&self, master: usize) {
        until("the replica follows", async || {
            let info = self.cli(master, &["INFO", "replication"]);
            info.is_some_and(|info| info.contains("state=online"))
        })
        .await;
    }

    /// Freezes the replica, and fills all buffers on the way to it: nothing that is written from now
    /// on reaches it.
    async fn cut_replica(&self, master: usize) {
        let mut config = self.servers.config();
        config.wait_replicas = 0;
        let filler = RedisState::connect(config).await.unwrap();
        tokio::task::block_in_place(|| self.servers.redis.pause(1 - master));
        for _ in 0..6 {
            let value = vec![7; hydrant_ports::state::MAX_VALUE];
            let name = key("filler");
            let put = filler.put(&name, value.into(), Put::default());
            put.await.unwrap();
        }
    }

    /// Kills the master and lets its frozen replica, which has not got the last writes, take over.
    async fn fail_over(&self, master: usize) {
        tokio::task::block_in_place(|| {
            self.servers.redis.kill(master);
            self.servers.redis.resume(1 - master);
        });
        until("the replica is master", async || {
            self.master() == Some(1 - master)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_leaves() {
    let quick = |options: &mut Options| options.down_after = Duration::from_secs(1);
    let started = tokio::task::block_in_place(|| Servers::start(Kind::Sentinel, quick));
    let servers = match started {
        Ok(servers) => servers,
        Err(missing) => return skipped(missing),
    };
    let prefix = servers.config().prefix;
    let stage = Stage { servers, prefix };
    let master = stage.master().expect("there is a master");
    stage.replica_follows(master).await;
    let (leader, reader) = (stage.connect().await, stage.connect().await);
    let mut told = Told::new(&reader, "s/").await;

    // Epoch 5 is on both servers.
    leader.raise(&key("m/a"), 5).await.unwrap();
    leader
        .put(&key("s/a"), "five".into(), under(5))
        .await
        .unwrap();
    told.until(|known| known.len() == 1).await;
    assert_eq!(leader.counts().unconfirmed_writes, 0);

    // The replica hangs: a mark is not said to be raised that it has not got. A write goes on, and
    // is counted.
    stage.cut_replica(master).await;
    let raised = leader.raise(&key("m/a"), 6).await.unwrap_err();
    assert_eq!(raised.kind, ErrorKind::Unavailable);
    println!("raise: {raised}");
    leader
        .put(&key("s/a"), "six".into(), under(6))
        .await
        .unwrap();
    assert_eq!(leader.counts().unconfirmed_writes, 1);
    stage.strict_write_fails().await;
    told.until(|known| known.values().all(|entry| &*entry.value == b"six"))
        .await;
    let seen = reader.get(&key("s/a")).await.unwrap().unwrap();
    assert_eq!(&*seen.entry.value, b"six");

    let mut failovers = [leader.failovers(), reader.failovers()];
    stage.fail_over(master).await;
    let now = 1 - master;
    for failovers in &mut failovers {
        let changed = tokio::time::timeout(PATIENCE, failovers.changed()).await;
        changed.expect("the fail-over is noticed").unwrap();
    }

    // It does not hold that an acknowledged write is there.
    let entry = format!("{}{{p0}}:entry:s/a", stage.prefix);
    assert_eq!(stage.cli(now, &["HGET", &entry, "v"]).unwrap(), "five");
    // It holds that a mark is where any engine that lives has seen it, without its holder's help.
    until("the mark is raised again", async || {
        let marks = format!("{}{{p0}}:marks", stage.prefix);
        let known = stage.cli(now, &["HGET", &marks, "m/a"]);
        known.is_some_and(|known| known.ends_with("06"))
    })
    .await;
    let newcomer = stage.connect().await;
    assert_eq!(newcomer.mark(&key("m/a")).await.unwrap(), 6);
    let late = newcomer.put(&key("s/a"), "late".into(), under(5)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Superseded { known: 6 });
    // It holds that nobody is shown a lower epoch than it has seen of a key; who has seen none, is.
    let hidden = reader.get(&key("s/a")).await.unwrap_err();
    assert_eq!(hidden.kind, ErrorKind::Unavailable);
    println!("get: {hidden}");
    assert!(
        reader
            .list(&"s/".parse().unwrap(), None, 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(reader.counts().hidden_reads >= 2);
    let old = newcomer.get(&key("s/a")).await.unwrap().unwrap();
    assert_eq!(&*old.entry.value, b"five");
    // Revisions grow nevertheless, and the leader's next write ends all this.
    let revision = leader.put(&key("s/a"), "again".into(), under(6)).await;
    let revision = revision.unwrap();
    assert!(revision > seen.entry.revision);
    told.until(|known| known.values().all(|entry| &*entry.value == b"again"))
        .await;
    let back = told
        .changes
        .iter()
        .filter(|change| format!("{change:?}").contains("five"));
    assert_eq!(
        back.count(),
        1,
        "no watcher was led back: {:?}",
        told.changes
    );
    let read = reader.get(&key("s/a")).await.unwrap().unwrap();
    assert_eq!(read.entry.revision, revision);

    // What does not hold: a mark that no replica had confirmed is lost when nobody who has seen it
    // lives, until its holder raises it again.
    tokio::task::block_in_place(|| stage.servers.redis.restart(master));
    let address = stage.servers.redis.addresses()[now].clone();
    let (host, port) = address.split_once(':').unwrap();
    // The Sentinels would tell it too, later.
    stage.cli(master, &["REPLICAOF", host, port]).unwrap();
    until("the old master follows", async || {
        let role = stage.cli(master, &["ROLE"]).unwrap_or_default();
        role.starts_with("slave")
    })
    .await;
    stage.replica_follows(now).await;
    let holder = stage.connect().await;
    stage.cut_replica(now).await;
    holder.raise(&key("m/a"), 9).await.unwrap_err();
    assert_eq!(newcomer.mark(&key("m/a")).await.unwrap(), 9);
    for engine in [leader, reader, newcomer, holder] {
        engine.close().await;
    }
    stage.fail_over(now).await;
    let after = stage.connect().await;
    assert_eq!(after.mark(&key("m/a")).await.unwrap(), 6);
    after
        .put(&key("s/a"), "seven".into(), under(7))
        .await
        .unwrap();
    after.raise(&key("m/a"), 9).await.unwrap();
    let late = after.put(&key("s/a"), "eight".into(), under(8)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Superseded { known: 9 });
}
