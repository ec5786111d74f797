use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use hydrant_contracts::{Code, Error, Fault, header};

use crate::clock::Moment;
use crate::instance::{ErrorKind, InFlight, Live};

/// Why the router answers a request itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The service answers no such path.
    NoSuchEndpoint,
    /// No such service is registered.
    NoSuchService,
    /// No such server is in the fleet, or its node takes no requests of others.
    NoSuchServer,
    /// More than one service answers the bare method.
    AmbiguousMethod,
    /// The caller's tier may not call there.
    TierRefused,
    /// The token was not made by this node or its fleet.
    InvalidToken,
    /// Instances are registered, and none of them answers.
    NoHealthyInstance,
    /// The service is known, and none of its instances is ready.
    NoInstance,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// A limit of the router is reached.
    Overloaded,
    /// The client's address, or the caller, has as many connections as one may have.
    TooManyConnections,
    /// The request is malformed.
    BadRequest,
    /// The head of the request is larger than the limit.
    HeadTooLarge,
    /// The head of the request did not arrive in time.
    HeadTimeout,
    /// The instance broke off, or answered something that is not HTTP.
    UpstreamFailed,
    /// A rule sends the client elsewhere.
    Redirected,
    /// More requests came than a rule lets through.
    RateLimited,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 17] = [
        Reason::NoSuchEndpoint,
        Reason::NoSuchService,
        Reason::NoSuchServer,
        Reason::AmbiguousMethod,
        Reason::TierRefused,
        Reason::InvalidToken,
        Reason::NoHealthyInstance,
        Reason::NoInstance,
        Reason::DeadlineExceeded,
        Reason::Overloaded,
        Reason::TooManyConnections,
        Reason::BadRequest,
        Reason::HeadTooLarge,
        Reason::HeadTimeout,
        Reason::UpstreamFailed,
        Reason::Redirected,
        Reason::RateLimited,
    ];

    /// The reason as programs read it, as `tier_refused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NoSuchEndpoint => "no_such_endpoint",
            Reason::NoSuchService => "no_such_service",
            Reason::NoSuchServer => "no_such_server",
            Reason::AmbiguousMethod => "ambiguous_method",
            Reason::TierRefused => "tier_refused",
            Reason::InvalidToken => "invalid_token",
            Reason::NoHealthyInstance => "no_healthy_instance",
            Reason::NoInstance => "no_instance",
            Reason::DeadlineExceeded => "deadline_exceeded",
            Reason::Overloaded => "overloaded",
            Reason::TooManyConnections => "too_many_connections",
            Reason::BadRequest => "bad_request",
            Reason::HeadTooLarge => "head_too_large",
            Reason::HeadTimeout => "head_timeout",
            Reason::UpstreamFailed => "upstream_failed",
            Reason::Redirected => "redirected",
            Reason::RateLimited => "rate_limited",
        }
    }

    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Reason::NoSuchEndpoint
            | Reason::NoSuchService
            | Reason::NoSuchServer
            | Reason::AmbiguousMethod => 404,
            Reason::TierRefused => 403,
            Reason::InvalidToken => 401,
            Reason::NoHealthyInstance
            | Reason::NoInstance
            | Reason::Overloaded
            | Reason::TooManyConnections => 503,
            Reason::DeadlineExceeded => 504,
            Reason::BadRequest => 400,
            Reason::HeadTooLarge => 431,
            Reason::HeadTimeout => 408,
            Reason::UpstreamFailed => 502,
            Reason::Redirected => 302,
            Reason::RateLimited => 429,
        }
    }

    /// The code of Connect and gRPC.
    pub const fn code(self) -> Code {
        match self {
            Reason::NoSuchEndpoint | Reason::NoSuchService | Reason::AmbiguousMethod => {
                Code::Unimplemented
            }
            Reason::NoSuchServer => Code::NotFound,
            Reason::TierRefused => Code::PermissionDenied,
            Reason::InvalidToken => Code::Unauthenticated,
            Reason::NoHealthyInstance
            | Reason::NoInstance
            | Reason::Overloaded
            | Reason::TooManyConnections
            | Reason::UpstreamFailed => Code::Unavailable,
            Reason::DeadlineExceeded | Reason::HeadTimeout => Code::DeadlineExceeded,
            Reason::BadRequest | Reason::HeadTooLarge => Code::InvalidArgument,
            Reason::Redirected => Code::FailedPrecondition,
            Reason::RateLimited => Code::ResourceExhausted,
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
    /// Told to the node that sent the request, so that it may try another instance.
    pub unsent: Option<Unsent>,
    /// Told to the node that sent the request: how the instance broke off, which may have seen it.
    pub(crate) broken: Option<ErrorKind>,
    /// Where a rule sends the client instead.
    pub elsewhere: Option<Box<Elsewhere>>,
    /// How many seconds to wait, where that is known.
    pub(crate) wait: Option<u32>,
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The status of the answer.
    pub status: u16,
    /// A URL, or a path of this host.
    pub location: String,
}

/// Why a node sent a request of another node nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsent {
    /// It knows no such instance on its server, or the instance does not answer this.
    Unknown,
    /// The instance takes no new requests: it starts, drains or fails.
    NotReady,
    /// The instance refuses connections.
    Refused,
    /// It has no means left to connect, as file descriptors.
    Overloaded,
}

