//! One Redis server: its connections, who it is, and whether its replicas have followed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hydrant_runtime::Backoff;
use redis::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::address::Address;
use crate::config::Login;
use crate::dial::{Dialer, Line};
use crate::error::Failure;

/// The waits before a server is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Commands of the steps in which this engine writes, with arguments.
const REPLAYED: &[&[&str]] = &[
    &["SET", "key", "1"],
    &["HSET", "key", "field", "1"],
    &["ZADD", "key", "0", "1"],
    &["ZREM", "key", "1"],
    &["DEL", "key"],
    &["PEXPIREAT", "key", "1"],
];

/// A server that may be away.
pub(crate) struct Server {
    pub(crate) address: Address,
    dialer: Dialer,
    login: Login,
    /// How long it may take to tell of itself.
    patience: Duration,
    current: RwLock<Option<Arc<Connected>>>,
    attempts: Mutex<Attempts>,
}

struct Attempts {
    backoff: Backoff,
    last: Option<Outage>,
}

#[derive(Clone)]
struct Outage {
    failure: Failure,
    since: Instant,
    until: Instant,
}

/// A server that is away: why, and since when.
pub(crate) struct Away {
    pub(crate) failure: Failure,
    pub(crate) since: Instant,
}

/// Connections to a server that has told who it is.
pub(crate) struct Connected {
    /// For what does not wait for replicas.
    pub(crate) reads: Line,
    /// For writes: while they wait for replicas, what is behind them waits too.
    pub(crate) writes: Line,
    pub(crate) facts: Facts,
    /// How many replicas follow, as it said last.
    pub(crate) replicas: AtomicUsize,
    written: AtomicU64,
    confirmed: Mutex<Confirmed>,
}

/// Up to which write replicas have confirmed, and how many of them.
#[derive(Default)]
struct Confirmed {
    upto: u64,
    replicas: usize,
}

/// What a server tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) identity: Identity,
    pub(crate) is_master: bool,
    pub(crate) is_cluster: bool,
    pub(crate) is_sentinel: bool,
    pub(crate) is_durable: bool,
    pub(crate) eviction: String,
    pub(crate) replicas: usize,
    /// What its default user may not do of what its own file says, if that is known.
    pub(crate) forbidden: Option<String>,
}

/// Which history a server holds: another process, or another replication id, may have lost writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    process: String,
    history: String,
}

impl Server {
    pub(crate) fn new(address: Address, dialer: Dialer, login: Login, patience: Duration) -> Self {
        Self {
            address,
            dialer,
            login,
            patience,
            current: RwLock::default(),
            attempts: Mutex::new(Attempts {
                backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
                last: None,
            }),
        }
    }

    /// The connections, made anew if need be; not more often than the back-off allows.
    pub(crate) async fn connected(&self) -> Result<Arc<Connected>, Away> {
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        if let Some(outage) = attempts.last.clone()
            && Instant::now() < outage.until
        {
            return Err(outage.into());
        }
        let result = self.connect().await;
        result
            .map_err(|failure| attempts.fail(failure).into())
            .inspect(|connected| {
                attempts.succeed();
                *self.lock() = Some(connected.clone());
            })
    }

    fn current(&self) -> Option<Arc<Connected>> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> std::sync::RwLockWriteGuard<'_, Option<Arc<Connected>>> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// These connections are not used any more; requests that are under way on them go on.
    pub(crate) fn discard(&self, connected: &Arc<Connected>) {
        let mut current = self.lock();
        if current
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, connected))
        {
            *current = None;
        }
    }

    async fn connect(&self) -> Result<Arc<Connected>, Failure> {
        let (reads, writes) = tokio::try_join!(
            self.dialer.line(&self.address, &self.login),
            self.dialer.line(&self.address, &self.login),
        )?;
        let mut facts = self.facts(&reads, &[]).await?;
        if facts.is_durable {
            facts.forbidden = timeout(self.patience, forbidden(&reads))
                .await
                .unwrap_or(None);
        }
        Ok(Arc::new(Connected {
            reads,
            writes,
            replicas: AtomicUsize::new(facts.replicas),
            facts,
            written: AtomicU64::new(0),
            confirmed: Mutex::default(),
        }))
    }

    async fn facts(&self, line: &Line, sections: &[&str]) -> Result<Facts, Failure> {
        let address = &self.address;
        let mut info = redis::cmd("INFO");
        info.arg(sections);
        let patience = self.patience;
        let answer = timeout(patience, line.ask(&info)).await.map_err(|_| {
            Failure::passing(format!(
                "Redis at {address} did not answer within {patience:?}"
            ))
        })?;
        match answer.map_err(|error| Failure::of(address, &error))? {
            Value::BulkString(text) => Facts::parse(address, &String::from_utf8_lossy(&text)),
            _ => Err(Failure::passing(format!(
                "Redis at {address} does not tell of itself"
            ))),
        }
    }

    /// Asks whether it still is what it was, and how many replicas follow; discards the
    /// connections if it is not.
    pub(crate) async fn look(&self) {
        let Some(connected) = self.current() else {
            return;
        };
        match self
            .facts(&connected.reads, &["server", "replication"])
            .await
        {
            Ok(facts) if facts.is_as(&connected.facts) => {
                connected.replicas.store(facts.replicas, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => self.discard(&connected),
        }
    }
}

/// Redis replays the steps of its append-only file with the permissions of the default user, and
/// drops those that the user lacks a permission for (<https://github.com/redis/redis/issues/14541>).
async fn forbidden(line: &Line) -> Option<String> {
    for name in REPLAYED {
        let mut ask = redis::cmd("ACL");
        ask.arg("DRYRUN").arg("default").arg(*name);
        match line.ask(&ask).await {
            Ok(Value::BulkString(told)) => {
                return Some(String::from_utf8_lossy(&told).into_owned());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "can't ask what Redis's default user may do");
                return None;
            }
        }
    }
    None
}

