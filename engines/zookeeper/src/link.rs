//! A session with the ensemble, with the client's traps closed:
//!
//! - The client queues without bound what is asked while it is disconnected, and sends it later.
//!   Here, requests wait for the connection within their time-out, and a bounded number is on its
//!   way.
//! - The client closes a session when its last clone is dropped. Here, nobody keeps a clone longer
//!   than a request takes, so that [`Link::close`] works at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_ports::EngineError;
use hydrant_ports::coordination::SessionState;
use hydrant_runtime::Backoff;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};
use zookeeper_client::{
    Acls, Client, Connector, CreateMode, Error as ZkError, MultiReadResult, MultiWriteError,
    MultiWriteResult, Stat, StateWatcher,
};

use crate::config::Access;
use crate::error::{Result, closed, of_request, unavailable};

pub(crate) type ZkResult<T> = std::result::Result<T, ZkError>;

/// How sessions are opened.
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    /// The servers as the client wants them.
    pub(crate) servers: String,
    pub(crate) encrypted: bool,
    pub(crate) access: Access,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) in_flight: usize,
    /// How many znodes were read: data, children or state.
    pub(crate) reads: Arc<AtomicU64>,
}

impl Dialer {
    /// Opens a session; `None` when no server answers in time.
    pub(crate) async fn dial(self: &Arc<Self>, ttl: Duration) -> Result<Option<Arc<Link>>> {
        // Silence is noticed early enough that seats can be given up before the ensemble gives
        // them away.
        let connector = self
            .connector
            .clone()
            .with_session_timeout(ttl)
            .with_connection_timeout(ttl / 3)
            .with_fail_eagerly();
        // The client's own waits between tries would grow to many seconds, while the ensemble may
        // be back at any moment.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let trying = async {
            loop {
                match self.try_once(connector.clone()).await {
                    Err(ZkError::Timeout | ZkError::NoHosts | ZkError::ConnectionLoss) => {
                        tokio::time::sleep(backoff.next_wait()).await;
                    }
                    tried => return tried,
                }
            }
        };
        match timeout(self.connect_timeout, trying).await {
            Ok(Ok(client)) => Ok(Some(Link::new(client, self.clone()))),
            Ok(Err(error)) => Err(of_request("open a session", error)),
            Err(_) => Ok(None),
        }
    }

    async fn try_once(&self, connector: Connector) -> ZkResult<Client> {
        if self.encrypted {
            connector.secure_connect(&self.servers).await
        } else {
            connector.connect(&self.servers).await
        }
    }
}

/// A session.
pub(crate) struct Link {
    client: Mutex<Option<Client>>,
    state: watch::Sender<SessionState>,
    /// As the ensemble granted it.
    ttl: Duration,
    id: i64,
    slots: Semaphore,
    /// Held by who looks at a key and then writes it.
    turn: Semaphore,
    dialer: Arc<Dialer>,
}

impl Link {
    fn new(client: Client, dialer: Arc<Dialer>) -> Arc<Self> {
        let watcher = client.state_watcher();
        let link = Arc::new(Self {
            state: watch::Sender::new(port_state(client.state())),
            ttl: client.session_timeout(),
            id: client.session_id().0,
            slots: Semaphore::new(dialer.in_flight),
            turn: Semaphore::new(1),
            client: Mutex::new(Some(client)),
            dialer,
        });
        tokio::spawn(follow(watcher, link.state.clone()));
        link
    }

