use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration as Time;

use hydrant_ports::EngineError;
use hydrant_runtime::{ByteSize, Duration};
use serde::Deserialize;

use crate::address::Address;
use crate::error::Failure;

/// How Redis is reached, and the limits of what is asked of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the servers are.
    #[serde(default)]
    pub mode: Mode,
    /// `host:port` of the server, of the Sentinels, or of some servers of the cluster.
    pub servers: Vec<String>,
    /// The name under which the Sentinels know the master. With Sentinel only.
    pub master: Option<String>,
    /// The user of an access control list; without it, Redis's default user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A file with the password; white space around it is cut off.
    pub password_file: Option<PathBuf>,
    /// The user at the Sentinels, where they ask for one.
    pub sentinel_user: Option<String>,
    /// The password at the Sentinels, where they ask for one.
    pub sentinel_password: Option<Secret>,
    /// A file with that password.
    pub sentinel_password_file: Option<PathBuf>,
    /// With it, all connections are encrypted, those to Sentinels too.
    pub tls: Option<Tls>,
    /// What all keys and channels begin with; fleets with different prefixes can share servers.
    #[serde(default = "defaults::prefix")]
    pub prefix: String,
    /// How long `connect` tries.
    #[serde(default = "defaults::connect_timeout")]
    pub connect_timeout: Duration,
    /// How long a request may take, with all its repeats and waits for a connection.
    #[serde(default = "defaults::request_timeout")]
    pub request_timeout: Duration,
    /// For how many replicas a write waits, of those that are connected; 0 for none.
    #[serde(default = "defaults::wait_replicas")]
    pub wait_replicas: usize,
    /// How long it waits for them.
    #[serde(default = "defaults::replica_timeout")]
    pub replica_timeout: Duration,
    /// Whether a write fails that the connected replicas did not confirm in that time (it has
    /// happened, and may be lost). Raising a mark always fails then.
    #[serde(default)]
    pub require_replicas: bool,
    /// How often the engine looks after the servers: keys whose time is over, messages that were
    /// lost, a server that was replaced.
    #[serde(default = "defaults::compare")]
    pub compare: Duration,
    /// How many requests are under way at a time; more wait.
    #[serde(default = "defaults::requests")]
    pub requests: usize,
    /// How many bytes of values are being written at a time; more wait.
    #[serde(default = "defaults::in_flight")]
    pub in_flight: ByteSize,
    /// How many watches there are at most.
    #[serde(default = "defaults::watchers")]
    pub watchers: usize,
    /// How many keys' and marks' epochs are remembered; see the crate's documentation.
    #[serde(default = "defaults::remember")]
    pub remember: usize,
}

/// What the servers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One server.
    #[default]
    Single,
    /// A master that Sentinels watch over, with its replicas.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// How connections are encrypted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The PEM file of the authorities that the servers' certificates come from.
    pub ca: PathBuf,
    /// The PEM file of this side's certificate, where the servers ask for one.
    pub certificate: Option<PathBuf>,
    /// The PEM file of its key.
    pub key: Option<PathBuf>,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user and a password, as they are shown to a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

impl Config {
    /// These servers, with the default limits.
    pub fn new(mode: Mode, servers: Vec<String>) -> Self {
        Self {
            mode,
            servers,
            master: None,
            user: None,
            password: None,
            password_file: None,
            sentinel_user: None,
            sentinel_password: None,
            sentinel_password_file: None,
            tls: None,
            prefix: defaults::prefix(),
            connect_timeout: defaults::connect_timeout(),
            request_timeout: defaults::request_timeout(),
            wait_replicas: defaults::wait_replicas(),
            replica_timeout: defaults::replica_timeout(),
            require_replicas: false,
            compare: defaults::compare(),
            requests: defaults::requests(),
            in_flight: defaults::in_flight(),
            watchers: defaults::watchers(),
            remember: defaults::remember(),
        }
    }

    /// Takes relative paths as below `folder`: that of the file they were written in.
    pub fn relative_to(&mut self, folder: &Path) {
        let Self {
            password_file,
            sentinel_password_file,
            tls,
            ..
        } = self;
        let files = password_file.iter_mut().chain(sentinel_password_file);
        let tls = tls.iter_mut();
        let pems = tls.flat_map(|tls| {
            let own = tls.certificate.iter_mut().chain(&mut tls.key);
            own.chain([&mut tls.ca])
        });
        for path in files.chain(pems) {
            *path = folder.join(&path);
        }
    }

