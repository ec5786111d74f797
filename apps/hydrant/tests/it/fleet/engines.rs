//! ZooKeeper and Redis, as nodes are told of them.

use std::path::Path;
use std::time::Duration;

use hydrant_harness::node::Fleet;
use hydrant_harness::{Missing, Redis, ZooKeeper, redis, zookeeper};

/// The servers behind the ports.
pub struct Engines {
    pub zookeeper: ZooKeeper,
    pub redis: Redis,
}

impl Engines {
    /// So many servers of ZooKeeper, and one of Redis. Says aloud what is missing.
    pub fn start(servers: usize) -> Option<Self> {
        let redis = || Redis::single(redis::Options::default());
        heard(Self::with(servers, redis))
    }

    /// One server of ZooKeeper, and a Redis whose master is watched over by Sentinels.
    pub fn with_sentinel() -> Option<Self> {
        let redis = || Redis::with_sentinel(redis::Options::default());
        heard(Self::with(1, redis))
    }

    fn with(
        servers: usize,
        redis: impl Fn() -> Result<Redis, Missing> + Send + Sync,
    ) -> Result<Self, Missing> {
        let options = zookeeper::Options {
            servers,
            tick: Duration::from_millis(250),
            ..Default::default()
        };
        // Java takes its time.
        std::thread::scope(|scope| {
            let redis = scope.spawn(redis);
            let zookeeper = ZooKeeper::start(options)?;
            let redis = redis.join().expect("Redis starts")?;
            Ok(Self { zookeeper, redis })
        })
    }

    /// The tables of a configuration file: no way between, and sessions as short as `session`.
    pub fn tables(&self, session: Duration) -> String {
        let mut tables = coordination(&self.zookeeper.addresses(), session);
        match self.redis.sentinels() {
            none if none.is_empty() => tables += &state(&self.redis.addresses()),
            sentinels => {
                tables += &state(&sentinels);
                tables += &format!("mode = \"sentinel\"\nmaster = \"{}\"\n", redis::MASTER);
            }
        }
        tables
    }

    /// A fleet that shares them.
    pub fn fleet(&self, session: Duration) -> Fleet {
        Fleet::new(program(), &self.tables(session))
    }
}

fn heard<T>(started: Result<T, Missing>) -> Option<T> {
    started.map_err(hydrant_harness::skipped).ok()
}

/// The binary under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hydrant"))
}

/// `[coordination]` on these servers.
pub fn coordination(servers: &[String], session: Duration) -> String {
    let ms = session.as_millis();
    format!(
        "[coordination]\nengine = \"zookeeper\"\nservers = {servers:?}\n\
         session = {{ min = \"{ms}ms\", max = \"{ms}ms\", own = \"{ms}ms\" }}\n\n"
    )
}

/// `[state]` on these servers; more lines may follow.
pub fn state(servers: &[String]) -> String {
    format!("[state]\nengine = \"redis\"\nservers = {servers:?}\n")
}
