//! Files with certificates and keys, in PEM form, and what tells that they were written anew.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no {what} in PEM form", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

pub(super) fn malformed(path: &Path, what: &'static str) -> FileError {
    FileError::Malformed {
        path: path.into(),
        what,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        if fs::metadata(path)?.len() > MAX_FILE {
            return Err(io::Error::other("it is larger than 1 MB"));
        }
        fs::read(path)
    };
    read().map_err(|reason| FileError::Read {
        path: path.into(),
        reason,
    })
}

/// At least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    read.ok()
        .filter(|read| !read.is_empty())
        .ok_or_else(|| malformed(path, "certificate"))
}

pub(super) fn read_roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|_| malformed(path, "certificate of an authority"))?;
    }
    Ok(roots)
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| malformed(path, "private key"))
}

/// Tells whether files were written anew since they were last read.
#[derive(Debug)]
pub(super) struct Changes(Mutex<Vec<Stamp>>);

/// A file that was written anew is another one, or has another time.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Changes {
    /// To be made before the files are read: what changes meanwhile counts as a change.
    pub(super) fn since_now(paths: Vec<PathBuf>) -> Self {
        Self(Mutex::new(stamps(paths)))
    }

    /// Whether there are some since it was last asked.
    pub(super) fn are_there(&self, paths: Vec<PathBuf>) -> bool {
        let now = stamps(paths);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *last != now;
        *last = now;
        changed
    }
}

fn stamps(paths: Vec<PathBuf>) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let file = fs::metadata(path).ok()?;
        Some((file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
    };
    paths.into_iter().map(stamp).collect()
}
