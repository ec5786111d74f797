//! Where keys stand: the state of the service, or memory in tests.

use std::time::Duration;

use futures::future::BoxFuture;
use hydrant_contracts::Error;

use crate::context::Context;
use crate::state::{Entry, State};

pub(super) trait Shelf: Send + Sync {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Error>>;

    /// Writes a key that is at `revision`, for `ttl`, and returns its new revision; `aborted` when it is at
    /// another one.
    fn swap<'a>(
        &'a self,
        ttl: Duration,
        key: &'a str,
        revision: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<u64, Error>>;
}

impl Shelf for State {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Error>> {
        Box::pin(unhurried(self.get(key)))
    }

    fn swap<'a>(
        &'a self,
        ttl: Duration,
        key: &'a str,
        revision: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(unhurried(
            self.compare_and_put_for(ttl, key, revision, value),
        ))
    }
}

/// Without the deadline of the request: what a handler did while its client stopped waiting is stored all the
/// same.
async fn unhurried<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let context = Context::current().unwrap_or_default();
    let context = Context {
        deadline: None,
        ..context
    };
    crate::lease::within(ANSWER, context.scope(work)).await
}

/// How long the node may take.
const ANSWER: Duration = Duration::from_secs(5);
