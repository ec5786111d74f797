use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::coordination::{Coordination, Holder, SeatName, Session};
use hydrant_ports::{
    EngineError, Entry, ErrorKind, Expect, Key, Prefix, Versioned, Watch, WatchSender,
    watch_channel,
};
use hydrant_runtime::{Backoff, Clock};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::config::{Config, Limits};
use crate::era::Eras;
use crate::error::{Result, unavailable};
use crate::holder::{Holders, too_many};
use crate::hub::{Hubs, Join};
use crate::leaf::MAX_OWNER;
use crate::link::{Dialer, Link};
use crate::path::Tree;
use crate::session::ZookeeperSession;
use crate::write::Writer;
use crate::{dial, read, write};

/// Coordination on a ZooKeeper ensemble.
pub struct ZookeeperCoordination {
    shared: Arc<Shared>,
}

/// What the parts of an engine share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) keys: Tree,
    pub(crate) seats: Tree,
    pub(crate) eras: Eras,
    pub(crate) hubs: Hubs,
    pub(crate) holders: Holders,
    dialer: Arc<Dialer>,
    /// The engine's own session, by which it reads, watches and writes kept keys.
    own: watch::Sender<Option<Arc<Link>>>,
    sessions: Mutex<Vec<Weak<Link>>>,
    watches: Mutex<Vec<WatchSender>>,
    closed: watch::Sender<bool>,
}

impl ZookeeperCoordination {
    /// Connects to an ensemble. Returns when there is a session and the root is there, or says
    /// what is wrong within the connect time-out.
    pub async fn connect(config: Config) -> Result<Arc<Self>, EngineError> {
        Self::connect_with(config, Clock::system()).await
    }

    /// The same by another clock, which tells when a root is made.
    pub async fn connect_with(config: Config, clock: Clock) -> Result<Arc<Self>, EngineError> {
        config.check()?;
        let reads = Arc::new(AtomicU64::new(0));
        let dialer = Arc::new(dial::dialer(&config, reads)?);
        let seats = Tree::new(format!("{}/seats", config.chroot));
        let eras = Eras::open(seats.root().to_owned(), config.era_file.clone(), clock)?;
        let shared = Arc::new(Shared {
            limits: config.limits,
            keys: Tree::new(format!("{}/keys", config.chroot)),
            seats,
            eras,
            hubs: Hubs::default(),
            holders: Holders::default(),
            dialer,
            own: watch::Sender::new(None),
            sessions: Mutex::default(),
            watches: Mutex::default(),
            closed: watch::Sender::new(false),
            config,
        });
        let link = shared.dial(shared.config.session.own.get()).await?;
        shared.make_roots(&link).await?;
        shared.own.send_replace(Some(link));
        tokio::spawn(keep(shared.clone()));
        Ok(Arc::new(Self { shared }))
    }

    /// Closes the engine: its watches end, its sessions give up what they hold.
    pub async fn close(&self) {
        self.shared.closed.send_replace(true);
        let sessions = std::mem::take(&mut *self.shared.sessions());
        let own = self.shared.own.send_replace(None);
        let links = sessions.iter().filter_map(Weak::upgrade).chain(own);
        futures::future::join_all(links.map(|link| async move { link.close().await })).await;
    }

    /// How many znodes were read so far: their data, their children or their state.
    pub fn reads(&self) -> u64 {
        self.shared.dialer.reads.load(Ordering::Relaxed)
    }
}

impl Drop for ZookeeperCoordination {
    fn drop(&mut self) {
        self.shared.closed.send_replace(true);
        if let Some(own) = self.shared.own.send_replace(None) {
            own.end();
        }
    }
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Resolves when the engine is closed.
    pub(crate) async fn closed(&self) {
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// The engine's own session, as soon as there is one.
    pub(crate) async fn link(&self) -> Arc<Link> {
        let mut own = self.own.subscribe();
        loop {
            let link = own.wait_for(Option::is_some).await;
            match link.ok().and_then(|link| link.clone()) {
                Some(link) if !link.is_lost() => return link,
                _ => {}
            }
            // The sender lives as long as this.
            let _ = own.changed().await;
        }
    }

    /// The engine's own session, if there is one within the time of a request.
    pub(crate) async fn link_in_time(&self) -> Result<Arc<Link>> {
        if self.is_closed() {
            return Err(engine_closed());
        }
        let wait = timeout(self.limits.request_timeout.get(), self.link());
        wait.await
            .map_err(|_| unavailable(format!("no session with ZooKeeper: {}", self.servers())))
    }

    pub(crate) fn check_size(&self, value: &[u8]) -> Result<()> {
        let most = self.config.max_value();
        if value.len() <= most {
            return Ok(());
        }
        Err(EngineError::new(
            ErrorKind::TooLarge,
            format!("a value of {} bytes; {most} are allowed", value.len()),
        ))
    }

    /// Counts one more who watches, if there may be one.
    fn admit(&self, sender: WatchSender) -> Result<()> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.len() >= self.limits.watches {
            watches.retain(|sender| !sender.is_closed());
        }
        if watches.len() >= self.limits.watches {
            return Err(too_many(self.limits.watches));
        }
        watches.push(sender);
        Ok(())
    }

