//! What is durable: the tables of the redb file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hydrant_ports::Key;
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::OpenError;
use crate::image::{Life, Record};

/// The format of the tables below.
const FORMAT: u64 = 1;

/// redb's own cache. Reads are served from memory, so only the writer's path to a page uses it.
const CACHE: usize = 8 << 20;

/// `format`, and `reserved`: the highest revision that may have been given.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Kept keys of coordination: revision, value.
const KEPT: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("kept");
/// State: revision, end of life in milliseconds since 1970, value.
const STATE: TableDefinition<&str, (u64, Option<i64>, &[u8])> = TableDefinition::new("state");
/// The highest epoch that is known of a mark.
const MARKS: TableDefinition<&str, u64> = TableDefinition::new("marks");
/// The last epoch that was granted of a seat.
const EPOCHS: TableDefinition<&str, u64> = TableDefinition::new("epochs");

/// Where the file is.
pub(crate) trait Medium: Send {
    /// Its name in errors.
    fn path(&self) -> &Path;

    /// Opens it, checks every page, and repairs what a crash left.
    fn open(&self) -> Result<Database, OpenError>;
}

/// All that was found in the file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stored {
    pub(crate) kept: Vec<(Key, Record)>,
    pub(crate) state: Vec<(Key, Record)>,
    pub(crate) marks: HashMap<Key, u64>,
    pub(crate) epochs: HashMap<Key, u64>,
    pub(crate) reserved: u64,
}

/// What one commit changes; `None` removes.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) kept: Vec<(Key, Option<Record>)>,
    pub(crate) state: Vec<(Key, Option<Record>)>,
    pub(crate) marks: Vec<(Key, u64)>,
    pub(crate) epochs: Vec<(Key, u64)>,
    pub(crate) reserved: Option<u64>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
            && self.state.is_empty()
            && self.marks.is_empty()
            && self.epochs.is_empty()
            && self.reserved.is_none()
    }
}

pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    /// `None` after a failure, until it could be opened again.
    database: Option<Database>,
}

impl Disk {
    pub(crate) fn open(medium: Box<dyn Medium>) -> Result<(Self, Stored), OpenError> {
        let mut disk = Self {
            medium,
            database: None,
        };
        let stored = disk.reopen()?;
        Ok((disk, stored))
    }

    /// Opens the file again after a failure, and reads what is in it.
    pub(crate) fn reopen(&mut self) -> Result<Stored, OpenError> {
        self.database = None;
        let database = self.medium.open()?;
        let stored = load(&database, self.medium.path())?;
        self.database = Some(database);
        Ok(stored)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.database.is_none()
    }

    /// Returns when the changes are on the disk, all or, with an error, perhaps none. After an
    /// error the disk has failed: redb must read the file anew to know what is in it.
    pub(crate) fn commit(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Err(redb::Error::PreviousIo);
        };
        let result = write(database, changes);
        if result.is_err() {
            self.database = None;
        }
        result
    }
}

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    // A new transaction is durable when `commit` returns: redb's default.
    let transaction = database.begin_write()?;
    apply(&transaction, changes)?;
    transaction.commit()?;
    Ok(())
}

fn apply(transaction: &WriteTransaction, changes: &Changes) -> Result<(), redb::Error> {
    if let Some(reserved) = changes.reserved {
        transaction.open_table(META)?.insert("reserved", reserved)?;
    }
    let mut kept = transaction.open_table(KEPT)?;
    for (key, record) in &changes.kept {
        match record {
            Some(record) => kept.insert(key.as_str(), (record.revision, &*record.value))?,
            None => kept.remove(key.as_str())?,
        };
    }
    let mut state = transaction.open_table(STATE)?;
    for (key, record) in &changes.state {
        match record {
            Some(record) => state.insert(key.as_str(), state_row(record))?,
            None => state.remove(key.as_str())?,
        };
    }
    let mut marks = transaction.open_table(MARKS)?;
    for (name, epoch) in &changes.marks {
        marks.insert(name.as_str(), epoch)?;
    }
    let mut epochs = transaction.open_table(EPOCHS)?;
    for (name, epoch) in &changes.epochs {
        epochs.insert(name.as_str(), epoch)?;
    }
    Ok(())
}

fn state_row(record: &Record) -> (u64, Option<i64>, &[u8]) {
    let until = match record.life {
        Life::Until(until) => Some(until),
        Life::Kept | Life::Session(_) => None,
    };
    (record.revision, until, &record.value)
}

