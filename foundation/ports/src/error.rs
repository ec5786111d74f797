use hydrant_contracts::{Code, Error};

/// What went wrong in an engine. The engine alone decides whether a repeat may help.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub message: String,
    /// What lies below it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The engine can't be reached or does not answer; a repeat may help. The write may have
    /// happened.
    Unavailable,
    /// The key is not what the write expected; read again.
    Conflict,
    /// A higher epoch is known: the writer has been superseded, for good.
    Superseded {
        /// The highest epoch that is known.
        known: u64,
    },
    /// The session, the seat or the engine is closed.
    Closed,
    /// The value or the number of keys is over the limit.
    TooLarge,
    /// The stored data is damaged, or the engine broke its promise.
    Corrupt,
}

impl EngineError {
    /// An error of `kind` that nothing lies below.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Says what lies below it.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let (code, reason) = match error.kind {
            ErrorKind::Unavailable => (Code::Unavailable, "engine_unavailable"),
            ErrorKind::Conflict => (Code::Aborted, "conflict"),
            ErrorKind::Superseded { .. } => (Code::FailedPrecondition, "superseded"),
            ErrorKind::Closed => (Code::Unavailable, "closed"),
            ErrorKind::TooLarge => (Code::InvalidArgument, "too_large"),
            ErrorKind::Corrupt => (Code::DataLoss, "corrupt"),
        };
        Error::new(code, reason, error.message)
    }
}

impl From<crate::InvalidKey> for EngineError {
    fn from(error: crate::InvalidKey) -> Self {
        Self::new(ErrorKind::Corrupt, "a stored key is not valid").caused_by(error)
    }
}
