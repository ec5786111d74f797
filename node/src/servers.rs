//! The servers of the fleet in coordination, and how a node holds the name of its own among them.
//!
//! Each node puts `servers/{name}` under its session. The entry carries a random incarnation of
//! the process, so that a node tells its own from that of its predecessor and from that of a twin,
//! a second living node of the same name:
//!
//! - A predecessor on this machine whose process is gone is followed at once, and so is one that has given its
//!   server over to this process.
//! - Of any other entry it is not known whether somebody stands behind it. The newcomer puts a
//!   claim beside it; a living holder answers by writing its entry again, and the newcomer is
//!   refused. Without an answer the newcomer takes the name.
//! - A holder that finds another incarnation under its name has been taken for dead. It withdraws,
//!   and comes back only when the entry is gone, so two nodes never fight for a name.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use hydrant_contracts::{Server, ServerName};
use hydrant_ports::coordination::{Coordination, Session};
use hydrant_ports::{EngineError, Entry, ErrorKind, Expect, Key, Versioned};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::process::ProcessId;

/// Where servers stand in coordination: `servers/{name}`, with claims at `servers/{name}~`.
pub(crate) const SERVERS: &str = "servers/";

/// How long the holder of a name may take to answer a claim. One that lives answers within
/// milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often a newcomer looks for the answer.
const LOOK: Duration = Duration::from_millis(25);

/// How often a newcomer begins again when the entry changes under its hands.
const ATTEMPTS: u32 = 10;

/// What stands at `servers/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    server: Server,
    /// Random, of this run of the process.
    incarnation: String,
    /// When the process started, in a form that only compares, and says on which machine it runs.
    process: String,
    /// The name space of its process id.
    pid_space: String,
}

/// The name of this server, held or to be held.
pub(crate) struct Name {
    key: Key,
    claim: Key,
    own: Record,
    /// The incarnation that gave the name over to this process, and may live.
    before: Option<String>,
    value: Bytes,
    /// The revision of the entry as this process wrote it last; 0 when it never has.
    written: Mutex<u64>,
}

/// Why a name can't be held.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another living node has it.
    Taken(String),
    /// Coordination does not do its work.
    Engine(EngineError),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// Who stands behind an entry.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// This process.
    Ourselves,
    /// A process of this machine that has ended, or nobody who can be made out.
    Nobody,
    /// Perhaps a living node; surely, if its process is seen on this machine.
    Somebody { is_seen: bool },
}

/// What came of a claim.
enum Answer {
    Alive,
    Silent,
    /// The entry is gone, or somebody else's.
    Changed,
}

impl Name {
    /// The name of `server`, which the incarnation `before` gives over, if there is one.
    pub(crate) fn new(server: &Server, before: Option<String>) -> Result<Self, EngineError> {
        let own = Record {
            server: server.clone(),
            incarnation: uuid::Uuid::new_v4().simple().to_string(),
            process: ProcessId::of(server.pid).map_or_else(String::new, |process| process.start),
            pid_space: pid_space(),
        };
        let value = serde_json::to_vec(&own).map_err(|error| {
            EngineError::new(ErrorKind::Corrupt, "cannot write a server").caused_by(error)
        })?;
        Ok(Self {
            key: format!("{SERVERS}{}", server.name).parse()?,
            claim: format!("{SERVERS}{}~", server.name).parse()?,
            own,
            before,
            value: value.into(),
            written: Mutex::new(0),
        })
    }

    /// Which process of this server this is.
    pub(crate) fn incarnation(&self) -> &str {
        &self.own.incarnation
    }