    /// Fails when something contradicts itself or is not what it should be, and says what to
    /// write. Looks at no file, and asks no server.
    pub fn check(&self) -> Result<(), EngineError> {
        self.validate()?;
        Ok(())
    }

    /// The servers' addresses; fails when anything contradicts itself.
    pub(crate) fn validate(&self) -> Result<Vec<Address>, Failure> {
        let wrong = |message: &str| Err(Failure::lasting(message));
        if self.servers.is_empty() {
            return wrong("no Redis server is named: write `servers = [\"host:port\"]`");
        }
        match (self.mode, self.servers.len(), &self.master) {
            (Mode::Single, 2.., _) => {
                return wrong(
                    "several Redis servers are named: write `mode = \"sentinel\"` or `mode = \"cluster\"`, or name one",
                );
            }
            (Mode::Sentinel, _, None) => {
                return wrong(
                    "`mode = \"sentinel\"` asks for `master`: the name under which the Sentinels know it",
                );
            }
            (Mode::Single | Mode::Cluster, _, Some(_)) => {
                return wrong("`master` is for `mode = \"sentinel\"` only");
            }
            _ => {}
        }
        if self.prefix.len() > 64 || !self.prefix.bytes().all(is_plain) {
            return wrong(
                "`prefix` has at most 64 visible characters, without '{', '}', '*', '?', '[', ']' and '\\'",
            );
        }
        let times = [
            self.connect_timeout,
            self.request_timeout,
            self.replica_timeout,
            self.compare,
        ];
        if times.iter().any(|time| time.get().is_zero()) {
            return wrong("times of the Redis engine are longer than 0");
        }
        if self.replica_timeout >= self.request_timeout {
            return wrong("`replica_timeout` must be shorter than `request_timeout`");
        }
        if self.requests == 0 || self.remember == 0 || self.in_flight.get() < 8 << 20 {
            return wrong("`requests` and `remember` are 1 or more, `in_flight` 8MB or more");
        }
        let addresses = self.servers.iter().map(|text| text.parse());
        addresses.collect()
    }

    pub(crate) fn login(&self) -> Result<Login, Failure> {
        let password = secret("password", &self.password, &self.password_file)?;
        login("user", self.user.clone(), password)
    }

    pub(crate) fn sentinel_login(&self) -> Result<Login, Failure> {
        let password = secret(
            "sentinel_password",
            &self.sentinel_password,
            &self.sentinel_password_file,
        )?;
        login("sentinel_user", self.sentinel_user.clone(), password)
    }
}

/// Whether a byte stands for itself in keys, patterns and messages.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte)
}

fn login(name: &str, user: Option<String>, password: Option<Secret>) -> Result<Login, Failure> {
    match user.is_some() && password.is_none() {
        true => Err(Failure::lasting(format!(
            "`{name}` asks for a password too"
        ))),
        false => Ok(Login { user, password }),
    }
}

fn secret(
    name: &str,
    text: &Option<Secret>,
    file: &Option<PathBuf>,
) -> Result<Option<Secret>, Failure> {
    match (text, file) {
        (Some(_), Some(_)) => Err(Failure::lasting(format!(
            "`{name}` and `{name}_file` are both given: write one"
        ))),
        (None, Some(path)) => {
            let read = std::fs::read_to_string(path).map_err(|error| {
                let path = path.display();
                Failure::lasting(format!("can't read `{name}_file` {path}: {error}"))
            })?;
            Ok(Some(Secret::new(read.trim())))
        }
        (text, None) => Ok(text.clone()),
    }
}

mod defaults {
    use super::{ByteSize, Duration, Time};

    pub(super) fn prefix() -> String {
        "hydrant:".into()
    }

    pub(super) fn connect_timeout() -> Duration {
        Duration::new(Time::from_secs(10))
    }

    pub(super) fn request_timeout() -> Duration {
        Duration::new(Time::from_secs(2))
    }

    pub(super) fn wait_replicas() -> usize {
        1
    }

    pub(super) fn replica_timeout() -> Duration {
        Duration::new(Time::from_millis(500))
    }

    pub(super) fn compare() -> Duration {
        Duration::new(Time::from_secs(1))
    }

    pub(super) fn requests() -> usize {
        1024
    }

    pub(super) fn in_flight() -> ByteSize {
        ByteSize::new(64 << 20)
    }

    pub(super) fn watchers() -> usize {
        1 << 14
    }

    pub(super) fn remember() -> usize {
        1 << 16
    }
}
