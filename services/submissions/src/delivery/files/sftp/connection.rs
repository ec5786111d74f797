//! A connection: to a server that has proved who it is, by a user who has proved who it is.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key};
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{Packet, StatusCode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::told;
use crate::delivery::outcome::Failure;
use crate::forms::{HostKey, Login, Sftp};

/// How long a connection may take until it can be used.
const CONNECT: Duration = Duration::from_secs(15);
const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";

/// A connection that files can go through.
pub(in crate::delivery) struct Connection {
    pub(super) sftp: RawSftpSession,
    pub(super) has_posix_rename: bool,
    pub(super) has_fsync: bool,
    /// Where the folders of submissions are.
    folder: String,
    session: Handle<Pinned>,
}

/// Knows the keys that the server may have, and takes no other.
struct Pinned(Vec<HostKey>);

impl Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.0.iter().any(|known| is_same(known, key))
            }
            _ => false,
        })
    }
}

fn is_same(known: &HostKey, key: &PublicKey) -> bool {
    match known {
        HostKey::Key(known) => known.key_data() == key.key_data(),
        HostKey::Fingerprint(known) => *known == key.fingerprint(known.algorithm()),
    }
}

impl Connection {
    pub(super) async fn open(sftp: &Sftp) -> Result<Self, Failure> {
        timeout(CONNECT, connect(sftp))
            .await
            .unwrap_or_else(|_| Err(Failure::away("the server can't be reached in time")))
    }

    /// Whether the server still answers.
    pub(super) async fn is_well(&self) -> bool {
        !self.session.is_closed() && self.sftp.realpath(".").await.is_ok()
    }

    /// A path on the server.
    pub(super) fn path(&self, path: &str) -> String {
        match self.folder.as_str() {
            "" => path.to_owned(),
            "/" => format!("/{path}"),
            folder => format!("{folder}/{path}"),
        }
    }

    /// Renames at once, over whatever has the name.
    pub(super) async fn posix_rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        let mut names = Vec::new();
        for name in [from, to] {
            names.extend_from_slice(&(name.len() as u32).to_be_bytes());
            names.extend_from_slice(name.as_bytes());
        }
        match self
            .sftp
            .extended(POSIX_RENAME, names)
            .await
            .map_err(told)?
        {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(told(status.into())),
            _ => Err(Failure::failing(
                "the server answered a rename with something else",
            )),
        }
    }
}

async fn connect(sftp: &Sftp) -> Result<Connection, Failure> {
    let stream = TcpStream::connect((sftp.host.as_str(), sftp.port)).await;
    let stream = stream
        .map_err(|error| Failure::away(format!("the server can't be reached: {}", error.kind())))?;
    let _ = stream.set_nodelay(true);
    let config = client::Config {
        keepalive_interval: Some(sftp.keep_alive),
        ..Default::default()
    };
    let pinned = Pinned(sftp.host_keys.clone());
    let session = client::connect_stream(Arc::new(config), stream, pinned).await;
    let mut session = session.map_err(|error| refused(&error))?;
    log_in(&mut session, sftp).await?;
    let channel = session.channel_open_session().await.map_err(broken)?;
    channel
        .request_subsystem(true, "sftp")
        .await
        .map_err(broken)?;
    let config = Config {
        request_timeout_secs: sftp.timeout.as_secs(),
        ..Default::default()
    };
    let raw = RawSftpSession::new_with_config(channel.into_stream(), config);
    let version = raw.init().await.map_err(told)?;
    let has = |name| {
        version
            .extensions
            .get(name)
            .is_some_and(|known| known == "1")
    };
    Ok(Connection {
        has_posix_rename: has(POSIX_RENAME),
        has_fsync: has(FSYNC),
        sftp: raw,
        folder: sftp.folder.clone(),
        session,
    })
}

async fn log_in(session: &mut Handle<Pinned>, sftp: &Sftp) -> Result<(), Failure> {
    let user = sftp.user.as_str();
    let answer = match &sftp.login {
        Login::Password(path) => {
            let password = hydrant_outbound::line(path).await?;
            session.authenticate_password(user, password).await
        }
        Login::Key { key, passphrase } => {
            let passphrase = match passphrase {
                Some(path) => Some(hydrant_outbound::line(path).await?),
                None => None,
            };
            let text = hydrant_outbound::text(key).await?;
            let unreadable = || Failure::ours(format!("the key {} can't be used", key.display()));
            let key = decode_secret_key(&text, passphrase.as_deref());
            let key = Arc::new(key.map_err(|_| unreadable())?);
            let hash = session.best_supported_rsa_hash().await.map_err(broken)?;
            let key = PrivateKeyWithHashAlg::new(key, hash.flatten());
            session.authenticate_publickey(user, key).await
        }
    };
    match answer.map_err(broken)? {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { .. } => Err(Failure::away("the server does not let this user in")),
    }
}

/// A server that is not the one that is known gets nothing, not even who wants to log in.
fn refused(error: &russh::Error) -> Failure {
    match error {
        russh::Error::UnknownKey => Failure::away(
            "the server's key is none of `host_key`: it may be another server that pretends to be this one",
        ),
        _ => Failure::away("the server and this one can't agree how to speak"),
    }
}

fn broken(_: russh::Error) -> Failure {
    Failure::away("the connection to the server broke")
}
