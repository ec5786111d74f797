//! Where submissions go.

use std::path::PathBuf;

use serde::Deserialize;

use super::Around;

/// What stands in a URL for the address that clients use.
const PUBLIC_URL: &str = "${HYDRANT_PUBLIC_URL}";

/// Somebody who gets submissions.
#[derive(Debug)]
pub(crate) enum Consumer {
    /// A web service that answers with a reference.
    Rest(Rest),
    /// A folder of this server.
    Folder(Folder),
}

/// How a consumer is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rest,
    Folder,
}

#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) url: String,
    /// Where the reference stands in the answer, as a JSON pointer.
    pub(crate) reference: String,
}

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

/// A consumer as the file has it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Table {
    Rest(RestTable),
    Folder(FolderTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestTable {
    url: String,
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FolderTable {
    path: PathBuf,
}

impl Consumer {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Rest(_) => Kind::Rest,
            Self::Folder(_) => Kind::Folder,
        }
    }
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Folder => "folder",
        }
    }
}

impl Table {
    pub(super) fn checked(self, _name: &str, around: &Around<'_>) -> Result<Consumer, String> {
        Ok(match self {
            Self::Rest(table) => Consumer::Rest(Rest {
                url: table
                    .url
                    .replace(PUBLIC_URL, around.public_url.unwrap_or_default()),
                reference: table.reference,
            }),
            Self::Folder(table) => Consumer::Folder(Folder {
                path: around.folder.join(table.path),
            }),
        })
    }
}