impl Attempts {
    fn succeed(&mut self) {
        self.backoff.reset();
        self.last = None;
    }

    fn fail(&mut self, failure: Failure) -> Outage {
        let now = Instant::now();
        let outage = Outage {
            failure,
            since: self.last.as_ref().map_or(now, |outage| outage.since),
            until: now + self.backoff.next_wait(),
        };
        self.last.insert(outage).clone()
    }
}

impl From<Outage> for Away {
    fn from(outage: Outage) -> Self {
        Self {
            failure: outage.failure,
            since: outage.since,
        }
    }
}

impl Connected {
    /// Waits until `wanted` replicas, or as many as are connected, have what was written before,
    /// at most for `patience`. Tells how many are missing. One command confirms all writes that
    /// came before it.
    pub(crate) async fn missing_replicas(&self, wanted: usize, patience: Duration) -> usize {
        let wanted = wanted.min(self.replicas.load(Ordering::Relaxed));
        if wanted == 0 {
            return 0;
        }
        let own = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let wait = async {
            let mut confirmed = self.confirmed.lock().await;
            if confirmed.upto < own || confirmed.replicas < wanted {
                let upto = self.written.load(Ordering::SeqCst);
                let replicas = self.wait(wanted, patience).await;
                *confirmed = Confirmed { upto, replicas };
            }
            confirmed.replicas
        };
        // Another's wait may come first.
        let replicas = timeout(patience * 2, wait).await.unwrap_or(0);
        wanted.saturating_sub(replicas)
    }

    async fn wait(&self, wanted: usize, patience: Duration) -> usize {
        let ms = patience.as_millis().max(1).to_string();
        let mut command = redis::cmd("WAIT");
        command.arg(wanted).arg(ms);
        match self.writes.ask(&command).await {
            Ok(Value::Int(replicas)) => usize::try_from(replicas).unwrap_or(0),
            _ => 0,
        }
    }
}

impl Facts {
    fn parse(address: &Address, info: &str) -> Result<Self, Failure> {
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        if field("loading") == Some("1") {
            return Err(Failure::passing(format!(
                "Redis at {address} is still loading its data"
            )));
        }
        let role = field("role");
        let is_online = |line: &&str| line.starts_with("slave") && line.contains("state=online");
        Ok(Self {
            identity: Identity {
                process: field("run_id").unwrap_or_default().into(),
                history: field("master_replid").unwrap_or_default().into(),
            },
            is_master: role == Some("master"),
            is_cluster: field("redis_mode") == Some("cluster"),
            is_sentinel: field("redis_mode") == Some("sentinel"),
            is_durable: field("aof_enabled") == Some("1"),
            eviction: field("maxmemory_policy").unwrap_or_default().into(),
            replicas: info.lines().filter(is_online).count(),
            forbidden: None,
        })
    }

    fn is_as(&self, before: &Self) -> bool {
        self.identity == before.identity && self.is_master == before.is_master
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_of_itself() {
        let info = "# Server\r\nredis_mode:cluster\r\nrun_id:ab\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=::1,port=1,state=online,offset=1,lag=0\r\nslave1:ip=::1,port=2,state=wait_bgsave,offset=0,lag=0\r\n\
            master_replid:cd\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let address: Address = "a:1".parse().unwrap();
        let facts = Facts::parse(&address, info).unwrap();
        assert!(facts.is_master && facts.is_cluster && facts.is_durable && !facts.is_sentinel);
        assert_eq!((facts.replicas, facts.eviction.as_str()), (1, "noeviction"));
        assert_eq!(facts.identity.process, "ab");
        assert_eq!(facts.identity.history, "cd");
        assert!(Facts::parse(&address, "loading:1\r\n").is_err());
    }
}
