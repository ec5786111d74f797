//! Secrets stand in files, which are read whenever they are needed: so one that changes is used at once, and
//! none is in a definition, a log or an error.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

/// The largest file with a secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// `{ file = "token" }`, as it is written in a definition.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    file: PathBuf,
}

/// A secret can't be had now. It says which file, why, and what to do; never what stands in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file {} {why}", path.display())]
pub struct UnusableSecret {
    path: PathBuf,
    why: String,
    /// What to do about it.
    pub mend: &'static str,
}

impl SecretFile {
    /// The file, whose name is told from the folder of the definition.
    #[must_use]
    pub fn within(self, folder: &Path) -> PathBuf {
        folder.join(self.file)
    }
}

impl UnusableSecret {
    pub(crate) fn new(path: &Path, why: impl Into<String>, mend: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            why: why.into(),
            mend,
        }
    }
}

/// The text of a file, without the line feed at its end.
///
/// # Errors
///
/// As [`text`].
pub async fn line(path: &Path) -> Result<String, UnusableSecret> {
    let text = text(path).await?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The text of a file.
///
/// # Errors
///
/// If it can't be read, is no text, or is larger than any secret.
pub async fn text(path: &Path) -> Result<String, UnusableSecret> {
    let unreadable = |error: &dyn Display| {
        let why = format!("can't be read: {error}");
        UnusableSecret::new(path, why, "let the service read this file")
    };
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    let read = file.take(MAX_SECRET + 1).read_to_string(&mut text).await;
    read.map_err(|error| unreadable(&error))?;
    match text.len() as u64 > MAX_SECRET {
        false => Ok(text),
        true => Err(UnusableSecret::new(
            path,
            format!("is larger than {MAX_SECRET} bytes"),
            "name the file that has the secret and nothing else",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_no_secret_is_refused_and_never_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let whole = "k".repeat(MAX_SECRET as usize);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(text(&path).await.unwrap(), whole);
        for wrong in [format!("{whole}k").into_bytes(), vec![0xff, 0xfe]] {
            std::fs::write(&path, wrong).unwrap();
            let error = text(&path).await.unwrap_err().to_string();
            assert!(error.starts_with("the file /"), "{error}");
            assert!(!error.contains("kk"), "{error}");
        }
        let missing = text(&folder.path().join("none")).await.unwrap_err();
        assert!(missing.to_string().contains("none can't be read"));
    }
}