    /// The ensemble's name of the session.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    pub(crate) fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.state.borrow() == SessionState::Lost
    }

    /// Resolves when the session is lost.
    pub(crate) async fn lost(&self) {
        let _ = self
            .state()
            .wait_for(|state| *state == SessionState::Lost)
            .await;
    }

    /// Resolves when the session is lost, or may be: the ensemble may have given away what it
    /// holds after `ttl` of silence. A third of that has passed when the client calls a connection
    /// dead.
    pub(crate) async fn doubtful(&self) {
        let mut state = self.state();
        loop {
            let now = state.wait_for(|state| *state != SessionState::Connected);
            if now.await.map_or(true, |state| *state == SessionState::Lost) {
                return;
            }
            let back = state.wait_for(|state| *state != SessionState::Suspended);
            if timeout(self.ttl.mul_f64(0.55), back).await.is_err() {
                return;
            }
        }
    }

    /// Ends the session; the ensemble is told in the background.
    pub(crate) fn end(&self) {
        let client = self.client().take();
        drop(client);
        self.state.send_replace(SessionState::Lost);
    }

    /// Ends the session and returns when the ensemble knows, or does not answer in time.
    pub(crate) async fn close(&self) {
        let client = self.client().take();
        self.state.send_replace(SessionState::Lost);
        let Some(client) = client else { return };
        let mut watcher = client.state_watcher();
        drop(client);
        let ended = async {
            while !watcher.peek_state().is_terminated() {
                watcher.changed().await;
            }
        };
        let _ = timeout(self.dialer.request_timeout, ended).await;
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a request that begins now must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.dialer.request_timeout
    }

    /// The client, as soon as it is connected.
    async fn connected(&self) -> Result<Client> {
        let mut state = self.state.subscribe();
        let ready = state.wait_for(|state| *state != SessionState::Suspended);
        match ready.await {
            Ok(now) if *now == SessionState::Connected => {}
            _ => return Err(closed()),
        }
        self.client().clone().ok_or_else(closed)
    }

    /// Asks once. The answer is one of the ensemble's own, or an error that says that there was
    /// none: then nobody knows whether a write has happened.
    pub(crate) async fn ask<T, F, A>(
        &self,
        what: &str,
        deadline: Instant,
        ask: F,
    ) -> Result<ZkResult<T>>
    where
        F: FnOnce(Client) -> A,
        A: Future<Output = ZkResult<T>>,
    {
        let request = async {
            let _slot = self.slots.acquire().await.map_err(|_| closed())?;
            let client = self.connected().await?;
            tokio::select! {
                answer = ask(client) => Ok(answer),
                // The client's own word of it comes later.
                () = self.lost() => Err(closed()),
            }
        };
        match timeout_at(deadline, request).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable(format!(
                "ZooKeeper did not answer within {} ms when it should {what}",
                self.dialer.request_timeout.as_millis()
            ))),
        }
    }

    /// Asks for what has no effect, again when the connection is lost, until the deadline.
    async fn read<T, F, A>(&self, what: &str, deadline: Instant, ask: F) -> Result<ZkResult<T>>
    where
        F: Fn(Client) -> A,
        A: Future<Output = ZkResult<T>>,
    {
        loop {
            match self.ask(what, deadline, &ask).await? {
                Err(error) if crate::error::is_unknown(&error) => {
                    if Instant::now() >= deadline {
                        return Err(of_request(what, error));
                    }
                    // The client's word of the lost connection may come after the error.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Waits until no other task of this session looks at a key to write it.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        let turn = timeout_at(deadline, self.turn.acquire()).await;
        let turn = turn.map_err(|_| {
            unavailable("a write did not come to its turn: ZooKeeper is slow, or much is written")
        })?;
        turn.map_err(|_| closed())
    }

    fn count(&self, reads: usize) {
        self.dialer.reads.fetch_add(reads as u64, Ordering::Relaxed);
    }

    /// What a znode holds; `None` when it is not there. Whatever was written before the call is
    /// seen, wherever it was written.
    pub(crate) async fn fresh(&self, path: &str, deadline: Instant) -> Result<Option<Data>> {
        let read = self.read("read a znode", deadline, |client| async move {
            // Both are on their way at once, and answered in order.
            let (sync, data) = (client.sync("/"), client.get_data(path));
            sync.await?;
            data.await
        });
        self.count(1);
        found("read a znode", read.await?)
    }

    /// The state of a directory, and then what a leaf in it holds.
    pub(crate) async fn place(
        &self,
        place: &crate::path::Place,
        deadline: Instant,
    ) -> Result<(Option<Stat>, Option<Data>)> {
        let read = self.read("read a znode", deadline, |client| async move {
            let sync = client.sync("/");
            let directory = client.check_stat(&place.directory);
            let leaf = client.get_data(&place.leaf);
            sync.await?;
            let directory = directory.await?;
            let leaf = match leaf.await {
                Err(ZkError::NoNode) => None,
                leaf => Some(leaf?),
            };
            Ok((directory, leaf))
        });
        self.count(2);
        read.await?
            .map_err(|error| of_request("read a znode", error))
    }

    /// The state of a znode.
    pub(crate) async fn stat(&self, path: &str, deadline: Instant) -> Result<Option<Stat>> {
        let read = self.read("look at a znode", deadline, |client| async move {
            client.check_stat(path).await
        });
        self.count(1);
        read.await?
            .map_err(|error| of_request("look at a znode", error))
    }

    /// The names of a znode's children, and its state.
    pub(crate) async fn children(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<Option<(Vec<String>, Stat)>> {
        let read = self.read("list a znode", deadline, |client| async move {
            client.get_children(path).await
        });
        self.count(1);
        found("list a znode", read.await?)
    }

    /// What many znodes hold, with one request.
    pub(crate) async fn many(
        &self,
        paths: &[String],
        deadline: Instant,
    ) -> Result<Vec<Option<Data>>> {
        let read = self.read("read znodes", deadline, |client| async move {
            let mut reader = client.new_multi_reader();
            for path in paths {
                reader.add_get_data(path)?;
            }
            reader.commit().await
        });
        self.count(paths.len());
        let answers = read
            .await?
            .map_err(|error| of_request("read znodes", error))?;
        let answers = answers.into_iter().map(|answer| match answer {
            MultiReadResult::Data { data, stat } => Ok(Some((data, stat))),
            MultiReadResult::Error {
                err: ZkError::NoNode,
            } => Ok(None),
            MultiReadResult::Error { err } => Err(of_request("read a znode", err)),
            _ => Err(unavailable("ZooKeeper answers what was not asked")),
        });
        answers.collect()
    }

    /// Waits until this session sees all that was written anywhere before.
    pub(crate) async fn sync(&self, deadline: Instant) -> Result<()> {
        let sync = self.read("catch up", deadline, |client| async move {
            client.sync("/").await
        });
        sync.await?.map_err(|error| of_request("catch up", error))
    }

    /// Does all of a transaction, or nothing.
    pub(crate) async fn commit(
        &self,
        what: &str,
        operations: &[Operation<'_>],
        deadline: Instant,
    ) -> Result<Committed> {
        let acls = self.acls();
        let commit = self.ask(what, deadline, |client| async move {
            let mut writer = client.new_multi_writer();
            for operation in operations {
                operation.add_to(&mut writer, acls)?;
            }
            Ok(writer.commit().await)
        });
        match commit.await? {
            Ok(Ok(results)) => Ok(Committed::Yes(revision_of(&results))),
            Ok(Err(MultiWriteError::OperationFailed { index, source }))
                if !crate::error::is_unknown(&source) =>
            {
                Ok(Committed::No(index, source))
            }
            Ok(Err(error)) => Ok(Committed::Unknown(of_request(what, error.into()))),
            Err(error) => Err(of_request(what, error)),
        }
    }

    /// Makes a directory and those above it.
    pub(crate) async fn make_directory(&self, path: &str, deadline: Instant) -> Result<()> {
        let options = CreateMode::Persistent.with_acls(self.acls());
        let made = self.read("make a znode", deadline, |client| {
            let options = options.clone();
            async move { client.mkdir(path, &options).await }
        });
        made.await?
            .map_err(|error| of_request(&format!("make the znode {path}"), error))
    }

    pub(crate) fn acls(&self) -> Acls<'static> {
        match self.dialer.access {
            Access::Open => Acls::anyone_all(),
            Access::Creator => Acls::creator_all(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.send_replace(SessionState::Lost);
    }
}

/// What a znode holds, and its state.
pub(crate) type Data = (Vec<u8>, Stat);

fn found<T>(what: &str, answer: ZkResult<T>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(ZkError::NoNode) => Ok(None),
        Err(error) => Err(of_request(what, error)),
    }
}

/// A part of a transaction.
#[derive(Debug)]
pub(crate) enum Operation<'a> {
    Create(&'a str, &'a [u8], CreateMode),
    /// With the version that the znode must have.
    Set(&'a str, &'a [u8], Option<i32>),
    Delete(&'a str, Option<i32>),
    Check(&'a str, i32),
}

impl Operation<'_> {
    fn add_to(
        &self,
        writer: &mut zookeeper_client::MultiWriter<'_>,
        acls: Acls<'static>,
    ) -> ZkResult<()> {
        match *self {
            Self::Create(path, data, mode) => writer.add_create(path, data, &mode.with_acls(acls)),
            Self::Set(path, data, version) => writer.add_set_data(path, data, version),
            Self::Delete(path, version) => writer.add_delete(path, version),
            Self::Check(path, version) => writer.add_check_version(path, version),
        }
    }
}

/// How a transaction ended.
#[derive(Debug)]
pub(crate) enum Committed {
    /// With its number in the ensemble's order. Every transaction here sets some znode.
    Yes(u64),
    /// The operation with this index failed, and nothing was done.
    No(usize, ZkError),
    /// The answer was lost: all of it was done, or nothing.
    Unknown(EngineError),
}

/// The ensemble's number of a transaction. A created znode's state can't be used: servers before
/// 3.8.2 do not tell it within a transaction.
fn revision_of(results: &[MultiWriteResult]) -> u64 {
    let set = results.iter().find_map(|result| match result {
        MultiWriteResult::SetData { stat } => Some(stat.mzxid),
        _ => None,
    });
    set.unwrap_or_default().cast_unsigned()
}

fn port_state(state: zookeeper_client::SessionState) -> SessionState {
    use zookeeper_client::SessionState as Zk;
    match state {
        Zk::SyncConnected => SessionState::Connected,
        Zk::Disconnected | Zk::ConnectedReadOnly => SessionState::Suspended,
        Zk::AuthFailed | Zk::Expired | Zk::Closed => SessionState::Lost,
    }
}

/// Carries the client's word of the session to who asks.
async fn follow(mut watcher: StateWatcher, state: watch::Sender<SessionState>) {
    let mut now = watcher.peek_state();
    loop {
        state.send_if_modified(|state| {
            // Lost is final.
            let changes = *state != SessionState::Lost && *state != port_state(now);
            if changes {
                *state = port_state(now);
            }
            changes
        });
        if now.is_terminated() || *state.borrow() == SessionState::Lost {
            return;
        }
        tokio::select! {
            changed = watcher.changed() => now = changed,
            () = ended(&state) => return,
        }
    }
}

async fn ended(state: &watch::Sender<SessionState>) {
    let mut state = state.subscribe();
    let _ = state.wait_for(|state| *state == SessionState::Lost).await;
}