impl Unsent {
    /// The value of the header `hydrant-unsent`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unsent::Unknown => "unknown",
            Unsent::NotReady => "not-ready",
            Unsent::Refused => "refused",
            Unsent::Overloaded => "overloaded",
        }
    }

    /// Reads the value of the header. A newer node may know more reasons; nothing was sent all the
    /// same.
    fn parse(text: &[u8]) -> Self {
        [Unsent::NotReady, Unsent::Refused, Unsent::Overloaded]
            .into_iter()
            .find(|why| why.as_str().as_bytes() == text)
            .unwrap_or(Unsent::Unknown)
    }
}

/// What the node of another server says of an instance that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has seen nothing of the request: any request may be sent to another.
    Unsent(Unsent),
    /// It broke off, and may have seen something.
    Broken(ErrorKind),
}

impl Verdict {
    /// Counts it at the instance, and tells what it is as a failure.
    pub(crate) fn note<L: Deref<Target = Live>>(
        self,
        in_flight: &InFlight<L>,
        now: Moment,
    ) -> ErrorKind {
        let kind = match self {
            Verdict::Broken(kind) => kind,
            Verdict::Unsent(Unsent::Overloaded) => ErrorKind::Local,
            Verdict::Unsent(_) => ErrorKind::Connect,
        };
        match self {
            Verdict::Unsent(Unsent::Unknown | Unsent::NotReady) => in_flight.turned_away(now),
            _ => in_flight.failed(kind, now),
        }
        kind
    }

    /// Reads the values of the headers `hydrant-unsent` and `hydrant-broken`.
    pub(crate) fn parse(unsent: Option<&[u8]>, broken: Option<&[u8]>) -> Option<Self> {
        let broken_by = |text: &[u8]| match text == ErrorKind::Protocol.as_str().as_bytes() {
            true => ErrorKind::Protocol,
            false => ErrorKind::Closed,
        };
        let unsent = unsent.map(|text| Verdict::Unsent(Unsent::parse(text)));
        unsent.or(broken.map(|text| Verdict::Broken(broken_by(text))))
    }
}

impl Refusal {
    /// A refusal that says why.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            message: message.into(),
            mend: Cow::Borrowed(""),
            unsent: None,
            broken: None,
            elsewhere: None,
            wait: None,
        }
    }

    /// Says how long to wait, in whole seconds and at least one.
    #[must_use]
    pub(crate) fn retry_in(mut self, wait: std::time::Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        self.wait = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// The answer that sends the client elsewhere.
    pub(crate) fn redirect(status: u16, location: String, by: String) -> Self {
        Self {
            elsewhere: Some(Box::new(Elsewhere { status, location })),
            ..Self::new(Reason::Redirected, by)
        }
    }

    /// The status of a plain answer.
    pub fn status(&self) -> u16 {
        let elsewhere = self.elsewhere.as_ref();
        elsewhere.map_or(self.reason.status(), |elsewhere| elsewhere.status)
    }

    /// Says that the instance broke off and may have seen the request, so that the node that sent
    /// it may repeat what is safe to repeat.
    #[must_use]
    pub(crate) fn broken(mut self, how: ErrorKind) -> Self {
        self.broken = Some(how);
        self
    }

    /// The headers that tell another node so.
    pub(crate) fn verdict(&self) -> Option<(&'static str, &'static str)> {
        let unsent = self.unsent.map(|why| (header::UNSENT, why.as_str()));
        unsent.or(self.broken.map(|how| (header::BROKEN, how.as_str())))
    }

    /// Says that the request went nowhere, so that the node that sent it may try another instance.
    #[must_use]
    pub fn unsent(mut self, why: Unsent) -> Self {
        self.unsent = Some(why);
        self
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
            Reason::Overloaded
            | Reason::TooManyConnections
            | Reason::NoInstance
            | Reason::NoHealthyInstance => Some(1),
            _ => self.wait,
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
