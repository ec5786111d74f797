//! Secrets stand in files, which are read whenever they are needed: so one that changes is used at once, and
//! none is in a definition, a log or an error.

use std::fmt::Display;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::io::AsyncReadExt as _;

use super::outcome::Failure;
use crate::forms::{Credentials, Header, HeaderText};

/// The largest file with a secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// The headers that a definition names, with what proves who sends.
pub(super) async fn headers(
    headers: &[Header],
    credentials: Option<&Credentials>,
) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    for header in headers {
        let value = match &header.value {
            HeaderText::Plain(value) => value.clone(),
            HeaderText::File(path) => secret(&line(path).await?, path)?,
        };
        map.insert(header.name.clone(), value);
    }
    match credentials {
        Some(Credentials::Bearer(path)) => {
            let text = format!("Bearer {}", line(path).await?);
            map.insert(AUTHORIZATION, secret(&text, path)?);
        }
        Some(Credentials::Basic { user, password }) => {
            let pair = STANDARD.encode(format!("{user}:{}", line(password).await?));
            map.insert(AUTHORIZATION, secret(&format!("Basic {pair}"), password)?);
        }
        None => {}
    }
    Ok(map)
}

/// The text of a file, without the line feed at its end.
pub(super) async fn line(path: &Path) -> Result<String, Failure> {
    let text = text(path).await?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The text of a file.
pub(super) async fn text(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: &dyn Display| {
        let path = path.display();
        Failure::ours(format!(
            "the file {path} can't be read by orchestration/delivery: {error}"
        ))
    };
    let file = tokio::fs::File::open(path).await;
    let file = file.map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    let read = file.take(MAX_SECRET).read_to_string(&mut text).await;
    read.map_err(|error| unreadable(&error))?;
    Ok(text)
}

fn secret(text: &str, path: &Path) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let path = path.display();
        Failure::ours(format!(
            "the file {path} has characters that no header has: write the secret on one line"
        ))
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
}
