//! Carries images from one object store to another. An object is named by the hash of its bytes, so what
//! is the same needs no second look, and what is there but otherwise is broken.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hydrant_objects::Config;
use hydrant_sdk::{Code, Error};

use crate::content::images::store::Store;

/// How many objects are under way at a time; each may have 20 MB.
const AT_ONCE: usize = 4;

/// The images of two stores.
pub struct ImagesCopy {
    from: Store,
    to: Store,
}

/// What was found on comparing them. Names are SHA-256 in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesFound {
    /// How many objects the source has.
    pub found: u64,
    /// Those that the target lacks.
    pub new: Vec<String>,
    /// Those under whose names the target has other bytes.
    pub different: Vec<String>,
}

impl ImagesFound {
    /// Whether the target has all that the source has.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.new.is_empty() && self.different.is_empty()
    }
}

/// How a store has an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Whole,
    Broken,
    Missing,
}

impl ImagesCopy {
    /// Opens both stores; a folder is made when missing.
    ///
    /// # Errors
    ///
    /// If a folder or credentials can't be used.
    pub fn open(from: &Config, to: &Config) -> Result<Self, Error> {
        Ok(Self {
            from: Store::open(from)?.frank(),
            to: Store::open(to)?.frank(),
        })
    }

    /// Reads all objects of the target that the source has too, and checks their hashes.
    ///
    /// # Errors
    ///
    /// If a store does not answer, or refuses.
    pub async fn compare(&self) -> Result<ImagesFound, Error> {
        let names = self.from.list().await?;
        let mut found = ImagesFound {
            found: names.len() as u64,
            ..ImagesFound::default()
        };
        let look = |name: String| async move {
            let held = held(&self.to, &name).await?;
            Ok::<_, Error>((name, held))
        };
        let mut looked = stream::iter(names).map(look).buffered(AT_ONCE);
        while let Some((name, held)) = looked.try_next().await? {
            match held {
                Held::Whole => {}
                Held::Missing => found.new.push(name),
                Held::Broken => found.different.push(name),
            }
        }
        Ok(found)
    }

    /// Writes what the target lacks or has otherwise, each read back and checked.
    ///
    /// # Errors
    ///
    /// If a store does not answer or refuses, or an object of the source is broken.
    pub async fn carry_out(&self, found: &ImagesFound) -> Result<(), Error> {
        let new = found.new.iter().map(|name| (name, false));
        let broken = found.different.iter().map(|name| (name, true));
        let copies = new.chain(broken).map(|(name, replace)| async move {
            let bytes = self.read(name).await?;
            match replace {
                false => self.to.put(name, bytes).await,
                true => self.to.replace(name, bytes).await,
            }
        });
        let copies: Vec<_> = copies.collect();
        stream::iter(copies)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn read(&self, name: &str) -> Result<Bytes, Error> {
        let bytes = self.from.get(name).await?;
        bytes.ok_or_else(|| {
            let message = format!("the image {name} went from the source during the copy");
            Error::new(Code::Aborted, "object_gone", message).mend("run the copy again")
        })
    }
}

async fn held(store: &Store, name: &str) -> Result<Held, Error> {
    match store.get(name).await {
        Ok(Some(_)) => Ok(Held::Whole),
        Ok(None) => Ok(Held::Missing),
        Err(error) if error.code == Code::DataLoss => Ok(Held::Broken),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::content::images::scale::sha256_of;

    struct Folders {
        temp: tempfile::TempDir,
        copy: ImagesCopy,
    }

    impl Folders {
        /// A source with apples and pears, and a target with nothing.
        async fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let config = |name: &str| Config {
                url: format!("file://{}", temp.path().join(name).display()),
                ..Config::default()
            };
            let copy = ImagesCopy::open(&config("from"), &config("to")).unwrap();
            for fruit in ["apples", "pears"] {
                let name = sha256_of(fruit.as_bytes());
                copy.from.put(&name, fruit.into()).await.unwrap();
            }
            std::fs::write(temp.path().join("from/images/README"), "not an image").unwrap();
            Self { temp, copy }
        }

        fn path(&self, side: &str, name: &str) -> PathBuf {
            let images: &Path = self.temp.path();
            images.join(side).join("images").join(&name[..2]).join(name)
        }
    }

    #[tokio::test]
    async fn all_images_are_carried_and_again_none() {
        let folders = Folders::new().await;
        let plan = folders.copy.compare().await.unwrap();
        assert_eq!((plan.found, plan.new.len()), (2, 2));
        folders.copy.carry_out(&plan).await.unwrap();
        let after = folders.copy.compare().await.unwrap();
        assert_eq!((after.found, after.is_done()), (2, true));
        let name = sha256_of(b"pears");
        assert_eq!(std::fs::read(folders.path("to", &name)).unwrap(), b"pears");
    }

    #[tokio::test]
    async fn what_is_broken_at_the_target_is_different_and_then_replaced() {
        let folders = Folders::new().await;
        let plan = folders.copy.compare().await.unwrap();
        folders.copy.carry_out(&plan).await.unwrap();
        let name = sha256_of(b"apples");
        std::fs::write(folders.path("to", &name), "appl").unwrap();
        let plan = folders.copy.compare().await.unwrap();
        assert_eq!((plan.new.len(), &plan.different), (0, &vec![name]));
        folders.copy.carry_out(&plan).await.unwrap();
        assert!(folders.copy.compare().await.unwrap().is_done());
    }

    #[tokio::test]
    async fn what_is_broken_at_the_source_is_told_and_never_copied() {
        let folders = Folders::new().await;
        let name = sha256_of(b"apples");
        std::fs::write(folders.path("from", &name), "appl").unwrap();
        let plan = folders.copy.compare().await.unwrap();
        let error = folders.copy.carry_out(&plan).await.unwrap_err();
        assert!(error.message.contains(&name), "{error}");
        assert!(!folders.path("to", &name).exists());
    }
}
