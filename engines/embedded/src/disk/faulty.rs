//! A disk in memory that keeps apart what was written and what was synced, loses power, and fails.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};

use super::{Medium, builder, initialise};
use crate::OpenError;

#[derive(Debug, Default)]
struct Bytes {
    written: Vec<u8>,
    synced: Vec<u8>,
}

/// The same disk in every clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    bytes: Arc<Mutex<Bytes>>,
    fails: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

impl FaultyDisk {
    /// A disk that holds what this one has synced, and nothing more.
    pub(crate) fn after_power_cut(&self) -> Self {
        let synced = self.bytes().synced.clone();
        let after = Self::default();
        *after.bytes() = Bytes {
            written: synced.clone(),
            synced,
        };
        after
    }

    /// Whether writes and syncs fail from now on.
    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn works(&self) -> io::Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the disk fails")),
            false => Ok(()),
        }
    }
}

impl Medium for FaultyDisk {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn open(&self) -> Result<Database, OpenError> {
        let is_new = self.bytes().written.is_empty();
        let open = || -> Result<Database, redb::Error> {
            let database = builder().create_with_backend(self.clone())?;
            if is_new {
                initialise(&database)?;
            }
            Ok(database)
        };
        open().map_err(|error| OpenError::redb(self.path(), error))
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let bytes = self.bytes();
        let found = bytes.written.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.works()?;
        self.bytes().written.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.works()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let mut bytes = self.bytes();
        bytes.synced = bytes.written.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.works()?;
        let start = offset as usize;
        let mut bytes = self.bytes();
        let place = bytes.written.get_mut(start..start + data.len());
        place
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}
