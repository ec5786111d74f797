//! Where pieces of attachments are: in the store of this data centre, or in the other's while that is away.
//!
//! What is written is read back before it counts. A checksum that the store itself checks would prove nothing
//! about a store that lies, or that says 200 and forgets; its own bytes do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use hydrant_objects::{Config, FAR, NEAR, Patience};
use hydrant_sdk::{Code, Error, Fault};
use object_store::path::Path as Location;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use uuid::Uuid;

use super::breaker::Breaker;
use crate::receipt::hex;

/// How the only store is called, when it has no name.
const ONLY: &str = "main";
/// The folder of everything here, in a store.
const FOLDER: &str = "submissions";
/// How long it may take to write a piece and read it back, or to read one, before the other store has its turn.
const PATIENCE: Duration = Duration::from_secs(10);
const OF_STORE: Patience = Patience {
    connect: Duration::from_secs(1),
    request: Duration::from_secs(8),
    repeat: Duration::from_secs(2),
};

/// All stores, the near one first. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stores(Arc<Vec<Store>>);

/// One store.
pub(super) struct Store {
    name: String,
    config: Config,
    opened: OnceLock<Arc<dyn ObjectStore>>,
    patience: Duration,
    breaker: Breaker,
}

/// Which bytes an object has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) size: u64,
    /// In hex.
    pub(super) sha256: String,
}

/// Why a store is of no use now.
#[derive(Debug)]
enum Trouble {
    /// It can't be reached, or refuses.
    Away(String),
    Missing,
    /// It has other bytes than were given to it.
    Lies(Seal),
}

impl Stores {
    /// The stores that the environment names; none is asked yet.
    pub(super) fn from_env() -> Self {
        let configs = [NEAR, FAR].into_iter().filter_map(Config::from_env);
        Self::new(configs.collect())
    }

    pub(super) fn new(configs: Vec<Config>) -> Self {
        let stores = configs.into_iter().map(|config| Store {
            name: config.name.clone().unwrap_or_else(|| ONLY.into()),
            config,
            opened: OnceLock::new(),
            patience: PATIENCE,
            breaker: Breaker::default(),
        });
        Self(Arc::new(stores.collect()))
    }

    #[cfg(test)]
    pub(super) fn of(stores: Vec<(&str, Arc<dyn ObjectStore>)>) -> Self {
        let stores = stores.into_iter().map(|(name, objects)| Store {
            name: name.into(),
            config: Config::default(),
            opened: OnceLock::from(objects),
            patience: Duration::from_millis(500),
            breaker: Breaker::default(),
        });
        Self(Arc::new(stores.collect()))
    }

    /// The stores to write to, in their turn: those that were well, or else all.
    ///
    /// # Errors
    ///
    /// If there is none at all.
    pub(super) fn to_write(&self) -> Result<Vec<&Store>, Error> {
        if self.0.is_empty() {
            return Err(no_store());
        }
        let well: Vec<_> = self.0.iter().filter(|one| one.breaker.admits()).collect();
        Ok(match well.is_empty() {
            true => self.0.iter().collect(),
            false => well,
        })
    }

    /// Whether there is one in each of two data centres.
    pub(super) fn are_two(&self) -> bool {
        self.0.len() == 2
    }

    /// The store that does not have this name, of two.
    pub(super) fn beside(&self, name: &str) -> Option<&Store> {
        self.0.iter().find(|store| store.name != name)
    }

    /// The bytes of an object, from the store that a row names, or from the other.
    ///
    /// # Errors
    ///
    /// If none has them now.
    pub(super) async fn read(&self, name: &str, object: &str, seal: &Seal) -> Result<Bytes, Error> {
        let named = self.0.iter().filter(|store| store.name == name);
        let others = self.0.iter().filter(|store| store.name != name);
        let mut worst = None;
        for store in named.chain(others) {
            let trouble = match timeout(store.patience, store.read(object, seal)).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(trouble)) => trouble,
                Err(_) => late(),
            };
            if store.name == name {
                store.alarm("read", object, &trouble);
                worst = Some(trouble);
            }
        }
        Err(match worst {
            Some(Trouble::Away(_)) | None => unavailable(),
            Some(_) => lost(object, name),
        })
    }

    /// Removes an object; one that is not there is removed.
    ///
    /// # Errors
    ///
    /// If the store is not known, or does not answer.
    pub(super) async fn remove(&self, name: &str, object: &str) -> Result<(), Error> {
        let store = self.0.iter().find(|store| store.name == name);
        let store = store.ok_or_else(|| unknown_store(name))?;
        let objects = store.open().map_err(|_| unavailable())?;
        if let Some(folder) = store.config.folder() {
            // So a folder calls what is being written; a process that was killed leaves it there.
            let _ = tokio::fs::remove_file(folder.join(format!("{object}#1"))).await;
        }
        let location = Location::from(object);
        match timeout(store.patience, objects.delete(&location)).await {
            Ok(Ok(()) | Err(StoreError::NotFound { .. })) => Ok(()),
            _ => Err(unavailable()),
        }
    }
}

