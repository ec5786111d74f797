use std::fmt;

use hydrant_ports::{EngineError, ErrorKind};
use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};

use crate::address::Address;

/// Why a server can't be used.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    message: String,
    kind: ErrorKind,
    /// No repeat helps: somebody must mend the configuration or the server.
    pub(crate) is_lasting: bool,
}

impl Failure {
    pub(crate) fn lasting(message: impl Into<String>) -> Self {
        Self {
            is_lasting: true,
            ..Self::passing(message)
        }
    }

    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: ErrorKind::Unavailable,
            is_lasting: false,
        }
    }

    pub(crate) fn closed() -> Self {
        Self {
            kind: ErrorKind::Closed,
            ..Self::lasting("the connection to Redis is closed")
        }
    }

    fn too_large(message: String) -> Self {
        Self {
            kind: ErrorKind::TooLarge,
            ..Self::passing(message)
        }
    }

    /// What the server at `address` said to the first words of a connection.
    pub(crate) fn of(address: &Address, error: &RedisError) -> Self {
        let told = told(error);
        let is_refused = told.contains("WRONGPASS") || told.contains("NOAUTH");
        let is_login = is_refused || error.kind() == RedisKind::AuthenticationFailed;
        if is_login {
            return Self::lasting(format!(
                "Redis at {address} does not accept user and password: check `user`, `password` and `password_file` ({told})"
            ));
        }
        if is_no_permission(error) {
            return Self::lasting(format!(
                "the Redis user lacks a permission at {address}: see the rules in the documentation of this engine ({told})"
            ));
        }
        if told.contains("CertificateRequired") {
            return Self::lasting(format!(
                "Redis at {address} asks for a certificate: write `tls.certificate` and `tls.key` ({told})"
            ));
        }
        let mend = match error.is_io_error() {
            true => " (does `tls` fit the server?)",
            false => "",
        };
        Self::passing(format!("Redis at {address} does not answer: {told}{mend}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure.message)
    }
}

/// What becomes of a request that a server answered with an error.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It lacks the script: send it in full.
    NoScript,
    /// The partition is at another server now; nothing happened.
    Moved(Option<Address>),
    /// Nothing happened, and it may later.
    NotNow,
    /// The connection broke: whether it happened is not known.
    Lost,
    /// It was refused for good.
    Refused(Failure),
}

pub(crate) fn verdict(error: &RedisError) -> Verdict {
    let told = told(error);
    match error.kind() {
        RedisKind::Server(ServerErrorKind::NoScript) => Verdict::NoScript,
        RedisKind::Server(ServerErrorKind::Moved) => {
            let to = error.redirect_node().and_then(|(to, _)| to.parse().ok());
            Verdict::Moved(to)
        }
        RedisKind::Server(
            ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading,
        ) => Verdict::NotNow,
        RedisKind::Server(ServerErrorKind::ReadOnly) => Verdict::Moved(None),
        // A slot that is being moved: its keys are at two servers.
        _ if told.contains("non local key") => Verdict::NotNow,
        _ if told.contains("READONLY") => Verdict::Moved(None),
        _ if told.contains("OOM ") => Verdict::Refused(Failure::too_large(format!(
            "Redis has no room left: raise its `maxmemory`, or delete keys ({told})"
        ))),
        _ if is_no_permission(error) => Verdict::Refused(Failure::lasting(format!(
            "the Redis user lacks a permission: see the rules in the documentation of the engine ({told})"
        ))),
        RedisKind::Io | RedisKind::Parse => Verdict::Lost,
        _ => Verdict::Refused(Failure::passing(format!("Redis refused a request: {told}"))),
    }
}

fn is_no_permission(error: &RedisError) -> bool {
    error.kind() == RedisKind::Server(ServerErrorKind::NoPerm)
        || error.to_string().contains("NOPERM")
        || error.to_string().contains("ACL failure")
}

/// An error of the server or the connection as text, at most 300 characters of it.
fn told(error: &RedisError) -> String {
    let text = error.to_string();
    text.chars()
        .take(300)
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_debug().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect()
}

pub(crate) fn unavailable(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Unavailable, message)
}

pub(crate) fn closed() -> EngineError {
    Failure::closed().into()
}

pub(crate) fn corrupt(what: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Corrupt,
        format!("Redis answered what this engine has not written: {what}"),
    )
}
