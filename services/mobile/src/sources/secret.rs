//! What a request says about who asks. Secrets stand in files, which are read for each request: so
//! one that changes is used at once, and none is in a definition, a log or an error.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use crate::sources::snapshot::Failure;

/// The largest file with a secret, in bytes.
const MAX_SECRET: u64 = 16 * 1024;

/// Headers that are made by the poller itself, or by HTTP.
const OURS: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "accept-encoding",
    "if-none-match",
    "if-modified-since",
    "hydrant-token",
];

/// Headers that carry secrets.
const SECRET: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
];

/// A header's value, as it is written in a definition.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum HeaderText {
    Plain(String),
    File(PasswordFile),
}

/// `{ file = "token" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordFile {
    file: PathBuf,
}

/// A header that goes with each request.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    name: HeaderName,
    value: Text,
}

#[derive(Clone, Debug)]
enum Text {
    Plain(HeaderValue),
    File(PathBuf),
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    Bearer(PathBuf),
    Basic { user: String, password: PathBuf },
}

impl PasswordFile {
    pub(crate) fn within(self, folder: &Path) -> PathBuf {
        folder.join(self.file)
    }
}

impl Header {
    pub(crate) fn check(name: &str, text: HeaderText, folder: &Path) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("has a header `{}` {why}", name.escape_debug()));
        let Ok(known) = HeaderName::try_from(name) else {
            return refuse("with a name that can't be");
        };
        if OURS.contains(&known.as_str()) {
            return refuse("that it may not set");
        }
        let value = match text {
            HeaderText::File(file) => Text::File(file.within(folder)),
            HeaderText::Plain(_) if SECRET.contains(&known.as_str()) => {
                return refuse("with a secret in it; write { file = \"FILE\" }");
            }
            HeaderText::Plain(text) => match HeaderValue::try_from(text) {
                Ok(value) => Text::Plain(value),
                Err(_) => return refuse("with a value that can't be"),
            },
        };
        Ok(Self { name: known, value })
    }
}

/// All that goes with a request to the source's own place, and to no other.
pub(crate) async fn headers(
    headers: &[Header],
    credentials: Option<&Credentials>,
) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    for header in headers {
        let value = match &header.value {
            Text::Plain(value) => value.clone(),
            Text::File(path) => secret(&read(path).await?, path)?,
        };
        map.insert(header.name.clone(), value);
    }
    match credentials {
        Some(Credentials::Bearer(path)) => {
            let text = format!("Bearer {}", read(path).await?);
            map.insert(AUTHORIZATION, secret(&text, path)?);
        }
        Some(Credentials::Basic { user, password }) => {
            let pair = STANDARD.encode(format!("{user}:{}", read(password).await?));
            map.insert(AUTHORIZATION, secret(&format!("Basic {pair}"), password)?);
        }
        None => {}
    }
    Ok(map)
}

/// The text of a file, without the line feed at its end.
async fn read(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let reason = format!("the file {} can't be read: {error}", path.display());
        Failure::new(reason, "let service/mobile read this file")
    };
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    file.take(MAX_SECRET)
        .read_to_string(&mut text)
        .await
        .map_err(|error| unreadable(&error))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn secret(text: &str, path: &Path) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let reason = format!(
            "the file {} has characters that no header has",
            path.display()
        );
        Failure::new(reason, "write the secret on one line, and nothing else")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_that_changes_is_used_at_once_and_is_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credentials = Credentials::Bearer(path.clone());
        let ask = async || headers(&[], Some(&credentials)).await;
        assert!(ask().await.unwrap_err().reason.contains("token"));
        for text in ["canary-1", "canary-2"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            let map = ask().await.unwrap();
            assert_eq!(map["authorization"], format!("Bearer {text}").as_str());
            assert!(!format!("{map:?}").contains("canary"));
        }
        std::fs::write(&path, "canary\nother").unwrap();
        let failure = ask().await.unwrap_err();
        assert!(!failure.reason.contains("canary"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_user_and_a_password_become_basic_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "pass").unwrap();
        let user = "user".into();
        let credentials = Credentials::Basic { user, password };
        let map = headers(&[], Some(&credentials)).await.unwrap();
        assert_eq!(map["authorization"], "Basic dXNlcjpwYXNz");
    }
}
