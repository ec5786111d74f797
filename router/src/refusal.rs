use std::borrow::Cow;
use std::fmt;

use hydrant_contracts::{Code, Error, Fault};

/// Why the router answers a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The service answers no such path.
    NoSuchEndpoint,
    /// No such service is registered.
    NoSuchService,
    /// More than one service answers the bare method.
    AmbiguousMethod,
    /// The caller's tier may not call there.
    TierRefused,
    /// The token was not made by this node.
    InvalidToken,
    /// Instances are registered, and none of them answers.
    NoHealthyInstance,
    /// The service is known, and none of its instances is ready.
    NoInstance,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// A limit of the router is reached.
    Overloaded,
    /// The request is malformed.
    BadRequest,
    /// The head of the request is larger than the limit.
    HeadTooLarge,
    /// The head of the request did not arrive in time.
    HeadTimeout,
    /// The instance broke off, or answered something that is not HTTP.
    UpstreamFailed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 13] = [
        Reason::NoSuchEndpoint,
        Reason::NoSuchService,
        Reason::AmbiguousMethod,
        Reason::TierRefused,
        Reason::InvalidToken,
        Reason::NoHealthyInstance,
        Reason::NoInstance,
        Reason::DeadlineExceeded,
        Reason::Overloaded,
        Reason::BadRequest,
        Reason::HeadTooLarge,
        Reason::HeadTimeout,
        Reason::UpstreamFailed,
    ];

    /// The reason as programs read it, as `tier_refused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NoSuchEndpoint => "no_such_endpoint",
            Reason::NoSuchService => "no_such_service",
            Reason::AmbiguousMethod => "ambiguous_method",
            Reason::TierRefused => "tier_refused",
            Reason::InvalidToken => "invalid_token",
            Reason::NoHealthyInstance => "no_healthy_instance",
            Reason::NoInstance => "no_instance",
            Reason::DeadlineExceeded => "deadline_exceeded",
            Reason::Overloaded => "overloaded",
            Reason::BadRequest => "bad_request",
            Reason::HeadTooLarge => "head_too_large",
            Reason::HeadTimeout => "head_timeout",
            Reason::UpstreamFailed => "upstream_failed",
        }
    }

    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Reason::NoSuchEndpoint | Reason::NoSuchService | Reason::AmbiguousMethod => 404,
            Reason::TierRefused => 403,
            Reason::InvalidToken => 401,
            Reason::NoHealthyInstance | Reason::NoInstance | Reason::Overloaded => 503,
            Reason::DeadlineExceeded => 504,
            Reason::BadRequest => 400,
            Reason::HeadTooLarge => 431,
            Reason::HeadTimeout => 408,
            Reason::UpstreamFailed => 502,
        }
    }

    /// The code of Connect and gRPC.
    pub const fn code(self) -> Code {
        match self {
            Reason::NoSuchEndpoint | Reason::NoSuchService | Reason::AmbiguousMethod => {
                Code::Unimplemented
            }
            Reason::TierRefused => Code::PermissionDenied,
            Reason::InvalidToken => Code::Unauthenticated,
            Reason::NoHealthyInstance
            | Reason::NoInstance
            | Reason::Overloaded
            | Reason::UpstreamFailed => Code::Unavailable,
            Reason::DeadlineExceeded | Reason::HeadTimeout => Code::DeadlineExceeded,
            Reason::BadRequest | Reason::HeadTooLarge => Code::InvalidArgument,
        }
    }

    const fn fault(self) -> Fault {
        match self {
            Reason::Overloaded => Fault::Ours,
            Reason::NoHealthyInstance
            | Reason::NoInstance
            | Reason::DeadlineExceeded
            | Reason::UpstreamFailed => Fault::Theirs,
            _ => Fault::Caller,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A request that the router answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: Cow<'static, str>,
    /// How to mend it, for people; may be empty.
    pub mend: Cow<'static, str>,
}

impl Refusal {
    /// A refusal that says why.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            mend: Cow::Borrowed(""),
        }
    }

    /// Says how to mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<Cow<'static, str>>) -> Self {
        self.mend = mend.into();
        self
    }

    /// The seconds of the `Retry-After` header, where a wait helps.
    pub const fn retry_after(&self) -> Option<u32> {
        match self.reason {
            Reason::Overloaded | Reason::NoInstance | Reason::NoHealthyInstance => Some(1),
            _ => None,
        }
    }
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        let reason = refusal.reason;
        let message = refusal.message.as_ref();
        let mut error = Error::new(reason.code(), reason.as_str(), message)
            .mend(refusal.mend.as_ref())
            .fault(reason.fault());
        // Whether a broken-off request may be repeated, only its caller knows.
        error.retryable = error.retryable && reason != Reason::UpstreamFailed;
        error
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Refusal {}

/// Text from outside, cut and escaped so that it can stand in a message.
pub(crate) fn shown(text: &[u8]) -> String {
    let cut = &text[..text.len().min(120)];
    let rest = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", cut.escape_ascii())
}
