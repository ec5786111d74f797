//! POST endpoints whose requests may be sent again: under one key the handler's outcome counts once.
//!
//! A request claims its key in the shared state of the service, under a lease that is renewed while the
//! handler runs. The outcome is stored by compare-and-put, so of two that hold the key only one stores its
//! own. The epoch of a claim is the revision that it was written at: revisions only grow, also over keys that
//! ran out.

mod attempt;
mod claim;
mod guard;
mod key;
mod record;
mod refusal;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::Semaphore;

pub use attempt::Attempt;
pub use guard::Guarded;
pub use key::idempotency_key;

use crate::clock::SteadyClock;
use crate::state::State;
use refusal::Style;
use shelf::Shelf;

/// The header by which an answer says that it is the stored one of an earlier request: `true`.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The header by which an answer says for how many seconds it is remembered.
pub const IDEMPOTENCY_REMEMBERED: HeaderName = HeaderName::from_static("idempotency-remembered");
/// The header by which a 409 says in how many seconds the lease of the one in progress ends, unless it is
/// renewed.
pub const IDEMPOTENCY_LEASE: HeaderName = HeaderName::from_static("idempotency-lease");

/// How many guarded requests one process works on at a time; more are answered 503.
const MOST_AT_ONCE: usize = 1000;
const LEASE: Duration = Duration::from_secs(10);
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const BODY: usize = 256 * 1024;
/// What an answer may be at most: a value of the state takes 4 MiB, and its head needs some.
const MOST_ANSWER: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Makes POST and PATCH endpoints answer a repeated request with the outcome of the first one.
///
/// A layer for routes of axum, and with [`Service::once`](crate::Service::once) for methods:
///
/// ```text
/// let once = Idempotency::new(&hydrant.state()).required();
/// Router::new().route("/v1/orders", post(order)).layer(once)
/// ```
///
/// - The key is the header `Idempotency-Key`, a UUID. Callers do not share keys: each service, the operator
///   and the outside have their own.
/// - 2xx and 3xx are stored: status, `Location`, `Content-Type`, `Content-Encoding` and body. Other outcomes
///   are not: after a 4xx the key is free, after a 5xx the same request may run again.
/// - While the handler runs, others get 409 with `Retry-After`. Another content under the key gets 422.
/// - When its process died, the next request takes over as soon as the lease has ended, under a higher epoch.
///
/// What the handler does is done *once* only if it is idempotent under the key that [`Attempt`] tells: a
/// process may die after the effect and before the outcome is stored, and then the handler runs again.
#[derive(Clone)]
pub struct Idempotency {
    shelf: Arc<dyn Shelf>,
    clock: SteadyClock,
    room: Arc<Semaphore>,
    settings: Settings,
    style: Style,
}

#[derive(Clone)]
struct Settings {
    is_required: bool,
    takes_correlation_id: bool,
    scopes: Vec<HeaderName>,
    times: Times,
    body: usize,
    answer: usize,
}

#[derive(Clone, Copy)]
struct Times {
    lease: Duration,
    remembered: Duration,
}

impl Idempotency {
    /// Keeps keys and outcomes in this state, under `idempotency/`. A request without a key passes as if the
    /// layer were not there.
    pub fn new(state: &State) -> Self {
        Self::on(Arc::new(state.clone()), state.clock())
    }

    fn on(shelf: Arc<dyn Shelf>, clock: SteadyClock) -> Self {
        let times = Times {
            lease: LEASE,
            remembered: REMEMBERED,
        };
        Self {
            shelf,
            clock,
            room: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            settings: Settings {
                is_required: false,
                takes_correlation_id: false,
                scopes: Vec::new(),
                times,
                body: BODY,
                answer: BODY,
            },
            style: Style::Problem,
        }
    }

    /// A request without a key is refused with 400.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.settings.is_required = true;
        self
    }

    /// A `Correlation-Id` that is a UUID with hyphens is a key too, when there is no `Idempotency-Key`. For
    /// what clients call directly: inside a flow all calls have the correlation id of the flow.
    #[must_use]
    pub fn or_correlation_id(mut self) -> Self {
        self.settings.takes_correlation_id = true;
        self
    }

    /// Who sends another value of this header has other keys, as `authorization` where the outside has users
    /// that must not read each other's answers.
    #[must_use]
    pub fn scoped_by(mut self, header: HeaderName) -> Self {
        self.settings.scopes.push(header);
        self
    }

    /// How long a dead process holds a key; 10 seconds unless told, half a second at least. It is renewed
    /// three times within it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.times.lease = lease.max(Duration::from_millis(500));
        self
    }

    /// How long an outcome is remembered; 24 hours unless told, a minute at least.
    #[must_use]
    pub fn remembered(mut self, time: Duration) -> Self {
        self.settings.times.remembered = time.max(Duration::from_secs(60));
        self
    }

    /// The largest body of a request, in bytes; 256 KiB unless told. More is refused with 413.
    #[must_use]
    pub fn bodies_up_to(mut self, bytes: usize) -> Self {
        self.settings.body = bytes;
        self
    }

    /// The largest body of an answer that can be stored, in bytes; 256 KiB unless told, 4032 KiB at most.
    /// A larger one is not stored: the client gets 500 `answer_too_large`.
    #[must_use]
    pub fn answers_up_to(mut self, bytes: usize) -> Self {
        self.settings.answer = bytes.min(MOST_ANSWER);
        self
    }

    /// The same for methods, whose errors are written as Connect has them.
    pub(crate) fn for_methods(mut self) -> Self {
        self.style = Style::Connect;
        self
    }
}
