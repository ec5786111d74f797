//! Object stores for services that own some: where they are, as the node tells it in the environment, and
//! how they are opened. What is kept in them, and how it is checked, is the service's own.

mod credentials;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Code, Error};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

/// The variable that names the object store; what more is told of it has this name in front.
pub const NEAR: &str = "HYDRANT_OBJECTS";
/// The same of the store in the other data centre.
pub const FAR: &str = "HYDRANT_OBJECTS_FAR";

/// What the node says of an object store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How it is called where there are several: the same in all data centres.
    pub name: Option<String>,
    /// `file:///folder` or `s3://bucket/prefix`.
    pub url: String,
    /// Of an S3 store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Of an S3 store.
    pub region: Option<String>,
    /// The file with the credentials of an S3 store.
    pub credentials: Option<PathBuf>,
}

/// How long a store is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one request.
    pub request: Duration,
    /// For how long a request that fails is repeated.
    pub repeat: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(10),
            repeat: Duration::from_secs(4),
        }
    }
}

impl Config {
    /// What stands in the environment under `variable`, as [`NEAR`]: there the URL, and with `_NAME`,
    /// `_ENDPOINT`, `_REGION` and `_CREDENTIALS_FILE` behind it the rest. `None` when there is no store.
    pub fn from_env(variable: &str) -> Option<Self> {
        let text = |rest: &str| {
            let value = std::env::var(format!("{variable}{rest}")).ok();
            value.filter(|text| !text.is_empty())
        };
        Some(Self {
            url: text("")?,
            name: text("_NAME"),
            endpoint: text("_ENDPOINT"),
            region: text("_REGION"),
            credentials: text("_CREDENTIALS_FILE").map(PathBuf::from),
        })
    }

    /// The folder, when it is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let path = self.url.strip_prefix("file://")?;
        Some(OsString::from_vec(unescaped(path.as_bytes())).into())
    }

    /// Opens the store. A folder is made when it is missing, and what is written there is on disk before it
    /// counts; an S3 store is not asked yet.
    ///
    /// # Errors
    ///
    /// If the URL is none, the folder can't be made, or the credentials can't be read.
    pub fn open(&self, patience: Patience) -> Result<Arc<dyn ObjectStore>, Error> {
        if let Some(folder) = self.folder() {
            return open_folder(&folder);
        }
        let bucket = self.url.strip_prefix("s3://");
        let bucket = bucket.ok_or_else(|| bad(&self.url))?;
        let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let store = self.s3(bucket, patience)?.build();
        let store = store.map_err(|error| unusable(&error))?;
        Ok(match prefix.trim_matches('/') {
            "" => Arc::new(store),
            prefix => Arc::new(PrefixStore::new(store, prefix)),
        })
    }

    fn s3(&self, bucket: &str, patience: Patience) -> Result<AmazonS3Builder, Error> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(50),
                    max_backoff: Duration::from_secs(1),
                    base: 2.0,
                },
                max_retries: 4,
                retry_timeout: patience.repeat,
            });
        let mut options = ClientOptions::new()
            .with_timeout(patience.request)
            .with_connect_timeout(patience.connect);
        if let Some(endpoint) = &self.endpoint {
            options = options.with_allow_http(endpoint.starts_with("http://"));
            builder = builder
                .with_endpoint(endpoint)
                .with_virtual_hosted_style_request(false);
        }
        if let Some(file) = &self.credentials {
            builder = builder.with_credentials(credentials::from(file)?);
        }
        Ok(builder.with_client_options(options))
    }
}

/// A folder of this server, made when missing.
fn open_folder(path: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(path).map_err(|error| unusable_folder(path, &error))?;
    let store = LocalFileSystem::new_with_prefix(path);
    let store = store.map_err(|error| unusable_folder(path, &error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// The bytes that a path in a URL stands for: `%20` is a space.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*path.get(at)?).to_digit(16);
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(byte) = path.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    bytes
}

fn bad(url: &str) -> Error {
    let message = format!("`{url}` is no object store");
    Error::new(Code::InvalidArgument, "objects_unusable", message)
        .mend("write file:///FOLDER or s3://BUCKET/PREFIX")
}

fn unusable(error: &dyn std::error::Error) -> Error {
    let message = format!("the object store can't be used: {error}");
    Error::new(Code::FailedPrecondition, "objects_unusable", message)
}

fn unusable_folder(path: &Path, error: &dyn std::error::Error) -> Error {
    let message = format!("objects can't be kept in {}: {error}", path.display());
    Error::new(Code::FailedPrecondition, "objects_unusable", message)
        .mend("make the folder writable, or name another")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        Config {
            url: url.into(),
            ..Config::default()
        }
    }

    #[test]
    fn a_folder_may_have_any_name() {
        for (url, path) in [
            ("file:///srv/images", "/srv/images"),
            ("file:///my%20data/%C3%A4pfel", "/my data/äpfel"),
            ("file:///100%", "/100%"),
            ("file:///a%2", "/a%2"),
        ] {
            assert_eq!(config(url).folder(), Some(path.into()));
        }
    }

    #[test]
    fn a_folder_is_made_and_one_that_cannot_be_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let opened = config(&format!("file://{}", path.display())).open(Patience::default());
        assert!(opened.is_ok() && path.is_dir());
        let error = config("file:///dev/null/objects").open(Patience::default());
        let error = error.unwrap_err();
        assert!(error.message.contains("/dev/null/objects"), "{error}");
    }

    #[test]
    fn what_is_no_store_or_has_no_credentials_is_told() {
        let error = config("ftp://host").open(Patience::default()).unwrap_err();
        assert!(error.message.contains("`ftp://host`"), "{error}");
        let mut s3 = config("s3://bucket/prefix");
        s3.credentials = Some("/nowhere/s3.toml".into());
        let error = s3.open(Patience::default()).unwrap_err();
        assert!(error.message.contains("/nowhere/s3.toml"), "{error}");
    }
}
