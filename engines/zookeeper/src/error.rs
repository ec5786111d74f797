//! What the ensemble refuses, in the words of the port.

use hydrant_ports::{EngineError, ErrorKind};
use zookeeper_client::Error as ZkError;

pub(crate) type Result<T, E = EngineError> = std::result::Result<T, E>;

/// The configuration can't work.
pub(crate) fn misconfigured(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Closed, message)
}

pub(crate) fn closed() -> EngineError {
    EngineError::new(
        ErrorKind::Closed,
        "the session with ZooKeeper is closed or lost",
    )
}

pub(crate) fn unavailable(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Unavailable, message)
}

pub(crate) fn conflict(what: &dyn std::fmt::Display, why: &str) -> EngineError {
    EngineError::new(ErrorKind::Conflict, format!("`{what}` {why}"))
}

pub(crate) fn corrupt(path: &str, why: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Corrupt,
        format!("the znode {path} {why}: was it written by another program?"),
    )
}

/// What `error` means to who asked for `what`.
pub(crate) fn of_request(what: &str, error: ZkError) -> EngineError {
    let (kind, message) = match &error {
        ZkError::SessionExpired | ZkError::ClientClosed => return closed().caused_by(error),
        ZkError::NoAuth | ZkError::AuthFailed | ZkError::InvalidAcl => (
            ErrorKind::Unavailable,
            format!(
                "ZooKeeper refuses to {what}: user, password or the access list of the znodes do not fit"
            ),
        ),
        ZkError::ConnectionLoss => (
            ErrorKind::Unavailable,
            format!("the connection with ZooKeeper was lost while it should {what}"),
        ),
        ZkError::UnmarshalError { .. } => (
            ErrorKind::Corrupt,
            format!("ZooKeeper's answer is not understood while it should {what}"),
        ),
        ZkError::NoChildrenForEphemerals | ZkError::BadArguments(_) => (
            ErrorKind::Corrupt,
            format!("ZooKeeper cannot {what}: a znode is in the way"),
        ),
        _ => (
            ErrorKind::Unavailable,
            format!("ZooKeeper does not {what} now"),
        ),
    };
    EngineError::new(kind, format!("{message} ({error})"))
}

/// Nobody knows whether a write that failed so has happened.
pub(crate) fn is_unknown(error: &ZkError) -> bool {
    !matches!(
        error,
        ZkError::NoNode
            | ZkError::NoAuth
            | ZkError::BadVersion
            | ZkError::NoChildrenForEphemerals
            | ZkError::NodeExists
            | ZkError::NotEmpty
            | ZkError::InvalidAcl
            | ZkError::AuthFailed
            | ZkError::SessionExpired
            | ZkError::ClientClosed
            | ZkError::BadArguments(_)
    )
}
