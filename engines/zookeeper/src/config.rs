use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration as StdDuration;

use hydrant_runtime::{ByteSize, Duration};
use serde::Deserialize;

use crate::error::{Result, misconfigured};

/// How an ensemble is reached, and what may be asked of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The servers of the ensemble, each `host:port`.
    pub servers: Vec<String>,
    /// The znode below which everything is kept. It is made if it is not there.
    #[serde(default = "default_chroot")]
    pub chroot: String,
    /// The least and the most a session's time to live may be, and that of the engine's own
    /// session, by which it reads and watches. The ensemble has bounds of its own beside these.
    #[serde(default)]
    pub session: SessionTimes,
    /// How long to wait for a session when one is opened.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// As whom to speak. Without a user, the ensemble sees anybody.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Password>,
    /// A file whose first line is the user's password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Who may read and write what this engine makes. By default its own user, if it has one.
    #[serde(default)]
    pub access: Option<Access>,
    /// Encrypts the connections. Without it they are plain.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// A file that remembers the highest era, so that epochs grow also when the ensemble was
    /// rebuilt from nothing by a machine whose clock was set back. Without it the engine's memory
    /// has to do.
    #[serde(default)]
    pub era_file: Option<PathBuf>,
    /// What may be asked of the ensemble at once.
    #[serde(default)]
    pub limits: Limits,
}

/// Times to live of sessions.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionTimes {
    /// The least; a shorter one is raised to it.
    pub min: Duration,
    /// The most; a longer one is cut to it.
    pub max: Duration,
    /// That of the engine's own session.
    pub own: Duration,
}

impl Default for SessionTimes {
    fn default() -> Self {
        Self {
            min: Duration::new(StdDuration::from_secs(2)),
            max: Duration::new(StdDuration::from_secs(60)),
            own: Duration::new(StdDuration::from_secs(10)),
        }
    }
}

/// Who may read and write what an engine makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Anybody who reaches the ensemble.
    Open,
    /// The user who made it.
    Creator,
}

/// How connections are encrypted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificates of the authorities that the servers' certificates must come from.
    pub ca: PathBuf,
    /// The certificate to show, for an ensemble that asks for one.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Whether a server's certificate must name the host that was asked for.
    #[serde(default = "yes")]
    pub verify_host: bool,
}

/// What may be asked of the ensemble at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest value. At most 256KB.
    pub value: ByteSize,
    /// How many watch.
    pub watches: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How many requests of one session are on their way.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value: ByteSize::new(hydrant_ports::coordination::MAX_VALUE as u64),
            watches: 4096,
            request_timeout: Duration::new(StdDuration::from_secs(5)),
            in_flight: 64,
        }
    }
}

/// A password, which is not shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// The password `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn default_chroot() -> String {
    "/hydrant".into()
}

fn default_connect_timeout() -> Duration {
    Duration::new(StdDuration::from_secs(10))
}

fn yes() -> bool {
    true
}

impl Config {
    /// An ensemble at `servers`, with the default limits.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            chroot: default_chroot(),
            session: SessionTimes::default(),
            connect_timeout: default_connect_timeout(),
            user: None,
            password: None,
            password_file: None,
            access: None,
            tls: None,
            era_file: None,
            limits: Limits::default(),
        }
    }

    /// Takes relative paths as below `folder`: that of the file they were written in.
    pub fn relative_to(&mut self, folder: &Path) {
        let tls = self.tls.iter_mut();
        let pems = tls.flat_map(|tls| {
            [
                Some(&mut tls.ca),
                tls.certificate.as_mut(),
                tls.key.as_mut(),
            ]
        });
        let files = [self.password_file.as_mut(), self.era_file.as_mut()];
        for path in pems.chain(files).flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Fails when something contradicts itself or is not what it should be, and says what to
    /// write. Looks at no file, and asks no server.
    pub fn check(&self) -> Result<()> {
        if self.servers.is_empty() {
            return Err(misconfigured(
                "`servers` is empty: name the servers of the ensemble, as [\"127.0.0.1:2181\"]",
            ));
        }
        for server in &self.servers {
            let port = server.rsplit_once(':').map(|(_, port)| port);
            let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
            if !is_port || server.contains(['/', ',']) {
                return Err(misconfigured(format!(
                    "`{server}` is not a server: write host:port, as 127.0.0.1:2181"
                )));
            }
        }
        let name = self.chroot.strip_prefix('/').unwrap_or_default();
        if name.parse::<hydrant_ports::Key>().is_err()
            || name.split('/').next() == Some("zookeeper")
        {
            return Err(misconfigured(format!(
                "`{}` is not a chroot: write a path that begins with a slash and does not end with one, as /hydrant",
                self.chroot
            )));
        }
        if self.session.min > self.session.max {
            return Err(misconfigured("`session.min` is above `session.max`"));
        }
        let limits = &self.limits;
        if limits.in_flight == 0 || limits.request_timeout.get().is_zero() {
            return Err(misconfigured(
                "`limits.in_flight` and `limits.request_timeout` must be above 0",
            ));
        }
        if self.access == Some(Access::Creator) && self.user.is_none() {
            return Err(misconfigured(
                "`access = \"creator\"` needs a `user`: without one the ensemble does not know who made what",
            ));
        }
        if self.user.is_some() == (self.password.is_none() && self.password_file.is_none()) {
            return Err(misconfigured(
                "a `user` needs a `password` or a `password_file`, and these need a `user`",
            ));
        }
        let tls = self.tls.as_ref();
        if tls.is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return Err(misconfigured("`tls.certificate` and `tls.key` go together"));
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(misconfigured("a `user` has no colon in its name"));
        }
        Ok(())
    }

    /// The largest value, in bytes.
    pub(crate) fn max_value(&self) -> usize {
        (self.limits.value.get() as usize).min(hydrant_ports::coordination::MAX_VALUE)
    }

    pub(crate) fn session_ttl(&self, wanted: StdDuration) -> StdDuration {
        wanted.clamp(self.session.min.get(), self.session.max.get())
    }

    pub(crate) fn access(&self) -> Access {
        let default = match self.user {
            Some(_) => Access::Creator,
            None => Access::Open,
        };
        self.access.unwrap_or(default)
    }

    /// `user:password`, as the scheme `digest` wants it.
    pub(crate) fn credentials(&self) -> Result<Option<Vec<u8>>> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        let password = match (&self.password, &self.password_file) {
            (Some(Password(password)), _) => password.clone(),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    misconfigured(format!("cannot read the password file {}", file.display()))
                        .caused_by(error)
                })?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            (None, None) => String::new(),
        };
        Ok(Some(format!("{user}:{password}").into_bytes()))
    }
}
