//! The object store: bytes under the name of their SHA-256, written once and checked.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_sdk::{Code, Error};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::content::images::scale::sha256_of;

/// Where the bytes of images are.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<dyn ObjectStore>);

impl Store {
    pub(crate) fn new(store: impl ObjectStore) -> Self {
        Self(Arc::new(store))
    }

    /// A folder of this server, made when missing.
    pub(crate) fn folder(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
        let store = LocalFileSystem::new_with_prefix(path);
        let store = store.map_err(|error| unusable(path, &error))?;
        Ok(Self::new(store.with_fsync(true)))
    }

    /// Keeps bytes under the name of their SHA-256, and reads them back: what this returns from is
    /// there, whole. What is there already is never written over.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, refuses, or has other bytes under this name afterwards.
    pub(crate) async fn put(&self, sha256: &str, bytes: Bytes) -> Result<(), Error> {
        let options = PutOptions::from(PutMode::Create);
        let location = location(sha256);
        match self.0.put_opts(&location, bytes.into(), options).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(failed("write to", &error)),
        }
        match self.get(sha256).await? {
            Some(_) => Ok(()),
            None => Err(not_kept(sha256)),
        }
    }

    /// The bytes of this SHA-256; `None` when there are none.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, refuses, or has other bytes under this name.
    pub(crate) async fn get(&self, sha256: &str) -> Result<Option<Bytes>, Error> {
        let bytes = match self.0.get(&location(sha256)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) if sha256_of(&bytes) == sha256 => Ok(Some(bytes)),
            Ok(bytes) => Err(not_the_same(sha256, bytes.len())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read from", &error)),
        }
    }
}

/// In folders of 256, which file systems and people can look into.
fn location(sha256: &str) -> Location {
    Location::from_iter(["images", &sha256[..2], sha256])
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> Error {
    let message = format!("images can't be kept in {}: {error}", path.display());
    Error::new(Code::FailedPrecondition, "objects_unusable", message)
        .mend("make the folder writable, or name another")
}

/// What the store itself said is for operators, in the log: it may name hosts and buckets.
fn failed(what: &str, error: &StoreError) -> Error {
    tracing::error!(%error, "can't {what} the object store");
    let refused = matches!(
        error,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }
    );
    if refused {
        let message = "the object store refuses the service's credentials";
        return Error::new(Code::Unavailable, "objects_refused", message).mend(
            "see `hydrant logs service/mobile`, and mend the credentials of the object store",
        );
    }
    let message = "the object store does not answer as it should";
    Error::new(Code::Unavailable, "objects_unavailable", message)
        .mend("see `hydrant logs service/mobile`")
}

fn not_kept(sha256: &str) -> Error {
    let message = format!("the object store took the image {sha256} and does not have it");
    Error::new(Code::DataLoss, "objects_lost", message)
}

fn not_the_same(sha256: &str, length: usize) -> Error {
    let message = format!(
        "the object store has something else under the name {sha256}: {length} bytes with another hash"
    );
    Error::new(Code::DataLoss, "objects_broken", message)
        .mend("remove that object from the store, and add the image again")
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn what_is_put_is_there_and_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(&folder.path().join("objects")).unwrap();
        let sha256 = sha256_of(b"apple");
        assert_eq!(store.get(&sha256).await.unwrap(), None);
        for _ in 0..2 {
            store.put(&sha256, "apple".into()).await.unwrap();
        }
        assert_eq!(store.get(&sha256).await.unwrap().unwrap(), "apple");
    }

    #[tokio::test]
    async fn other_bytes_under_a_name_are_noticed_and_stay() {
        let (inner, sha256) = (Arc::new(InMemory::new()), sha256_of(b"apple"));
        let store = Store(inner.clone());
        inner.put(&location(&sha256), "app".into()).await.unwrap();
        for error in [
            store.put(&sha256, "apple".into()).await.unwrap_err(),
            store.get(&sha256).await.unwrap_err(),
        ] {
            assert_eq!(error.reason, "objects_broken");
        }
        let kept = inner.get(&location(&sha256)).await.unwrap();
        assert_eq!(kept.bytes().await.unwrap(), "app");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let error = Store::folder(Path::new("/dev/null/objects")).unwrap_err();
        assert!(error.message.contains("/dev/null/objects"), "{error}");
    }
}
