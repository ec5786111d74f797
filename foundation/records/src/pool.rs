use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::config::{Address, Config};
use crate::connection::Connection;
use crate::error::RecordsError;
use crate::fence::Fence;
use crate::servers::Servers;
use crate::sql::Dialect;

/// How old a connection becomes: so that a server that has come back, or a password that was
/// changed, is noticed by all.
const LIFETIME: Duration = Duration::from_secs(600);

/// A database. Cheap to clone; all clones share its connections, which are made when they are
/// needed.
#[derive(Clone)]
pub struct Records(Arc<Shared>, Duration, Option<Arc<Fence>>);

struct Shared {
    config: Config,
    servers: Servers,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    /// Whose turn it is to write to SQLite: in one process a line is fairer, and quicker, than the
    /// file's lock, for which everybody has to ask again and again.
    writing: Arc<tokio::sync::Mutex<()>>,
}

struct Idle {
    connection: Connection,
    made: Instant,
}

/// A connection that goes back when it is [clean](Borrowed::give_back), and is closed otherwise.
pub(crate) struct Borrowed {
    connection: Connection,
    made: Instant,
    used: bool,
    _place: OwnedSemaphorePermit,
}

impl Records {
    /// The database that `config` names. Nothing is connected yet: a database that is away shows
    /// in the first question.
    pub fn open(config: Config) -> Self {
        let places = Arc::new(Semaphore::new(config.connections.max(1)));
        let deadline = config.deadline;
        let shared = Shared {
            servers: Servers::of(&config.address),
            config,
            places,
            idle: Mutex::default(),
            writing: Arc::default(),
        };
        Self(Arc::new(shared), deadline, None)
    }

    /// The same database, for who wants to hear sooner what is wrong with it than the configuration's
    /// [time](Config::deadline) allows.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self(Arc::clone(&self.0), deadline.min(self.1), self.2.clone())
    }

    pub(crate) fn with_fence(&self, fence: Fence) -> Self {
        Self(Arc::clone(&self.0), self.1, Some(Arc::new(fence)))
    }

    /// Under what this process writes, where not everybody may.
    pub(crate) fn own_fence(&self) -> Option<&Fence> {
        self.2.as_deref()
    }

    /// How long a transaction may take, with its repeats.
    pub(crate) fn deadline(&self) -> Duration {
        self.1
    }

    /// Where it is, for people.
    pub fn address(&self) -> &Address {
        &self.0.config.address
    }

    /// Which SQL it speaks.
    pub fn dialect(&self) -> Dialect {
        self.0.config.address.dialect()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// A connection by `deadline`: one that is idle, or a new one.
    pub(crate) async fn borrow(&self, deadline: Instant) -> Result<Borrowed, RecordsError> {
        let place = self.0.places.clone().acquire_owned();
        let place = timeout_at(deadline, place)
            .await
            .map_err(|_| RecordsError::unavailable("all connections to the database are in use"))?
            .map_err(|_| RecordsError::broken("the database is closed"))?;
        if let Some(idle) = self.take_idle() {
            return Ok(Borrowed {
                connection: idle.connection,
                made: idle.made,
                used: true,
                _place: place,
            });
        }
        let connection = self.connect(deadline).await?;
        Ok(Borrowed {
            connection,
            made: Instant::now(),
            used: false,
            _place: place,
        })
    }

    /// A new connection by `deadline`.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<Connection, RecordsError> {
        // On the heap: this future is large, is seldom needed, and would lie within that of every transaction.
        let connect = Box::pin(Connection::open(self.config(), &self.0.servers));
        let connection = timeout_at(deadline, connect).await;
        connection.map_err(|_| RecordsError::late())?
    }

    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle();
        idle.retain(|idle| idle.made.elapsed() < LIFETIME);
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to write, where only one can.
    pub(crate) async fn turn(
        &self,
        deadline: Instant,
    ) -> Result<Option<OwnedMutexGuard<()>>, RecordsError> {
        if self.dialect() != Dialect::Sqlite {
            return Ok(None);
        }
        let turn = timeout_at(deadline, self.0.writing.clone().lock_owned());
        turn.await.map(Some).map_err(|_| RecordsError::late())
    }

    /// Whether it answers.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn ping(&self) -> Result<(), RecordsError> {
        crate::read!(self, |tx| tx.query("SELECT 1", &[]).await.map(drop))
    }

    /// Closes the connections that are idle, in order. Those in use are closed when their work is
    /// done.
    pub async fn close(&self) {
        self.0.places.close();
        let idle = std::mem::take(&mut *self.idle());
        for idle in idle {
            let _ = timeout(Duration::from_secs(1), idle.connection.close()).await;
        }
    }

    /// Forgets connections that were idle, after one of them has turned out to be broken.
    pub(crate) fn forget_idle(&self) {
        self.idle().clear();
    }

    /// Whether another server may be well when one does not answer.
    pub(crate) fn is_cluster(&self) -> bool {
        self.0.servers.is_cluster()
    }
}

impl Borrowed {
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(crate) fn connection_ref(&self) -> &Connection {
        &self.connection
    }

    /// Whether it has served before: then that it is broken says nothing about the server now.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Keeps it for the next: only when nothing is begun and nothing is under way on it.
    pub(crate) fn give_back(self, to: &Records) {
        if !to.0.places.is_closed() {
            to.idle().push(Idle {
                connection: self.connection,
                made: self.made,
            });
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({})", self.address())
    }
}
