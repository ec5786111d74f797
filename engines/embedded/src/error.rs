use std::io;
use std::path::{Path, PathBuf};

use hydrant_ports::{EngineError, ErrorKind};

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error(
        "the store {} is in use by another process: stop it, or choose another data folder",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, or it is damaged.
    #[error(
        "the file {} is not a store, or it is damaged: move it away and start with a copy of it, or with none",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer version of Hydrant has written it.
    #[error(
        "the store {} has format {found}, and this version reads format {known}: use the version that wrote it",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format that this version reads and writes.
        known: u64,
    },
    /// The file system refused.
    #[error("can't open the store {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Sorts what redb says of `path`.
    pub(crate) fn redb(path: &Path, error: redb::Error) -> Self {
        use redb::Error;
        let path = path.to_owned();
        match error {
            Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => Self::InUse { path },
            // redb tells what it can't parse as invalid data, a file cut short as an early end.
            Error::Io(source)
                if !matches!(
                    source.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Io { path, source }
            }
            other => Self::corrupt(&path, other),
        }
    }

    pub(crate) fn corrupt(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

pub(crate) fn closed() -> EngineError {
    EngineError::new(ErrorKind::Closed, "the store is closed")
}

pub(crate) fn session_closed() -> EngineError {
    EngineError::new(ErrorKind::Closed, "the session is closed")
}

pub(crate) fn conflict(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Conflict, message)
}

pub(crate) fn too_large(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::TooLarge, message)
}

pub(crate) fn unavailable(message: &str) -> EngineError {
    EngineError::new(ErrorKind::Unavailable, message)
}