    fn servers(&self) -> String {
        self.config.servers.join(", ")
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Link>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session, or says why there is none.
    async fn dial(&self, ttl: Duration) -> Result<Arc<Link>> {
        match self.dialer.dial(self.config.session_ttl(ttl)).await? {
            Some(link) => Ok(link),
            None => Err(dial::diagnose(&self.config).await),
        }
    }

    async fn make_roots(&self, link: &Link) -> Result<()> {
        link.make_directory(self.keys.root(), link.deadline())
            .await?;
        self.eras.current(link).await?;
        Ok(())
    }

    /// Runs a request on the engine's own session. If that is lost meanwhile there will be another,
    /// so the loss is no final answer.
    async fn on_own<T>(&self, request: impl AsyncFnOnce(&Link) -> Result<T>) -> Result<T> {
        let link = self.link_in_time().await?;
        match request(&link).await {
            Err(error) if error.kind == ErrorKind::Closed => {
                if self.is_closed() {
                    return Err(engine_closed());
                }
                Err(unavailable(
                    "the engine's session with ZooKeeper was lost; there will be another",
                )
                .caused_by(error))
            }
            answer => answer,
        }
    }
}

fn engine_closed() -> EngineError {
    EngineError::new(ErrorKind::Closed, "the engine is closed")
}

/// Keeps the engine's own session: opens another as often as it is lost.
async fn keep(shared: Arc<Shared>) {
    let work = async {
        loop {
            let link = shared.link().await;
            link.lost().await;
            shared.own.send_replace(None);
            tracing::warn!("the engine's session with ZooKeeper is lost");
            let link = dial_again(&shared).await;
            shared.own.send_replace(Some(link.clone()));
            tracing::info!("the engine has a session with ZooKeeper again");
            // If the ensemble was rebuilt, no other session outlived that either: every engine
            // comes here, and the one that knows the highest era raises it.
            if let Err(error) = shared.make_roots(&link).await {
                tracing::warn!(%error, "the root in ZooKeeper could not be looked at");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shared.closed() => {}
    }
}

async fn dial_again(shared: &Shared) -> Arc<Link> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        match shared.dial(shared.config.session.own.get()).await {
            Ok(link) => return link,
            Err(error) => tracing::warn!(%error, "cannot open the engine's session"),
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

#[async_trait]
impl Coordination for ZookeeperCoordination {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    async fn open_session(
        &self,
        owner: &str,
        ttl: Duration,
    ) -> Result<Box<dyn Session>, EngineError> {
        if owner.is_empty() || owner.len() > MAX_OWNER {
            return Err(EngineError::new(
                ErrorKind::TooLarge,
                format!("the name of an owner has 1 to {MAX_OWNER} bytes"),
            ));
        }
        if self.shared.is_closed() {
            return Err(engine_closed());
        }
        let link = self.shared.dial(ttl).await?;
        let session = ZookeeperSession::new(self.shared.clone(), owner, link.clone());
        let mut sessions = self.shared.sessions();
        if self.shared.is_closed() {
            return Err(engine_closed());
        }
        sessions.retain(|link| link.strong_count() > 0);
        sessions.push(Arc::downgrade(&link));
        Ok(Box::new(session))
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, EngineError> {
        let place = self.shared.keys.place(key);
        let read = self.shared.on_own(async |link| {
            let found = link.fresh(&place.leaf, link.deadline()).await?;
            found
                .map(|found| read::versioned(&place.leaf, found))
                .transpose()
        });
        read.await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Vec<Entry>, EngineError> {
        let keys = &self.shared.keys;
        let list = self
            .shared
            .on_own(async |link| read::all(link, keys, prefix).await);
        list.await
    }

    async fn watch(&self, prefix: &Prefix) -> Result<Watch, EngineError> {
        if self.shared.is_closed() {
            return Err(engine_closed());
        }
        let (sender, watch) = watch_channel();
        self.shared.admit(sender.clone())?;
        let (done, told) = oneshot::channel();
        let join = Join {
            prefix: prefix.clone(),
            sender,
            done,
        };
        let directory = self.shared.keys.directory_of(prefix);
        self.shared.hubs.join(&self.shared, directory, join)?;
        match timeout(self.shared.limits.request_timeout.get() * 2, told).await {
            Ok(Ok(())) => Ok(watch),
            Ok(Err(_)) => Err(engine_closed()),
            Err(_) => Err(unavailable(format!(
                "a watch cannot begin: ZooKeeper at {} does not answer",
                self.shared.servers()
            ))),
        }
    }

    async fn put(&self, key: &Key, value: Bytes, expect: Expect) -> Result<u64, EngineError> {
        self.shared.check_size(&value)?;
        let place = self.shared.keys.place(key);
        let put = self.shared.on_own(async |link| {
            write::put(link, (key, &place), Writer::Kept, &value, expect).await
        });
        put.await
    }

    async fn delete(&self, key: &Key, expect: Expect) -> Result<bool, EngineError> {
        let place = self.shared.keys.place(key);
        let delete = self
            .shared
            .on_own(async |link| write::delete(link, (key, &place), expect).await);
        delete.await
    }

    async fn holder(
        &self,
        seat: &SeatName,
    ) -> Result<watch::Receiver<Option<Holder>>, EngineError> {
        let seat = self.shared.seats.place(&seat.0).leaf;
        self.shared.holders.follow(&self.shared, seat).await
    }

    async fn check(&self) -> Result<(), EngineError> {
        let root = self.shared.keys.root();
        let check = self.shared.on_own(async |link| {
            link.sync(link.deadline()).await?;
            link.stat(root, link.deadline()).await
        });
        match check.await? {
            Some(_) => Ok(()),
            None => Err(unavailable(format!(
                "the znode {root} is not there: the ensemble was rebuilt"
            ))),
        }
    }
}
