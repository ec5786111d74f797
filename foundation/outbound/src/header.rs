use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::secret::{SecretFile, UnusableSecret, line};

/// Headers that HTTP makes.
const OF_HTTP: [&str; 7] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
];

/// Headers that carry secrets.
const SECRET: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
];

/// A header's value, as it is written in a definition: a text, or a file with a secret.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum HeaderText {
    /// What everybody may read.
    Plain(String),
    /// What stands in a file.
    File(SecretFile),
}

/// A header that goes with each request.
#[derive(Clone, Debug)]
pub struct Header {
    name: HeaderName,
    value: Text,
}

#[derive(Clone, Debug)]
enum Text {
    Plain(HeaderValue),
    File(PathBuf),
}

/// Who asks, as it is written in a definition: `{ user = "NAME", password = { file = "FILE" } }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsTable {
    user: String,
    password: SecretFile,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The file with a token.
    Bearer(PathBuf),
    /// A name, and the file with its password.
    Basic {
        /// The name.
        user: String,
        /// The file.
        password: PathBuf,
    },
}

impl Header {
    /// A header of a definition in `folder`; `ours` are names, in small letters, that who asks sets itself.
    ///
    /// # Errors
    ///
    /// What is wrong with it, to be told behind the name of what has it.
    pub fn checked(
        name: &str,
        text: HeaderText,
        ours: &[&str],
        folder: &Path,
    ) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("has a header `{}` {why}", name.escape_debug()));
        let Ok(known) = HeaderName::try_from(name) else {
            return refuse("with a name that can't be");
        };
        if OF_HTTP.contains(&known.as_str()) || ours.contains(&known.as_str()) {
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

impl Credentials {
    /// The one way of a definition in `folder` to say who asks, if it has any.
    ///
    /// # Errors
    ///
    /// If it has both.
    pub fn checked(
        bearer: Option<SecretFile>,
        basic: Option<CredentialsTable>,
        folder: &Path,
    ) -> Result<Option<Self>, String> {
        match (bearer, basic) {
            (None, None) => Ok(None),
            (Some(token), None) => Ok(Some(Self::Bearer(token.within(folder)))),
            (None, Some(basic)) => Ok(Some(Self::Basic {
                user: basic.user,
                password: basic.password.within(folder),
            })),
            (Some(_), Some(_)) => Err("has both `bearer` and `basic`: it takes one".into()),
        }
    }
}

/// The headers that a definition names, with what proves who asks.
///
/// # Errors
///
/// If a secret can't be had, or is none that a header can carry.
pub async fn headers(
    headers: &[Header],
    credentials: Option<&Credentials>,
) -> Result<HeaderMap, UnusableSecret> {
    let mut map = HeaderMap::new();
    for header in headers {
        let value = match &header.value {
            Text::Plain(value) => value.clone(),
            Text::File(path) => secret(&line(path).await?, path)?,
        };
        map.insert(header.name.clone(), value);
    }
    match credentials {
        Some(Credentials::Bearer(path)) => {
            map.insert(AUTHORIZATION, authorization("Bearer", path).await?);
        }
        Some(Credentials::Basic { user, password }) => {
            let pair = STANDARD.encode(format!("{user}:{}", line(password).await?));
            map.insert(AUTHORIZATION, secret(&format!("Basic {pair}"), password)?);
        }
        None => {}
    }
    Ok(map)
}

/// A value of `Authorization`: the scheme, and the secret of a file.
///
/// # Errors
///
/// If the secret can't be had, or is none that a header can carry.
pub async fn authorization(scheme: &str, path: &Path) -> Result<HeaderValue, UnusableSecret> {
    secret(&format!("{scheme} {}", line(path).await?), path)
}

/// A value that is never shown.
fn secret(text: &str, path: &Path) -> Result<HeaderValue, UnusableSecret> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let mend = "write the secret on one line, and nothing else";
        UnusableSecret::new(path, "has characters that no header has", mend)
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
        assert!(ask().await.unwrap_err().to_string().contains("token"));
        for text in ["canary-1", "canary-2"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            let map = ask().await.unwrap();
            assert_eq!(map["authorization"], format!("Bearer {text}").as_str());
            assert!(!format!("{map:?}").contains("canary"));
        }
        std::fs::write(&path, "canary\nother").unwrap();
        let unusable = ask().await.unwrap_err();
        assert!(!format!("{unusable:?}").contains("canary"), "{unusable:?}");
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

    #[test]
    fn a_definition_sets_no_header_of_http_or_of_who_asks_and_shows_no_secret() {
        let check = |name: &str, text: &str| {
            Header::checked(
                name,
                HeaderText::Plain(text.into()),
                &["if-none-match"],
                Path::new("/"),
            )
        };
        check("x-from", "shop").unwrap();
        for (name, text, why) in [
            ("Host", "a", "may not set"),
            ("If-None-Match", "a", "may not set"),
            ("authorization", "canary", "{ file"),
            ("a b", "a", "name that can't be"),
            ("x-a", "a\nb", "value that can't be"),
        ] {
            let refused = check(name, text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(!refused.contains("canary"), "{refused}");
        }
    }
}
