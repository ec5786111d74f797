//! The servers that tests of this binary share, each with a prefix of its own: starting some takes
//! seconds. A test that kills servers waits until no other uses them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hydrant_harness::redis::{MASTER, Options, User};
use hydrant_harness::{Missing, Redis, skipped};
use hydrant_redis::{Config, Mode, RedisState, Secret, Tls};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// The rules that the engine's documentation names.
pub const RULES: &str = "~hydrant:* &hydrant:* -@all +@read +@write +@connection +@pubsub \
    +eval +evalsha +info +wait +time +cluster|slots +acl|dryrun";
pub const USER: &str = "node";
pub const PASSWORD: &str = "correct horse";

/// Servers of one kind.
pub struct Servers {
    pub mode: Mode,
    pub redis: Redis,
}

/// Which servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Single,
    Sentinel,
    Cluster,
    TlsWithUsers,
    TlsSentinel,
    TlsCluster,
}

pub type Shared = Arc<RwLock<Servers>>;

/// A test's share of some servers.
pub struct Share {
    pub kind: Kind,
    pub servers: Shared,
    pub using: Option<OwnedRwLockReadGuard<Servers>>,
    pub config: Config,
}

impl Servers {
    pub fn start(kind: Kind, more: impl FnOnce(&mut Options)) -> Result<Self, Missing> {
        let is_tls = matches!(
            kind,
            Kind::TlsWithUsers | Kind::TlsSentinel | Kind::TlsCluster
        );
        let mut options = Options {
            tls: is_tls,
            // Nobody fails over because a busy machine is slow.
            down_after: Duration::from_secs(10),
            ..Options::default()
        };
        if is_tls {
            options.users.push(User {
                name: USER.into(),
                password: PASSWORD.replace(' ', "-"),
                rules: RULES.into(),
            });
        }
        more(&mut options);
        let (mode, redis) = match kind {
            Kind::Single | Kind::TlsWithUsers => (Mode::Single, Redis::single(options)?),
            Kind::Sentinel | Kind::TlsSentinel => (Mode::Sentinel, Redis::with_sentinel(options)?),
            Kind::Cluster | Kind::TlsCluster => (Mode::Cluster, Redis::cluster(options)?),
        };
        Ok(Self { mode, redis })
    }

    /// How they are reached, with a prefix that no other test has.
    pub fn config(&self) -> Config {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let addresses = match self.mode {
            Mode::Single | Mode::Cluster => self.redis.addresses(),
            Mode::Sentinel => self.redis.sentinels(),
        };
        let mut config = Config::new(self.mode, addresses);
        config.master = (self.mode == Mode::Sentinel).then(|| MASTER.into());
        config.prefix = format!("hydrant:{}:", NEXT.fetch_add(1, Ordering::Relaxed));
        config.connect_timeout = "60s".parse().unwrap();
        config.request_timeout = "10s".parse().unwrap();
        if let Some(certificates) = self.redis.certificates() {
            config.user = Some(USER.into());
            config.password = Some(Secret::new(PASSWORD.replace(' ', "-")));
            config.tls = Some(Tls {
                ca: certificates.ca_pem(),
                certificate: Some(certificates.client_pem()),
                key: Some(certificates.client_key()),
            });
        }
        config
    }
}

/// The shared servers of a kind; says so when they can't be had.
pub async fn share(kind: Kind) -> Option<Share> {
    static SHARED: [OnceLock<Result<Shared, Missing>>; 6] = [const { OnceLock::new() }; 6];
    let start = || Servers::start(kind, |_| ()).map(|servers| Arc::new(RwLock::new(servers)));
    let shared = tokio::task::block_in_place(|| SHARED[kind as usize].get_or_init(start));
    match shared {
        Ok(servers) => {
            let using = servers.clone().read_owned().await;
            Some(Share {
                kind,
                config: using.config(),
                using: Some(using),
                servers: servers.clone(),
            })
        }
        Err(missing) => {
            skipped(missing);
            None
        }
    }
}

impl Share {
    pub async fn connect(&self) -> Arc<RedisState> {
        let connected = RedisState::connect(self.config.clone()).await;
        connected.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Kills all servers at once and starts them again, while no other test uses them.
    pub async fn kill_and_restart(&mut self) {
        self.using = None;
        let alone = self.servers.clone().write_owned().await;
        tokio::task::block_in_place(|| {
            alone.redis.kill_all();
            alone.redis.restart_all();
            if alone.mode == Mode::Cluster {
                alone.redis.wait_cluster();
            }
        });
        self.using = Some(alone.downgrade());
    }
}
