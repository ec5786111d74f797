//! Where submissions go.

mod files;
mod flow;
mod rest;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Around;
pub(crate) use files::{Folder, HostKey, Login, Sftp};
#[cfg(test)]
pub(crate) use flow::Waits;
pub(crate) use flow::{Breaker, Flow};
pub(crate) use rest::{Body, Reference, Rest};

/// Somebody who gets submissions.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) place: Place,
    /// How much it gets at a time, and what happens when it fails.
    pub(crate) flow: Flow,
}

/// How a consumer is reached.
#[derive(Debug)]
pub(crate) enum Place {
    /// A web service that answers with a reference.
    Rest(Box<Rest>),
    /// A server that takes files.
    Sftp(Box<Sftp>),
    /// A folder of this server.
    Folder(Folder),
}

/// How a consumer is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rest,
    Sftp,
    Folder,
}

/// A consumer as the file has it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Table {
    Rest(Box<rest::RestTable>),
    Sftp(Box<files::SftpTable>),
    Folder(Box<files::FolderTable>),
}

/// Keys that no definition has.
pub(super) type Unknown = BTreeMap<String, IgnoredAny>;

impl Consumer {
    pub(crate) fn kind(&self) -> Kind {
        match self.place {
            Place::Rest(_) => Kind::Rest,
            Place::Sftp(_) => Kind::Sftp,
            Place::Folder(_) => Kind::Folder,
        }
    }
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Sftp => "sftp",
            Self::Folder => "folder",
        }
    }
}

impl Table {
    pub(super) fn checked(self, around: &Around<'_>) -> Result<Consumer, String> {
        match self {
            Self::Rest(table) => table.checked(around),
            Self::Sftp(table) => table.checked(around),
            Self::Folder(table) => table.checked(around),
        }
    }
}

fn refuse_unknown(unknown: &Unknown) -> Result<(), String> {
    match unknown.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("has `{}`, which is unknown", key.escape_debug())),
    }
}
