//! Servers that the tests share, each test below a chroot of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use hydrant_harness::zookeeper::Options;
use hydrant_harness::{Proxy, ZooKeeper, skipped};
use hydrant_ports::Coordination;
use hydrant_ports::contract::Subject;
use hydrant_runtime::Duration as Time;
use hydrant_zookeeper::{Config, Password, Tls, ZookeeperCoordination};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Servers that are shared: whoever kills them waits until nobody else is at work.
pub struct Shared {
    pub servers: ZooKeeper,
    lock: Arc<RwLock<()>>,
}

impl Shared {
    fn start(options: Options) -> Option<Self> {
        match ZooKeeper::start(options) {
            Ok(servers) => Some(Self {
                servers,
                lock: Arc::default(),
            }),
            Err(missing) => {
                skipped(missing);
                None
            }
        }
    }

    /// Holds off those who would kill the servers.
    pub async fn at_work(&self) -> OwnedRwLockReadGuard<()> {
        self.lock.clone().read_owned().await
    }
}

fn tls() -> Options {
    Options {
        tls: true,
        ..Options::default()
    }
}

fn three() -> Options {
    Options {
        servers: 3,
        ..Options::default()
    }
}

/// One server.
pub static SINGLE: LazyLock<Option<Shared>> = LazyLock::new(|| Shared::start(Options::default()));

/// An ensemble of three.
pub static ENSEMBLE: LazyLock<Option<Shared>> = LazyLock::new(|| Shared::start(three()));

/// One server that speaks TLS.
pub static SECURE: LazyLock<Option<Shared>> = LazyLock::new(|| Shared::start(tls()));

/// A chroot that no other test has.
pub fn chroot() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("/tests/t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An engine's configuration for tests: short sessions.
pub fn config(servers: impl IntoIterator<Item = String>, chroot: &str) -> Config {
    let mut config = Config::new(servers);
    config.chroot = chroot.to_owned();
    config.session.min = Time::new(Duration::from_secs(2));
    config.session.max = Time::new(Duration::from_secs(2));
    config.session.own = Time::new(Duration::from_secs(2));
    config
}

/// The same as a user, encrypted.
pub fn secure(mut config: Config, servers: &ZooKeeper) -> Config {
    let files = servers.certificates().expect("the servers speak TLS");
    config.tls = Some(Tls {
        ca: files.ca_pem(),
        cert: Some(files.client_pem()),
        key: Some(files.client_key()),
        verify_host: true,
    });
    config.user = Some("hydrant".into());
    config.password = Some(Password::new("secret"));
    config
}

/// Proxies before each of the servers.
pub fn proxies(servers: &ZooKeeper) -> Vec<Proxy> {
    let addresses = servers.addresses();
    let targets = addresses
        .iter()
        .map(|address| address.parse::<SocketAddr>());
    targets
        .map(|target| Proxy::start(target.unwrap()))
        .collect()
}

pub fn addresses(proxies: &[Proxy]) -> Vec<String> {
    proxies
        .iter()
        .map(|proxy| proxy.address().to_string())
        .collect()
}

/// An engine under the contract suites, which reaches the servers through proxies: a killed
/// engine is one that is never heard again.
pub struct Engine {
    shared: &'static Shared,
    config: Config,
    proxies: Vec<Proxy>,
    engine: Arc<ZookeeperCoordination>,
    at_work: Option<OwnedRwLockReadGuard<()>>,
}

impl Engine {
    pub async fn open(shared: Option<&'static Shared>) -> Option<Self> {
        let shared = shared?;
        let chroot = chroot();
        let at_work = Some(shared.at_work().await);
        let proxies = proxies(&shared.servers);
        let mut config = config(addresses(&proxies), &chroot);
        if shared.servers.certificates().is_some() {
            config = secure(config, &shared.servers);
        }
        let engine = ZookeeperCoordination::connect(config.clone())
            .await
            .unwrap();
        Some(Self {
            shared,
            config,
            proxies,
            engine,
            at_work,
        })
    }
}

#[async_trait]
impl Subject<dyn Coordination> for Engine {
    fn engine(&self) -> Arc<dyn Coordination> {
        self.engine.clone()
    }

    async fn kill_and_reopen(&mut self) {
        for proxy in &self.proxies {
            proxy.cut();
        }
        self.at_work = None;
        let alone = self.shared.lock.clone().write_owned().await;
        tokio::task::block_in_place(|| {
            self.shared.servers.kill_all();
            self.shared.servers.restart_all();
        });
        self.at_work = Some(alone.downgrade());
        self.proxies = proxies(&self.shared.servers);
        self.config.servers = addresses(&self.proxies);
        self.engine = ZookeeperCoordination::connect(self.config.clone())
            .await
            .unwrap();
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
