//! Which server is the master of which partition.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::Value;
use tokio::time::{Instant, timeout};

use crate::address::Address;
use crate::config::{Config, Login, Mode};
use crate::dial::{Dialer, Line};
use crate::error::Failure;
use crate::names::Names;
use crate::server::Server;

/// At most so often is the topology asked for.
const LEAST_BETWEEN: Duration = Duration::from_millis(50);
/// The most servers that are remembered at a time.
const MAX_SERVERS: usize = 1024;

pub(crate) struct Topology {
    mode: Mode,
    seeds: Vec<Address>,
    /// The name of the master at the Sentinels.
    name: String,
    dialer: Dialer,
    login: Login,
    sentinel_login: Login,
    patience: Duration,
    slots: Vec<u16>,
    known: Mutex<Known>,
    sentinels: Mutex<HashMap<Address, Line>>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    /// For each partition, once it is known.
    masters: Vec<Option<Address>>,
    servers: HashMap<Address, Arc<Server>>,
}

impl Topology {
    pub(crate) fn new(config: &Config, names: &[&Names]) -> Result<Self, Failure> {
        let seeds = config.validate()?;
        // An attempt ends before the requests that wait for it.
        let patience = config.request_timeout.get() / 2;
        let first = match config.mode {
            Mode::Single => seeds.first().cloned(),
            Mode::Sentinel | Mode::Cluster => None,
        };
        Ok(Self {
            mode: config.mode,
            seeds,
            name: config.master.clone().unwrap_or_default(),
            dialer: Dialer::new(config.tls.as_ref(), patience)?,
            login: config.login()?,
            sentinel_login: config.sentinel_login()?,
            patience,
            slots: names.iter().map(|names| names.slot).collect(),
            known: Mutex::new(Known {
                masters: vec![first; names.len()],
                servers: HashMap::new(),
            }),
            sentinels: Mutex::default(),
            refreshed: tokio::sync::Mutex::default(),
        })
    }

    /// The master of a partition, as far as is known.
    pub(crate) fn master(&self, partition: usize) -> Option<Arc<Server>> {
        let address = self.known().masters[partition].clone()?;
        Some(self.server(&address))
    }

    /// All masters, each once.
    pub(crate) fn masters(&self) -> Vec<Arc<Server>> {
        let mut addresses: Vec<_> = self.known().masters.iter().flatten().cloned().collect();
        addresses.sort();
        addresses.dedup();
        addresses
            .iter()
            .map(|address| self.server(address))
            .collect()
    }

    /// A server has said that a partition is at `to`.
    pub(crate) fn moved(&self, partition: usize, to: Address) {
        self.known().masters[partition] = Some(to);
    }

    pub(crate) async fn subscription(
        &self,
        server: &Server,
        channels: &[String],
    ) -> Result<redis::aio::PubSub, Failure> {
        let dialer = &self.dialer;
        dialer
            .subscription(&server.address, &self.login, channels)
            .await
    }

