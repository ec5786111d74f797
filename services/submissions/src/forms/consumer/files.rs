//! Consumers that get files: a server of SFTP, or a folder.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use hydrant_outbound::SecretFile;
use russh::keys::PublicKey;
use russh::keys::ssh_key::Fingerprint;
use serde::Deserialize;

use super::flow::FlowTable;
use super::{Consumer, Place, Unknown, refuse_unknown};
use crate::forms::Around;
use crate::forms::template::Template;

/// The name of a submission's folder, when the definition does not say.
const NAME: &str = "{date}/{id}";
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const PORT: u16 = 22;
/// The most keys that a server may have.
const MAX_HOST_KEYS: usize = 8;

/// A folder of this server.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// The folder of one submission, within it.
    pub(crate) name: Template,
}

/// A server of SFTP.
#[derive(Debug)]
pub(crate) struct Sftp {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// The keys by which the server may prove who it is.
    pub(crate) host_keys: Vec<HostKey>,
    pub(crate) login: Login,
    /// Where the folders of submissions are; where the server puts the user when empty.
    pub(crate) folder: String,
    /// The folder of one submission, within it.
    pub(crate) name: Template,
    /// How long the server may be silent.
    pub(crate) timeout: Duration,
    pub(crate) keep_alive: Duration,
}

/// A key of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostKey {
    Fingerprint(Fingerprint),
    Key(Box<PublicKey>),
}

/// How a user proves who it is.
#[derive(Debug)]
pub(crate) enum Login {
    Password(PathBuf),
    Key {
        key: PathBuf,
        passphrase: Option<PathBuf>,
    },
}

#[derive(Deserialize)]
pub(in crate::forms) struct FolderTable {
    path: PathBuf,
    name: Option<String>,
    #[serde(flatten)]
    flow: FlowTable,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
pub(in crate::forms) struct SftpTable {
    host: String,
    port: Option<u16>,
    user: String,
    host_key: HostKeys,
    key: Option<SecretFile>,
    passphrase: Option<SecretFile>,
    password: Option<SecretFile>,
    #[serde(default)]
    folder: String,
    name: Option<String>,
    timeout: Option<hydrant_runtime::Duration>,
    keep_alive: Option<hydrant_runtime::Duration>,
    #[serde(flatten)]
    flow: FlowTable,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HostKeys {
    One(String),
    Many(Vec<String>),
}

impl FolderTable {
    pub(super) fn checked(self, around: &Around<'_>) -> Result<Consumer, String> {
        refuse_unknown(&self.unknown)?;
        let folder = Folder {
            path: around.folder.join(self.path),
            name: name(self.name.as_deref())?,
        };
        Ok(Consumer {
            place: Place::Folder(folder),
            flow: self.flow.checked()?,
        })
    }
}

impl SftpTable {
    pub(super) fn checked(self, around: &Around<'_>) -> Result<Consumer, String> {
        refuse_unknown(&self.unknown)?;
        let is_word = |text: &str| {
            let is_bad = |letter: char| letter.is_control() || letter.is_whitespace();
            !text.is_empty() && text.len() <= 255 && !text.contains(is_bad)
        };
        if !is_word(&self.host) || !is_word(&self.user) {
            return Err("has no good `host` or `user`".into());
        }
        let sftp = Sftp {
            host: self.host,
            port: self.port.unwrap_or(PORT),
            user: self.user,
            host_keys: self.host_key.checked()?,
            login: login(self.key, self.passphrase, self.password, around.folder)?,
            folder: remote_folder(&self.folder)?,
            name: name(self.name.as_deref())?,
            timeout: within("timeout", self.timeout, TIMEOUT, TIMEOUTS)?,
            keep_alive: within("keep_alive", self.keep_alive, KEEP_ALIVE, KEEP_ALIVES)?,
        };
        Ok(Consumer {
            place: Place::Sftp(Box::new(sftp)),
            flow: self.flow.checked()?,
        })
    }
}

impl HostKeys {
    fn checked(self) -> Result<Vec<HostKey>, String> {
        let texts = match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        };
        if !(1..=MAX_HOST_KEYS).contains(&texts.len()) {
            return Err(format!("has not 1 to {MAX_HOST_KEYS} of `host_key`"));
        }
        texts.iter().map(|text| host_key(text)).collect()
    }
}

fn host_key(text: &str) -> Result<HostKey, String> {
    let text = text.trim();
    if let Ok(fingerprint) = Fingerprint::from_str(text) {
        return Ok(HostKey::Fingerprint(fingerprint));
    }
    PublicKey::from_openssh(text)
        .map(|key| HostKey::Key(Box::new(key)))
        .map_err(|_| {
            "has a `host_key` that is neither a fingerprint nor a key; write what \
             `ssh-keygen -lf` shows, as \"SHA256:…\", or a line as \"ssh-ed25519 AAAA…\""
                .into()
        })
}

fn login(
    key: Option<SecretFile>,
    passphrase: Option<SecretFile>,
    password: Option<SecretFile>,
    folder: &Path,
) -> Result<Login, String> {
    match (key, password) {
        (Some(key), None) => Ok(Login::Key {
            key: key.within(folder),
            passphrase: passphrase.map(|file| file.within(folder)),
        }),
        (None, Some(_)) if passphrase.is_some() => Err("has a `passphrase`, but no `key`".into()),
        (None, Some(password)) => Ok(Login::Password(password.within(folder))),
        _ => Err(
            "has not exactly one of `key` and `password`; write key = { file = \"FILE\" }".into(),
        ),
    }
}

fn remote_folder(folder: &str) -> Result<String, String> {
    let is_bad = |letter: char| letter.is_control() || letter == '\\';
    if folder.len() > 1024 || folder.contains(is_bad) || folder.split('/').any(|part| part == "..")
    {
        return Err("has a `folder` with \"..\", control characters or backslashes".into());
    }
    match folder.trim_end_matches('/') {
        "" if folder.starts_with('/') => Ok("/".into()),
        folder => Ok(folder.into()),
    }
}

/// The folder of a submission: its own, so the id is in its name.
fn name(text: Option<&str>) -> Result<Template, String> {
    let refused = |why: String| format!("has a `name` that {why}");
    let template = Template::parse(text.unwrap_or(NAME)).map_err(refused)?;
    template.check_path().map_err(refused)?;
    Ok(template)
}

fn within(
    name: &str,
    time: Option<hydrant_runtime::Duration>,
    usual: Duration,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let time = time.map_or(usual, |time| time.get());
    match range.contains(&time) {
        true => Ok(time),
        false => Err(format!("has a `{name}` that is not from 1s to 5m")),
    }
}
