//! What is published: every document of one revision, as one value in shared state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::documents::Kind;

/// The key in the shared state of `service/mobile` where the bundle stands.
pub(crate) const KEY: &str = "bundle";

/// The largest bundle that is read, in bytes of JSON.
const MAX_JSON: usize = 64 * 1024 * 1024;

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
