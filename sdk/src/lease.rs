use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connectrpc::Spec;
use hydrant_contracts::proto::{KeepAliveRequest, KeepAliveResponse};
use hydrant_contracts::{Code, Error};
use tokio_util::sync::CancellationToken;

use crate::client::Hydrant;
use crate::clock::SteadyClock;

/// Until when what a lease holds is surely held, by this process's own clock.
///
/// Once over, it is over for good: a keep-alive that comes back late does not revive it, because
/// in between somebody may have acted on its end.
pub(crate) struct Validity {
    clock: SteadyClock,
    until_ns: AtomicU64,
    ended: CancellationToken,
}

impl Validity {
    /// Valid by a promise of `ttl` that was asked for at `asked`.
    pub(crate) fn new(clock: SteadyClock, asked: Duration, ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock,
            until_ns: AtomicU64::new(nanos(asked + own_share(ttl))),
            ended: CancellationToken::new(),
        })
    }

    /// Counts a promise of `ttl` that was asked for at `asked`; tells whether it came in time.
    pub(crate) fn extend(&self, asked: Duration, ttl: Duration) -> bool {
        if self.is_over() {
            return false;
        }
        let until = nanos(asked + own_share(ttl));
        self.until_ns.fetch_max(until, Ordering::AcqRel);
        true
    }

    /// Whether it is over. Reads the clock, so that a process which was stopped knows at once.
    pub(crate) fn is_over(&self) -> bool {
        if !self.ended.is_cancelled() && self.left().is_zero() {
            self.end();
        }
        self.ended.is_cancelled()
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves when it is over.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            tokio::select! {
                () = self.ended.cancelled() => {}
                () = tokio::time::sleep(self.left()) => {}
            }
        }
    }

    fn left(&self) -> Duration {
        let until = Duration::from_nanos(self.until_ns.load(Ordering::Acquire));
        until.saturating_sub(self.clock.now())
    }
}

/// The node counts a time to live from when it heard of us, we count from when we spoke; and we
/// use two thirds of it, so that the last third absorbs what we do between looking and acting.
fn own_share(ttl: Duration) -> Duration {
    ttl * 2 / 3
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a stream of the node holds, as long as it hears from its owner.
pub(crate) struct Lease {
    /// As the node named it.
    pub(crate) id: String,
    /// How long the owner may be silent.
    pub(crate) ttl: Duration,
    /// The method that keeps it alive.
    pub(crate) keep_alive: Spec,
    /// Until when it is surely held.
    pub(crate) validity: Arc<Validity>,
}

impl Lease {
    /// Keeps it alive until it is over, and tells why it is.
    pub(crate) async fn keep(&self, hydrant: &Hydrant) -> Error {
        let ended = self.beat_until_refused(hydrant);
        tokio::select! {
            error = ended => { self.validity.end(); error }
            () = self.validity.over() => silent_node(),
        }
    }

    async fn beat_until_refused(&self, hydrant: &Hydrant) -> Error {
        let mut wait = self.ttl / 4;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.beat(hydrant).await {
                Ok(true) => self.ttl / 4,
                Ok(false) => return silent_node(),
                Err(error) if is_final(&error) => return error,
                Err(_) => self.ttl / 16,
            };
        }
    }

    async fn beat(&self, hydrant: &Hydrant) -> Result<bool, Error> {
        let request = KeepAliveRequest {
            lease_id: self.id.clone(),
            ..Default::default()
        };
        let asked = hydrant.clock().now();
        let answer: KeepAliveResponse =
            within(self.ttl / 4, hydrant.node(self.keep_alive, request, None)).await?;
        Ok(self
            .validity
            .extend(asked, millis_or(answer.ttl_ms, self.ttl)))
    }
}

/// Whether the node has answered, and will answer the same again.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(
        error.code,
        Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::AlreadyExists
    )
}

/// A time that the node may have left out.
pub(crate) fn millis_or(ms: u32, otherwise: Duration) -> Duration {
    match ms {
        0 => otherwise,
        ms => Duration::from_millis(u64::from(ms)),
    }
}

/// Waits for an answer at most for `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(silent_node()))
}

fn silent_node() -> Error {
    Error::new(
        Code::Unavailable,
        "node_silent",
        "the node did not answer in time",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    /// The clock of the paused runtime of the test that runs on this thread.
    fn paused() -> SteadyClock {
        thread_local! {
            static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        }
        SteadyClock::from_fn(|| START.with(|start| start.elapsed()))
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_before_the_node_gives_it_away() {
        let clock = paused();
        let asked = clock.now();
        // The answer took a while: what counts is when we asked.
        advance(Duration::from_millis(500)).await;
        let validity = Validity::new(clock, asked, TTL);
        validity.over().await;
        let after = clock.now() - asked;
        assert!(
            after >= Duration::from_secs(2),
            "two thirds are ours: {after:?}"
        );
        assert!(after < Duration::from_millis(2100), "not more: {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alives_extend_it_from_when_they_were_sent() {
        let clock = paused();
        let validity = Validity::new(clock, clock.now(), TTL);
        for _ in 0..10 {
            sleep(TTL / 4).await;
            let asked = clock.now();
            sleep(TTL / 8).await;
            assert!(validity.extend(asked, TTL));
        }
        let last = clock.now() - TTL / 8;
        validity.over().await;
        let after = clock.now() - last;
        assert!((2000..2100).contains(&after.as_millis()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_knows_at_once_and_for_good() {
        let clock = paused();
        let asked = clock.now();
        let validity = Validity::new(clock, asked, TTL);
        // Nothing of the process ran meanwhile: no timer has fired when it looks.
        advance(Duration::from_secs(60)).await;
        assert!(validity.is_over());
        assert!(
            !validity.extend(clock.now(), TTL),
            "a late answer revives nothing"
        );
        assert!(validity.is_over());
    }

    proptest! {
        #[test]
        fn once_over_it_stays_over(steps in proptest::collection::vec((0u64..3000, any::<bool>()), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let clock = paused();
                let mut asked = clock.now();
                let validity = Validity::new(clock, asked, TTL);
                let mut was_over = false;
                for (wait, beat) in steps {
                    advance(Duration::from_millis(wait)).await;
                    was_over |= clock.now() >= asked + own_share(TTL);
                    if beat && validity.extend(clock.now(), TTL) {
                        asked = clock.now();
                    }
                    prop_assert_eq!(validity.is_over(), was_over);
                }
                Ok(())
            })?;
        }
    }
}
