//! Who comes in, and how often: every route that answers apps by their keys begins here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hydrant_sdk::{Code, Error, Problem};

use crate::api::serving::Served;
use crate::compiled::Compiled;
use crate::keys::{Caller, Key, WrongKey};
use crate::limits::{Limiter, retry_after};

/// How a client that was refused for its key learns which keys there are.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"hydrant\"");

/// Lets requests in by their keys, within their rates.
#[derive(Clone)]
pub(crate) struct Gate {
    served: Served,
    limiter: Arc<Limiter>,
}

/// A request that was let in: who asks, and the revision that its whole answer is made from.
///
/// An extractor, for routes whose state has a [`Gate`]; what is refused becomes a problem document.
pub(crate) struct Admitted {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) caller: Caller,
    /// The address of who asks, as the router wrote it.
    pub(crate) address: Option<IpAddr>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No revision has come yet.
    NotReady,
    /// Its key is wrong.
    WrongKey(WrongKey),
    /// Too many requests; how long until one more is let in.
    TooMany(Duration),
}

/// Whose bucket counts.
#[derive(Hash)]
enum Subject<'a> {
    Key(&'a str),
    Address(Option<IpAddr>),
}

impl Gate {
    pub(crate) fn new(served: Served) -> Self {
        Self {
            served,
            limiter: Arc::new(Limiter::new()),
        }
    }

    /// Lets a request in, or says why not. A wrong key costs as much as a request without one, so that
    /// nobody can try many.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        let compiled = self.compiled()?;
        let address = compiled.settings.anonymous.address(headers);
        let caller = compiled.keys.caller(headers);
        let counted = caller.as_ref().unwrap_or(&Caller::Anonymous);
        self.count(&compiled, counted, address)?;
        Ok(Admitted {
            caller: caller.map_err(Refusal::WrongKey)?,
            compiled,
            address,
        })
    }

    /// The same for calls that are answered from memory, as `init`. Whose key has a rate is held to it here
    /// too, and wrong keys cost what they cost everywhere; requests without a key are not counted:
    /// thousands of phones behind one address may start at once, and each such answer costs little.
    pub(crate) fn admit_cached(
        &self,
        compiled: &Compiled,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        let caller = compiled.keys.caller(headers);
        if matches!(caller, Ok(Caller::Anonymous)) {
            return Ok(Caller::Anonymous);
        }
        let address = compiled.settings.anonymous.address(headers);
        let counted = caller.as_ref().unwrap_or(&Caller::Anonymous);
        self.count(compiled, counted, address)?;
        caller.map_err(Refusal::WrongKey)
    }

    /// The same for who has a ticket, which stands for a key.
    pub(crate) fn admit_ticket(
        &self,
        headers: &HeaderMap,
        ticket: &str,
    ) -> Result<Admitted, Refusal> {
        let compiled = self.compiled()?;
        let address = compiled.settings.anonymous.address(headers);
        let caller = compiled.keys.by_ticket(ticket).cloned();
        let caller = caller.map_or(Caller::Anonymous, Caller::Holder);
        self.count(&compiled, &caller, address)?;
        match caller {
            Caller::Anonymous => Err(Refusal::WrongKey(WrongKey::Unknown)),
            caller => Ok(Admitted {
                compiled,
                caller,
                address,
            }),
        }
    }

    /// Before the first revision nobody's key is known: to call it wrong would send clients away for
    /// good.
    fn compiled(&self) -> Result<Arc<Compiled>, Refusal> {
        let serving = self.served.load();
        match serving.has_revision {
            false => Err(Refusal::NotReady),
            true => Ok(Arc::clone(&serving.compiled)),
        }
    }

    fn count(
        &self,
        compiled: &Compiled,
        caller: &Caller,
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let (subject, rate) = match caller.key().map(AsRef::<Key>::as_ref) {
            None => (
                Subject::Address(address),
                Some(&compiled.settings.anonymous.rate),
            ),
            Some(key) => (Subject::Key(&key.name), key.rate.as_ref()),
        };
        let taken = rate.map_or(Ok(()), |rate| self.limiter.take(&subject, rate));
        taken.map_err(Refusal::TooMany)
    }
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::WrongKey(_) => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The headers that an answer with it has.
    pub(crate) fn describe(self, headers: &mut HeaderMap) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::NotReady => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::WrongKey(_) => {
                headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            Self::TooMany(wait) => {
                headers.insert(header::RETRY_AFTER, retry_after(wait).into());
            }
        }
    }

    /// The same as the error of every hop.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::NotReady => {
                let message = "no revision has come to this instance yet";
                Error::new(Code::Unavailable, "no_revision", message)
            }
            Self::WrongKey(wrong) => Error::new(
                Code::Unauthenticated,
                "wrong_key",
                wrong.to_string(),
            )
            .mend("send a key that `hydrant mobile key list` shows, or none to get what is public"),
            Self::TooMany(wait) => {
                let message = "there were too many requests of this key, or of this address";
                let mend = format!("ask again in {} s", retry_after(wait));
                Error::new(Code::ResourceExhausted, "too_many_requests", message).mend(mend)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut answer = Problem(self.error()).into_response();
        self.describe(answer.headers_mut());
        answer
    }
}

impl<S> FromRequestParts<S> for Admitted
where
    Gate: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Gate::from_ref(state).admit(&parts.headers)
    }
}
