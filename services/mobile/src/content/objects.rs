//! Where the object store is, as the node tells `service/mobile` in its environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_sdk::{Code, Error};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, CredentialProvider, RetryConfig};
use serde::Deserialize;

use crate::content::images::store::Store;

/// How long one request to an object store may take.
const REQUEST: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
/// How long a request that fails is repeated.
const REPEAT: Duration = Duration::from_secs(4);

/// What the node says of the object store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `file:///folder` or `s3://bucket/prefix`.
    pub url: String,
    /// Of an S3 store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Of an S3 store.
    pub region: Option<String>,
    /// The file with the credentials of an S3 store.
    pub credentials: Option<PathBuf>,
}

/// The file with the credentials of an S3 store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

impl Config {
    /// What stands in the environment: `HYDRANT_OBJECTS`, `HYDRANT_OBJECTS_ENDPOINT`,
    /// `HYDRANT_OBJECTS_REGION`, `HYDRANT_OBJECTS_CREDENTIALS_FILE`. `None` when there is no store.
    pub(crate) fn from_env() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Some(Self {
            url: variable("HYDRANT_OBJECTS")?,
            endpoint: variable("HYDRANT_OBJECTS_ENDPOINT"),
            region: variable("HYDRANT_OBJECTS_REGION"),
            credentials: variable("HYDRANT_OBJECTS_CREDENTIALS_FILE").map(PathBuf::from),
        })
    }

    /// The folder, when it is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let path = self.url.strip_prefix("file://")?;
        Some(OsString::from_vec(unescaped(path.as_bytes())).into())
    }

    /// Opens the store. A folder is made when it is missing; an S3 store is not asked yet.
    ///
    /// # Errors
    ///
    /// If the URL is none, the folder can't be made, or the credentials can't be read.
    pub(crate) fn open(&self) -> Result<Store, Error> {
        if let Some(folder) = self.folder() {
            return Store::folder(&folder);
        }
        let bucket = self
            .url
            .strip_prefix("s3://")
            .ok_or_else(|| bad(&self.url))?;
        let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let store = self.s3(bucket)?.build().map_err(|error| unusable(&error))?;
        Ok(match prefix.trim_matches('/') {
            "" => Store::new(store),
            prefix => Store::new(PrefixStore::new(store, prefix)),
        })
    }

    fn s3(&self, bucket: &str) -> Result<AmazonS3Builder, Error> {
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
                retry_timeout: REPEAT,
            });
        let mut options = ClientOptions::new()
            .with_timeout(REQUEST)
            .with_connect_timeout(CONNECT);
        if let Some(endpoint) = &self.endpoint {
            options = options.with_allow_http(endpoint.starts_with("http://"));
            builder = builder
                .with_endpoint(endpoint)
                .with_virtual_hosted_style_request(false);
        }
        if let Some(file) = &self.credentials {
            read(file)?;
            builder = builder.with_credentials(Arc::new(FromFile(file.clone())));
        }
        Ok(builder.with_client_options(options))
    }
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

/// Reads the file for each request, so that credentials can be changed while the service runs.
#[derive(Debug)]
struct FromFile(PathBuf);

#[async_trait::async_trait]
impl CredentialProvider for FromFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = read(&self.0).map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: error.into(),
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: read.access_key_id,
            secret_key: read.secret_access_key,
            token: None,
        }))
    }
}

fn read(file: &Path) -> Result<Credentials, Error> {
    hydrant_runtime::config::load(file).map_err(|_| {
        // The error may quote a line of the file, so it is not told.
        let file = file.display();
        let message = format!("the credentials of the object store in {file} can't be read");
        Error::new(Code::FailedPrecondition, "objects_unusable", message)
            .mend("write access_key_id = \"…\" and secret_access_key = \"…\" into it")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_may_have_any_name() {
        for (url, path) in [
            ("file:///srv/images", "/srv/images"),
            ("file:///my%20data/%C3%A4pfel", "/my data/äpfel"),
            ("file:///100%", "/100%"),
            ("file:///a%2", "/a%2"),
        ] {
            let config = Config {
                url: url.into(),
                ..Config::default()
            };
            assert_eq!(config.folder(), Some(path.into()));
        }
    }
}