fn load(database: &Database, path: &Path) -> Result<Stored, OpenError> {
    let corrupt = |error: redb::Error| OpenError::redb(path, error);
    let invalid = |error: hydrant_ports::InvalidKey| OpenError::corrupt(path, error);
    let read = || -> Result<_, redb::Error> {
        let transaction = database.begin_read()?;
        Ok((
            transaction.open_table(META)?,
            transaction.open_table(KEPT)?,
            transaction.open_table(STATE)?,
            transaction.open_table(MARKS)?,
            transaction.open_table(EPOCHS)?,
        ))
    };
    let (meta, kept, state, marks, epochs) = read().map_err(corrupt)?;
    check_format(&meta, path)?;

    let mut stored = Stored {
        reserved: number(&meta, "reserved").map_err(corrupt)?.unwrap_or(0),
        marks: numbers(&marks, path)?,
        epochs: numbers(&epochs, path)?,
        ..Stored::default()
    };
    for row in kept.iter().map_err(|error| corrupt(error.into()))? {
        let (key, row) = row.map_err(|error| corrupt(error.into()))?;
        let (revision, value) = row.value();
        let record = Record {
            value: Bytes::copy_from_slice(value),
            revision,
            life: Life::Kept,
        };
        stored
            .kept
            .push((key.value().parse().map_err(invalid)?, record));
    }
    for row in state.iter().map_err(|error| corrupt(error.into()))? {
        let (key, row) = row.map_err(|error| corrupt(error.into()))?;
        let (revision, until, value) = row.value();
        let record = Record {
            value: Bytes::copy_from_slice(value),
            revision,
            life: until.map_or(Life::Kept, Life::Until),
        };
        stored
            .state
            .push((key.value().parse().map_err(invalid)?, record));
    }
    Ok(stored)
}

fn check_format(
    meta: &impl ReadableTable<&'static str, u64>,
    path: &Path,
) -> Result<(), OpenError> {
    match number(meta, "format").map_err(|error| OpenError::redb(path, error))? {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(OpenError::Format {
            path: path.to_owned(),
            found,
            known: FORMAT,
        }),
        None => Err(OpenError::corrupt(path, "it names no format")),
    }
}

fn number(
    table: &impl ReadableTable<&'static str, u64>,
    name: &str,
) -> Result<Option<u64>, redb::Error> {
    Ok(table.get(name)?.map(|row| row.value()))
}

fn numbers(
    table: &impl ReadableTable<&'static str, u64>,
    path: &Path,
) -> Result<HashMap<Key, u64>, OpenError> {
    let corrupt = |error: redb::StorageError| OpenError::redb(path, error.into());
    let mut numbers = HashMap::new();
    for row in table.iter().map_err(corrupt)? {
        let (name, row) = row.map_err(corrupt)?;
        let name = name
            .value()
            .parse()
            .map_err(|error: hydrant_ports::InvalidKey| OpenError::corrupt(path, error))?;
        numbers.insert(name, row.value());
    }
    Ok(numbers)
}

/// A file of the file system.
pub(crate) struct StoreFile(pub(crate) PathBuf);

impl Medium for StoreFile {
    fn path(&self) -> &Path {
        &self.0
    }

    fn open(&self) -> Result<Database, OpenError> {
        let path = &self.0;
        if !path.try_exists().map_err(|e| OpenError::io(path, e))? {
            self.create()?;
        }
        builder()
            .open(path)
            .map_err(|error| OpenError::redb(path, error.into()))
    }
}

impl StoreFile {
    /// Makes an empty store beside the path and links it into place when it is whole, so that a
    /// crash on the way leaves nothing that looks like a damaged store, and of two that do it at
    /// once the second opens what the first has made.
    fn create(&self) -> Result<(), OpenError> {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let draft = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = format!("new-{}-{draft}", std::process::id());
        let draft = self.0.with_extension(draft);
        let linked = self
            .fill(&draft)
            .and_then(|()| match fs::hard_link(&draft, &self.0) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(OpenError::io(&self.0, error))
                }
                _ => Ok(()),
            });
        let _ = fs::remove_file(&draft);
        linked?;
        sync_folder(&self.0).map_err(|error| OpenError::io(&self.0, error))
    }

    fn fill(&self, draft: &Path) -> Result<(), OpenError> {
        let file = private_file(draft).map_err(|error| OpenError::io(&self.0, error))?;
        let initialised = || -> Result<(), redb::Error> {
            let database = builder().create_with_backend(FileBackend::new(file)?)?;
            initialise(&database)
        };
        initialised().map_err(|error| OpenError::redb(&self.0, error))
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    // The check makes damage an error here instead of a surprise later.
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}

/// Makes the tables of an empty store.
fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    apply(&transaction, &Changes::default())?;
    transaction.commit()?;
    Ok(())
}

/// State may hold secrets: the file is its owner's alone.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// A new file is durable when its folder's entry is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod faulty;