    /// Puts the entry under `session`, unless another living node holds the name.
    pub(crate) async fn take(
        &self,
        coordination: &dyn Coordination,
        session: &dyn Session,
    ) -> Result<(), Refused> {
        for _ in 0..ATTEMPTS {
            let found = coordination.get(&self.key).await?;
            let expect = match &found {
                None => Expect::Absent,
                Some(found) => Expect::Revision(found.revision),
            };
            if let Some(found) = found
                && !self.may_follow(&found, coordination, session).await?
            {
                continue;
            }
            match session
                .put_ephemeral(&self.key, self.value.clone(), expect)
                .await
            {
                Ok(revision) => {
                    self.wrote(revision);
                    return Ok(());
                }
                Err(error) if error.kind == ErrorKind::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("the entry {} keeps changing", self.key);
        Err(EngineError::new(ErrorKind::Unavailable, message).into())
    }

    /// Whether nobody who may live stands behind what was found at the name.
    pub(crate) fn is_free(&self, found: Option<&Versioned>) -> bool {
        let record = found.map(|found| serde_json::from_slice(&found.value));
        match record {
            None => true,
            Some(Ok(record)) => !matches!(self.holder(&record), Holder::Somebody { .. }),
            Some(Err(_)) => false,
        }
    }

    /// Whether the entry that was found may be written over. `false` asks to look again.
    async fn may_follow(
        &self,
        found: &Versioned,
        coordination: &dyn Coordination,
        session: &dyn Session,
    ) -> Result<bool, Refused> {
        let Ok(record) = serde_json::from_slice::<Record>(&found.value) else {
            tracing::warn!(key = %self.key, "an entry that cannot be read is written over");
            return Ok(true);
        };
        let Holder::Somebody { is_seen } = self.holder(&record) else {
            return Ok(true);
        };
        tracing::info!(server = %record.server.name, pid = record.server.pid,
            "asking whether the node that has this server's name lives");
        let answer = self
            .ask(found.revision, &record, coordination, session)
            .await;
        // Gone with the session at the latest.
        let _ = coordination.delete(&self.claim, Expect::Any).await;
        match answer? {
            Answer::Silent if !is_seen => Ok(true),
            Answer::Alive | Answer::Silent => Err(Refused::Taken(described(&record))),
            Answer::Changed => Ok(false),
        }
    }

    fn holder(&self, record: &Record) -> Holder {
        let machine = |process: &str| process.rsplit_once('@').map(|(_, boot)| boot.to_owned());
        if record.incarnation == self.own.incarnation {
            return Holder::Ourselves;
        }
        if self.before.as_ref() == Some(&record.incarnation) {
            return Holder::Nobody;
        }
        let is_near = machine(&record.process).is_some_and(|boot| !boot.is_empty())
            && machine(&record.process) == machine(&self.own.process)
            && record.pid_space == self.own.pid_space;
        if !is_near {
            return Holder::Somebody { is_seen: false };
        }
        let process = ProcessId {
            pid: record.server.pid,
            start: record.process.clone(),
        };
        match process.is_alive() {
            true => Holder::Somebody { is_seen: true },
            false => Holder::Nobody,
        }
    }

    /// Claims the name, and waits for the holder to write its entry again.
    async fn ask(
        &self,
        revision: u64,
        record: &Record,
        coordination: &dyn Coordination,
        session: &dyn Session,
    ) -> Result<Answer, EngineError> {
        let claim = self.value.clone();
        session
            .put_ephemeral(&self.claim, claim, Expect::Any)
            .await?;
        let until = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            match coordination.get(&self.key).await? {
                Some(found) if found.revision == revision => {}
                Some(found) if is_of(&found.value, &record.incarnation) => {
                    return Ok(Answer::Alive);
                }
                _ => return Ok(Answer::Changed),
            }
        }
        Ok(Answer::Silent)
    }

    /// Everything that `servers/` tells of this name begins so.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Takes in what coordination shows at, or beside, the name: answers claims of others. Tells
    /// who holds the name now when it is another node.
    pub(crate) async fn sees(
        &self,
        entry: &Entry,
        coordination: &dyn Coordination,
        session: &dyn Session,
    ) -> Option<String> {
        if is_of(&entry.value, &self.own.incarnation) {
            return None;
        }
        if entry.key == self.claim {
            if let Err(error) = self.answer(coordination, session).await {
                tracing::warn!(key = %self.key, %error, "cannot answer a claim");
            }
            return None;
        }
        // What was there before this process wrote comes late sometimes.
        let is_newer = entry.key == self.key && entry.revision > self.written();
        is_newer.then(|| match serde_json::from_slice(&entry.value) {
            Ok(record) => described(&record),
            Err(_) => "a node of another version".into(),
        })
    }

    /// Writes the entry again, where it still is this process's own.
    async fn answer(
        &self,
        coordination: &dyn Coordination,
        session: &dyn Session,
    ) -> Result<(), EngineError> {
        let found = coordination.get(&self.key).await?;
        let Some(own) = found.filter(|found| is_of(&found.value, &self.own.incarnation)) else {
            return Ok(());
        };
        let expect = Expect::Revision(own.revision);
        let put = session.put_ephemeral(&self.key, self.value.clone(), expect);
        self.wrote(put.await?);
        tracing::warn!(key = %self.key, "another node wants the name of this server, and was told that this one lives");
        Ok(())
    }

    fn wrote(&self, revision: u64) {
        *self
            .written
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = revision;
    }

    fn written(&self) -> u64 {
        *self
            .written
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn is_of(value: &[u8], incarnation: &str) -> bool {
    let record = serde_json::from_slice::<Record>(value);
    record.is_ok_and(|record| record.incarnation == incarnation)
}

fn described(record: &Record) -> String {
    let Server {
        peer, pid, version, ..
    } = &record.server;
    let at = peer.map_or_else(String::new, |peer| format!(" at {peer}"));
    format!("process {pid}{at}, version {version}")
}

fn pid_space() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid");
    link.map_or_else(
        |_| String::new(),
        |link| link.to_string_lossy().into_owned(),
    )
}

/// The server that an entry is of; `None` for a claim, and for what cannot be read.
pub(crate) fn read(entry: &Entry) -> Option<Server> {
    let name = named(&entry.key)?;
    match serde_json::from_slice::<Server>(&entry.value) {
        Ok(server) if server.name == name => Some(server),
        Ok(server) => {
            tracing::warn!(key = %entry.key, "skipped an entry that is for the server {}", server.name);
            None
        }
        Err(error) => {
            tracing::warn!(key = %entry.key, %error, "skipped a server that cannot be read");
            None
        }
    }
}

/// The server that a key is of.
pub(crate) fn named(key: &Key) -> Option<ServerName> {
    key.as_str().strip_prefix(SERVERS)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn server(name: &str) -> Server {
        Server {
            name: name.parse().unwrap(),
            zone: "a".parse().unwrap(),
            peer: Some("10.0.0.1:9081".parse().unwrap()),
            version: "1.0.0".parse().unwrap(),
            since_unix_ms: 0,
            pid: std::process::id(),
        }
    }

    pub(crate) fn entry(name: &str, revision: u64) -> Entry {
        let name = Name::new(&server(name), None).unwrap();
        Entry {
            key: name.key.clone(),
            value: name.value.clone(),
            revision,
        }
    }

    fn record(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = Name::new(&server("one"), None).unwrap().own;
        change(&mut record);
        record
    }

    #[test]
    fn an_entry_says_whether_somebody_stands_behind_it() {
        let name = Name::new(&server("one"), None).unwrap();
        assert_eq!(name.holder(&name.own), Holder::Ourselves);
        // Another run in this very process, as seen on this machine.
        let living = record(|_| {});
        assert_eq!(name.holder(&living), Holder::Somebody { is_seen: true });
        let earlier = record(|record| record.process = format!("1{}", record.process));
        assert_eq!(name.holder(&earlier), Holder::Nobody);
        let elsewhere = record(|record| record.process = "1@other".into());
        assert_eq!(name.holder(&elsewhere), Holder::Somebody { is_seen: false });
        let before = Name::new(&server("one"), Some(living.incarnation.clone())).unwrap();
        assert_eq!(before.holder(&living), Holder::Nobody);
        let contained = record(|record| record.pid_space = "pid:[1]".into());
        assert_eq!(name.holder(&contained), Holder::Somebody { is_seen: false });
    }

    #[test]
    fn an_entry_is_read_as_the_server_that_its_key_names() {
        assert_eq!(read(&entry("one", 1)), Some(server("one")));
        let forged = Entry {
            key: "servers/two".parse().unwrap(),
            ..entry("one", 1)
        };
        assert_eq!(read(&forged), None);
        let claim = Entry {
            key: "servers/one~".parse().unwrap(),
            ..entry("one", 1)
        };
        assert_eq!(read(&claim), None);
    }
}