impl Store {
    /// How rows name it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may be asked now: one that was away a moment ago is left alone.
    pub(super) fn is_well(&self) -> bool {
        self.breaker.admits()
    }

    /// Keeps bytes under a name that nothing else has; when this is true they are there, whole.
    pub(super) async fn write(&self, object: &str, bytes: Bytes, seal: &Seal) -> bool {
        let written = timeout(self.patience, self.write_and_read(object, bytes, seal)).await;
        match written.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                self.breaker.succeeded();
                true
            }
            Err(trouble) => {
                self.alarm("write", object, &trouble);
                if self.breaker.failed() {
                    tracing::warn!(store = self.name, "the store is left alone for a while");
                }
                false
            }
        }
    }

    async fn write_and_read(&self, object: &str, bytes: Bytes, seal: &Seal) -> Result<(), Trouble> {
        let objects = self.open()?;
        objects.put(&Location::from(object), bytes.into()).await?;
        let mut sha256 = Sha256::new();
        let mut size = 0;
        let mut stream = objects.get(&Location::from(object)).await?.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            size += chunk.len() as u64;
            sha256.update(&chunk);
        }
        let sha256 = hex(&sha256.finalize());
        checked(Seal { size, sha256 }, seal)
    }

    async fn read(&self, object: &str, seal: &Seal) -> Result<Bytes, Trouble> {
        let found = self.open()?.get(&Location::from(object)).await?;
        if found.meta.size != seal.size {
            let sha256 = String::new();
            let size = found.meta.size;
            return Err(Trouble::Lies(Seal { size, sha256 }));
        }
        let bytes = found.bytes().await?;
        checked(self::seal(&bytes), seal).map(|()| bytes)
    }

    /// Opened when it is needed first, and tried again when that failed.
    fn open(&self) -> Result<&dyn ObjectStore, Trouble> {
        if self.opened.get().is_none() {
            let opened = self.config.open(OF_STORE);
            let opened = opened.map_err(|error| Trouble::Away(error.message))?;
            let _ = self.opened.set(opened);
        }
        let opened = self.opened.get().map(AsRef::as_ref);
        opened.ok_or_else(|| Trouble::Away("it can't be opened".into()))
    }

    /// What the store itself said is for operators, in the log: it may name hosts and buckets.
    fn alarm(&self, what: &str, object: &str, trouble: &Trouble) {
        let store = &*self.name;
        match trouble {
            Trouble::Away(why) => tracing::warn!(store, object, why, "cannot {what} a piece"),
            Trouble::Missing => tracing::error!(store, object, "the store has lost a piece"),
            Trouble::Lies(found) => {
                tracing::error!(
                    store,
                    object,
                    ?found,
                    "the store has other bytes of a piece"
                );
            }
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::Missing,
            error => Self::Away(error.to_string()),
        }
    }
}

fn checked(found: Seal, expected: &Seal) -> Result<(), Trouble> {
    match found == *expected {
        true => Ok(()),
        false => Err(Trouble::Lies(found)),
    }
}

fn late() -> Trouble {
    Trouble::Away("it did not answer in time".into())
}

/// A name that nothing has, in folders of 256, which file systems and people can look into.
pub(super) fn new_object() -> String {
    let name = Uuid::new_v4().to_string();
    format!("{FOLDER}/{}/{name}", &name[..2])
}

/// The seal of bytes.
pub(super) fn seal(bytes: &[u8]) -> Seal {
    Seal {
        size: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    }
}

fn no_store() -> Error {
    let message = "attachments can't be kept: this fleet has no object store";
    Error::new(Code::FailedPrecondition, "no_objects", message)
        .mend("name one in the configuration of every server: [objects] url = \"s3://BUCKET\"")
}

/// The error when no store takes or gives bytes now.
pub(super) fn unavailable() -> Error {
    let message = "the object stores do not answer as they should";
    let mut error = Error::new(Code::Unavailable, "objects_unavailable", message)
        .fault(Fault::Theirs)
        .mend("go on with the upload later; for operators: `hydrant logs service/submissions`");
    error.retryable = true;
    error
}

fn lost(object: &str, store: &str) -> Error {
    let message = format!("the object store `{store}` has lost or changed the piece {object}");
    Error::new(Code::DataLoss, "objects_broken", message)
        .mend("put the object back from a copy, or ask the sender for the file")
}

fn unknown_store(name: &str) -> Error {
    let message = format!("no object store has the name `{}`", name.escape_debug());
    Error::new(Code::FailedPrecondition, "unknown_store", message)
        .mend("give the store its old `name` in [objects] or [objects.far]")
}
