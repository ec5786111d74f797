//! What is published: every document of one revision, as one value in shared state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::documents::{DocumentId, Kind};

/// The key in the shared state of `service/mobile` where the bundle stands.
pub(crate) const KEY: &str = "bundle";

/// The largest bundle, in bytes of JSON.
pub(crate) const MAX_JSON: usize = 64 * 1024 * 1024;
/// The largest bundle in shared state: what one value takes there.
pub(crate) const MAX_PACKED: usize = 4 * 1024 * 1024;

/// Every document of one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    /// The revision; 0 before the first change.
    pub(crate) revision: u64,
    /// When it was made, in milliseconds since 1970.
    pub(crate) at_unix_ms: i64,
    /// The texts of the documents, by kind and name.
    pub(crate) documents: BTreeMap<Kind, BTreeMap<String, String>>,
}

/// A value that is no bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("it can't be unpacked: {0}")]
    Packed(std::io::Error),
    #[error("it is not what this version of the program reads: {0}")]
    Json(serde_json::Error),
}

impl Bundle {
    /// The documents of a kind, with their names.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = (&str, &str)> {
        let documents = self.documents.get(&kind).into_iter().flatten();
        documents.map(|(name, body)| (name.as_str(), body.as_str()))
    }

    /// One document.
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&str> {
        self.documents.get(&kind)?.get(name).map(String::as_str)
    }

    /// Puts a document, or removes it.
    pub(crate) fn put(&mut self, id: &DocumentId, body: Option<String>) {
        match body {
            Some(body) => {
                let of_kind = self.documents.entry(id.kind).or_default();
                of_kind.insert(id.name().to_owned(), body);
            }
            None => {
                let Some(of_kind) = self.documents.get_mut(&id.kind) else {
                    return;
                };
                of_kind.remove(id.name());
                if of_kind.is_empty() {
                    self.documents.remove(&id.kind);
                }
            }
        }
    }

    /// Which documents there are, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DocumentId> {
        let of_kinds = self.documents.iter();
        of_kinds.flat_map(|(kind, of_kind)| {
            let names = of_kind.keys();
            names.filter_map(|name| DocumentId::new(*kind, name).ok())
        })
    }

    /// As it stands in shared state: JSON under zstd.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("texts and numbers become JSON");
        zstd::bulk::compress(&json, 3).expect("memory takes any number of bytes")
    }

    pub(crate) fn unpack(packed: &[u8]) -> Result<Self, BundleError> {
        let json = zstd::bulk::decompress(packed, MAX_JSON).map_err(BundleError::Packed)?;
        serde_json::from_slice(&json).map_err(BundleError::Json)
    }
}