    /// Asks anew who is master, if nobody has asked just before.
    pub(crate) async fn refresh(&self) -> Result<(), Failure> {
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < LEAST_BETWEEN) {
            return Ok(());
        }
        let result = match self.mode {
            Mode::Single => Ok(()),
            Mode::Sentinel => self.ask_sentinels().await,
            Mode::Cluster => self.ask_cluster().await,
        };
        *refreshed = Some(Instant::now());
        result
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self, address: &Address) -> Arc<Server> {
        let mut known = self.known();
        if known.servers.len() >= MAX_SERVERS && !known.servers.contains_key(address) {
            known.servers.clear();
        }
        let server = known.servers.entry(address.clone()).or_insert_with(|| {
            Arc::new(Server::new(
                address.clone(),
                self.dialer.clone(),
                self.login.clone(),
                self.patience,
            ))
        });
        server.clone()
    }

    /// Of what a majority of the Sentinels say, or of all that say anything, the newest.
    async fn ask_sentinels(&self) -> Result<(), Failure> {
        let mut asked: FuturesUnordered<_> = self
            .seeds
            .iter()
            .map(|seed| self.ask_sentinel(seed))
            .collect();
        let (mut told, mut failure) = (Vec::new(), None);
        while told.len() <= self.seeds.len() / 2
            && let Some(answer) = asked.next().await
        {
            match answer {
                Ok(answer) => told.push(answer),
                Err(error) => failure = Some(error),
            }
        }
        match told.into_iter().max_by_key(|(epoch, _)| *epoch) {
            Some((_, master)) => {
                self.known().masters.fill(Some(master));
                Ok(())
            }
            None => Err(failure.unwrap_or_else(|| Failure::passing("no Sentinel answers"))),
        }
    }

    async fn ask_sentinel(&self, seed: &Address) -> Result<(u64, Address), Failure> {
        let line = self.sentinel(seed).await?;
        let ask = async {
            let mut master = redis::cmd("SENTINEL");
            master.arg("MASTER").arg(&self.name);
            let mut address = redis::cmd("SENTINEL");
            address.arg("get-master-addr-by-name").arg(&self.name);
            // The address of a master that was just promoted is told by the second command only.
            tokio::try_join!(line.ask(&master), line.ask(&address))
        };
        let answer = timeout(self.patience, ask).await;
        let answer = answer.map_err(|_| {
            Failure::passing(format!("the Sentinel at {seed} does not answer in time"))
        });
        let (about, address) = answer
            .and_then(|answer| answer.map_err(|error| self.sentinel_failure(seed, &error)))
            .inspect_err(|_| {
                self.sentinel_lines().remove(seed);
            })?;
        let epoch = field(&about, "config-epoch").and_then(|epoch| epoch.parse().ok());
        let master = match words(address).as_slice() {
            [host, port] => format!("{host}:{port}").parse().ok(),
            _ => None,
        };
        let master = master.map(|master: Address| (epoch.unwrap_or(0), master));
        master.ok_or_else(|| self.unknown_name(seed))
    }

    fn sentinel_failure(&self, seed: &Address, error: &redis::RedisError) -> Failure {
        let told = error.to_string();
        match () {
            () if told.contains("No such master") => self.unknown_name(seed),
            () if told.contains("unknown command") => Failure::lasting(format!(
                "Redis at {seed} is not a Sentinel: name the Sentinels in `servers`, or choose another `mode`"
            )),
            () => Failure::of(seed, error),
        }
    }

    fn unknown_name(&self, seed: &Address) -> Failure {
        Failure::lasting(format!(
            "the Sentinel at {seed} knows no master `{}`: check `master`",
            self.name
        ))
    }

    fn sentinel_lines(&self) -> MutexGuard<'_, HashMap<Address, Line>> {
        self.sentinels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn sentinel(&self, seed: &Address) -> Result<Line, Failure> {
        let line = self.sentinel_lines().get(seed).cloned();
        if let Some(line) = line {
            return Ok(line);
        }
        let line = self.dialer.line(seed, &self.sentinel_login).await?;
        self.sentinel_lines().insert(seed.clone(), line.clone());
        Ok(line)
    }

    /// What the first server says that answers: those that are in use first.
    async fn ask_cluster(&self) -> Result<(), Failure> {
        let mut servers = self.masters();
        fastrand::shuffle(&mut servers);
        servers.extend(self.seeds.iter().map(|seed| self.server(seed)));
        let mut failure = Failure::passing("no server of the Redis cluster answers");
        for server in servers {
            match self.ask_member(&server).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask_member(&self, server: &Server) -> Result<(), Failure> {
        let address = &server.address;
        let connected = server.connected().await.map_err(|away| away.failure)?;
        if !connected.facts.is_cluster {
            return Err(Failure::lasting(format!(
                "Redis at {address} is not part of a cluster: choose another `mode`"
            )));
        }
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("SLOTS");
        let answer = timeout(self.patience, connected.reads.ask(&ask)).await;
        let answer = answer.map_err(|_| {
            server.discard(&connected);
            Failure::passing(format!("Redis at {address} does not answer in time"))
        })?;
        let answer = answer.map_err(|error| {
            server.discard(&connected);
            Failure::of(address, &error)
        })?;
        let ranges = ranges(address, answer);
        let mut known = self.known();
        for (slot, master) in self.slots.iter().zip(&mut known.masters) {
            let range = ranges.iter().find(|range| range.contains(*slot));
            if let Some(range) = range {
                *master = Some(range.master.clone());
            }
        }
        match known.masters.iter().all(Option::is_some) {
            true => Ok(()),
            false => Err(Failure::passing(format!(
                "the Redis cluster at {address} does not serve all slots yet"
            ))),
        }
    }
}

struct Range {
    first: i64,
    last: i64,
    master: Address,
}

impl Range {
    fn contains(&self, slot: u16) -> bool {
        (self.first..=self.last).contains(&i64::from(slot))
    }
}

/// The answer of `CLUSTER SLOTS`: arrays of first slot, last slot, master, replicas. A server that
/// does not know its own name leaves it empty: it is where it was asked.
fn ranges(asked: &Address, answer: Value) -> Vec<Range> {
    let range = |value: Value| {
        let Value::Array(parts) = value else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = parts.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                String::from_utf8_lossy(host).into_owned()
            }
            _ => asked.host.clone(),
        };
        let port = u16::try_from(*port).ok()?;
        Some(Range {
            first: *first,
            last: *last,
            master: Address { host, port },
        })
    };
    match answer {
        Value::Array(values) => values.into_iter().filter_map(range).collect(),
        _ => Vec::new(),
    }
}

/// A field of an answer that is names and values in turn.
fn field(answer: &Value, name: &str) -> Option<String> {
    let words = words(answer.clone());
    let mut pairs = words.chunks_exact(2);
    pairs.find_map(|pair| (pair[0] == name).then(|| pair[1].clone()))
}

fn words(answer: Value) -> Vec<String> {
    let word = |value| match value {
        Value::BulkString(text) => Some(String::from_utf8_lossy(&text).into_owned()),
        Value::SimpleString(text) => Some(text),
        _ => None,
    };
    match answer {
        Value::Array(values) => values.into_iter().filter_map(word).collect(),
        _ => Vec::new(),
    }
}
