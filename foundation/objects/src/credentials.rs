//! The credentials of an S3 store, out of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydrant_contracts::{Code, Error};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

/// Reads the file for each request, so that credentials can be changed while the service runs.
#[derive(Debug)]
pub(crate) struct FromFile(PathBuf);

/// The credentials in a file, which can be read now.
pub(crate) fn from(file: &Path) -> Result<Arc<FromFile>, Error> {
    read(file)?;
    Ok(Arc::new(FromFile(file.to_owned())))
}

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
