//! What answers are made from, swapped whole: a request takes it once and sees nothing else.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::api::compose::Feed;
use crate::compiled::Compiled;

/// What one moment's answers are made from.
#[derive(Default)]
pub(crate) struct Serving {
    /// The newest revision that compiled; revision 0 is empty.
    pub(crate) compiled: Arc<Compiled>,
    /// What the sources said; `None` until the first snapshot has come.
    pub(crate) feed: Option<Arc<Feed>>,
}

/// Where requests find it.
pub(crate) type Served = Arc<ArcSwap<Serving>>;

/// A revision came.
pub(crate) fn swap_compiled(served: &Served, compiled: Arc<Compiled>) {
    served.rcu(|old| Serving {
        compiled: Arc::clone(&compiled),
        feed: old.feed.clone(),
    });
}

/// News of the sources came.
pub(crate) fn swap_feed(served: &Served, feed: Arc<Feed>) {
    served.rcu(|old| Serving {
        compiled: Arc::clone(&old.compiled),
        feed: Some(Arc::clone(&feed)),
    });
}
