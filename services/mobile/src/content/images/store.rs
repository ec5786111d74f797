//! The object store: bytes under the name of their SHA-256, written once and checked.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use hydrant_objects::{Config, Patience};
use hydrant_sdk::{Code, Error};
use object_store::path::Path as Location;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::content::image::is_sha256;
use crate::content::images::scale::sha256_of;

/// Where the bytes of images are.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Whether who asks may hear what the store itself says.
    is_frank: bool,
}

impl Store {
    /// The store that is configured; a folder is made when missing.
    ///
    /// # Errors
    ///
    /// As [`Config::open`].
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            objects: config.open(Patience::default())?,
            is_frank: false,
        })
    }

    /// The same for operators: what the store says of a failure stands in the error, and not in the log.
    pub(crate) fn frank(self) -> Self {
        Self {
            is_frank: true,
            ..self
        }
    }

    /// Keeps bytes under the name of their SHA-256, and reads them back: what this returns from is
    /// there, whole. What is there already is never written over.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, refuses, or has other bytes under this name afterwards.
    pub(crate) async fn put(&self, sha256: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(sha256, bytes, PutMode::Create).await
    }

    /// The same, in the place of other bytes that are there under the name.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub(crate) async fn replace(&self, sha256: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(sha256, bytes, PutMode::Overwrite).await
    }

    async fn write(&self, sha256: &str, bytes: Bytes, mode: PutMode) -> Result<(), Error> {
        let (location, options) = (location(sha256), PutOptions::from(mode));
        let put = self.objects.put_opts(&location, bytes.into(), options);
        match put.await {
            Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(self.failed("write to", &error)),
        }
        match self.get(sha256).await? {
            Some(_) => Ok(()),
            None => Err(not_kept(sha256)),
        }
    }

    /// The names of all objects, sorted. What is not named as they are is left alone.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, or refuses.
    pub(crate) async fn list(&self) -> Result<Vec<String>, Error> {
        let objects = self.objects.list(Some(&Location::from(FOLDER)));
        let objects: Result<Vec<_>, _> = objects.try_collect().await;
        let objects = objects.map_err(|error| self.failed("list", &error))?;
        let named = objects.into_iter().filter_map(|object| {
            let name = object.location.filename()?.to_owned();
            let is_own = is_sha256(&name) && object.location == location(&name);
            is_own.then_some(name)
        });
        let mut names: Vec<String> = named.collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The bytes of this SHA-256; `None` when there are none.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, refuses, or has other bytes under this name.
    pub(crate) async fn get(&self, sha256: &str) -> Result<Option<Bytes>, Error> {
        let bytes = match self.objects.get(&location(sha256)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) if sha256_of(&bytes) == sha256 => Ok(Some(bytes)),
            Ok(bytes) => Err(not_the_same(sha256, bytes.len())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read from", &error)),
        }
    }

    /// What the store itself said is for operators, in the log or to their face: it may name hosts
    /// and buckets.
    fn failed(&self, what: &str, error: &StoreError) -> Error {
        if self.is_frank {
            let message = format!("can't {what} the object store: {error}");
            return Error::new(Code::Unavailable, "objects_unavailable", message)
                .mend("does it answer, and are the [objects] of the configuration right?");
        }
        tracing::error!(%error, "can't {what} the object store");
        failed(error)
    }
}

/// Where all objects are, in the store.
const FOLDER: &str = "images";

/// In folders of 256, which file systems and people can look into.
fn location(sha256: &str) -> Location {
    Location::from_iter([FOLDER, &sha256[..2], sha256])
}

fn failed(error: &StoreError) -> Error {
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
        let config = Config {
            url: format!("file://{}/objects", folder.path().display()),
            ..Config::default()
        };
        let store = Store::open(&config).unwrap();
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
        let store = Store {
            objects: inner.clone(),
            is_frank: false,
        };
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
}
