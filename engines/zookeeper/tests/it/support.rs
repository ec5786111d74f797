//! Servers that the tests share, each test below a chroot of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_harness::zookeeper::Options;
use hydrant_harness::{Proxy, ZooKeeper, skipped};
use hydrant_ports::contract::Subject;
use hydrant_ports::coordination::{SeatName, Session, SessionState};
use hydrant_ports::{Change, Coordination, Expect, Key, Prefix, Watch};
use hydrant_runtime::Duration as Time;
use hydrant_zookeeper::{Config, Password, Tls, ZookeeperCoordination};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Servers that are shared: whoever kills them waits until nobody else is at work.
pub struct Shared {
    pub servers: ZooKeeper,
    lock: Arc<RwLock<()>>,
    /// How often they were killed for the contract.
    kills: AtomicUsize,
}

impl Shared {
    fn start(options: Options) -> Option<Self> {
        match ZooKeeper::start(options) {
            Ok(servers) => Some(Self {
                servers,
                lock: Arc::default(),
                kills: AtomicUsize::new(0),
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
        certificate: Some(files.client_pem()),
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
        // Room for a busy machine: nothing here is about a silent server.
        config.session.max = Time::new(Duration::from_secs(3));
        config.session.own = config.session.max;
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
        let kills = self.shared.kills.load(Ordering::SeqCst);
        self.at_work = None;
        let alone = self.shared.alone().await;
        // Another test may have killed them for both.
        if self.shared.kills.load(Ordering::SeqCst) == kills {
            tokio::task::block_in_place(|| {
                self.shared.servers.kill_all();
                self.shared.servers.restart_all();
            });
            self.shared.kills.fetch_add(1, Ordering::SeqCst);
        }
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

impl Shared {
    /// Waits until nobody else is at work: the servers may be killed.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.lock.clone().write_owned().await
    }

    /// An engine that reaches the servers directly.
    pub async fn engine(&self, chroot: &str) -> Arc<ZookeeperCoordination> {
        let config = config(self.servers.addresses(), chroot);
        ZookeeperCoordination::connect(config).await.unwrap()
    }

    /// An engine behind proxies.
    pub async fn behind_proxies(&self, chroot: &str) -> (Arc<ZookeeperCoordination>, Vec<Proxy>) {
        let proxies = proxies(&self.servers);
        let config = config(addresses(&proxies), chroot);
        let engine = ZookeeperCoordination::connect(config).await.unwrap();
        (engine, proxies)
    }
}

/// A time within which everything that is waited for must come, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must come.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

pub fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub fn seat(text: &str) -> SeatName {
    SeatName(key(text))
}

pub fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub async fn put(engine: &ZookeeperCoordination, name: &str, text: &str) -> u64 {
    engine
        .put(&key(name), value(text), Expect::Any)
        .await
        .unwrap()
}

pub async fn open(engine: &ZookeeperCoordination, owner: &str) -> Box<dyn Session> {
    let ttl = Duration::from_secs(2);
    within("a session opens", engine.open_session(owner, ttl))
        .await
        .unwrap()
}

pub async fn put_in(session: &dyn Session, name: &str, text: &str) -> u64 {
    let key = key(name);
    let put = session.put_ephemeral(&key, value(text), Expect::Any);
    put.await.unwrap()
}

/// Waits until a session is so.
pub async fn until(session: &dyn Session, wanted: SessionState) {
    let mut state = session.state();
    within(
        "the session's state",
        state.wait_for(|state| *state == wanted),
    )
    .await
    .unwrap();
}

/// The next word of a watch, in short: `key=value`, `-key` or `all N`.
pub async fn next(watch: &mut Watch) -> String {
    match within("a change is told", watch.next()).await.unwrap() {
        Change::All(entries) => format!("all {}", entries.len()),
        Change::Put(entry) => {
            format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value))
        }
        Change::Removed(key) => format!("-{key}"),
    }
}

/// Everything that a watch tells within `time`.
pub async fn told(watch: &mut Watch, time: Duration) -> Vec<String> {
    let mut told = Vec::new();
    let _ = tokio::time::timeout(time, async {
        loop {
            told.push(next(watch).await);
        }
    })
    .await;
    told
}
