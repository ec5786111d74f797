//! What answers are made from, swapped whole: a request takes it once and sees nothing else.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderValue;

use crate::api::cache::Cache;
use crate::api::compose::Feed;
use crate::compiled::Compiled;

/// What one moment's answers are made from, and the answers that were made from it.
pub(crate) struct Serving {
    /// The newest revision that compiled; revision 0 is empty.
    pub(crate) compiled: Arc<Compiled>,
    /// What the sources said; `None` until the first snapshot has come.
    pub(crate) feed: Option<Arc<Feed>>,
    /// A newer revision that does not compile here; then the one above goes on.
    pub(crate) refused: Option<RefusedRevision>,
    /// Answers are kept no longer than what they are made from.
    pub(crate) cache: Cache,
    /// The number of the revision, as answers tell it.
    pub(crate) revision: HeaderValue,
}

/// A published revision that this instance can't serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedRevision {
    pub(crate) revision: u64,
    /// Since when, in milliseconds since 1970.
    pub(crate) since: i64,
}

/// Where requests find it.
pub(crate) type Served = Arc<ArcSwap<Serving>>;

impl Serving {
    fn new(
        compiled: Arc<Compiled>,
        feed: Option<Arc<Feed>>,
        refused: Option<RefusedRevision>,
    ) -> Self {
        Self {
            revision: compiled.revision.into(),
            cache: Cache::default(),
            compiled,
            feed,
            refused,
        }
    }
}

impl Default for Serving {
    fn default() -> Self {
        Self::new(Arc::default(), None, None)
    }
}

/// A revision came.
pub(crate) fn swap_compiled(served: &Served, compiled: Arc<Compiled>) {
    served.rcu(|old| Serving::new(Arc::clone(&compiled), old.feed.clone(), None));
}

/// News of the sources came.
pub(crate) fn swap_feed(served: &Served, feed: Arc<Feed>) {
    served.rcu(|old| {
        let compiled = Arc::clone(&old.compiled);
        Serving::new(compiled, Some(Arc::clone(&feed)), old.refused)
    });
}

/// A revision came that can't be served here: the old one goes on. It is refused since the first one
/// that could not be.
pub(crate) fn refuse_revision(served: &Served, refused: RefusedRevision) {
    served.rcu(|old| {
        let since = old
            .refused
            .as_ref()
            .map_or(refused.since, |first| first.since);
        let refused = RefusedRevision { since, ..refused };
        Serving::new(Arc::clone(&old.compiled), old.feed.clone(), Some(refused))
    });
}
