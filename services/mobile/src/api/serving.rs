//! What answers are made from, swapped whole: a request takes it once and sees nothing else.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderValue;

use crate::api::cache::Cache;
use crate::api::compose::Feed;
use crate::compiled::Compiled;

/// What one moment's answers are made from, and the answers that were made from it.
pub(crate) struct Serving {
    /// The newest revision that compiled; empty before one has come.
    pub(crate) compiled: Arc<Compiled>,
    /// Whether one has come. Revision 0 can: nothing has been changed yet.
    pub(crate) has_revision: bool,
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
    /// The same revision and sources, without the answers that were made before.
    fn again(&self) -> Self {
        Self {
            compiled: Arc::clone(&self.compiled),
            has_revision: self.has_revision,
            feed: self.feed.clone(),
            refused: self.refused,
            cache: Cache::default(),
            revision: self.revision.clone(),
        }
    }

    /// Whether there is all that answers are made from.
    pub(crate) fn is_complete(&self) -> bool {
        self.has_revision && self.feed.is_some()
    }
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            compiled: Arc::default(),
            has_revision: false,
            feed: None,
            refused: None,
            cache: Cache::default(),
            revision: 0_u64.into(),
        }
    }
}

/// A revision came.
pub(crate) fn swap_compiled(served: &Served, compiled: Arc<Compiled>) {
    served.rcu(|old| Serving {
        compiled: Arc::clone(&compiled),
        has_revision: true,
        refused: None,
        revision: compiled.revision.into(),
        ..old.again()
    });
}

/// News of the sources came.
pub(crate) fn swap_feed(served: &Served, feed: Arc<Feed>) {
    served.rcu(|old| Serving {
        feed: Some(Arc::clone(&feed)),
        ..old.again()
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
        Serving {
            refused: Some(RefusedRevision { since, ..refused }),
            ..old.again()
        }
    });
}
