//! From the watch of the state to every open stream: what is newest, and for whom that is new.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::compiled::Compiled;
use crate::keys::Caller;

/// For how long a change is new to who opens a stream: their answer may be older than it.
const FRESH: Duration = Duration::from_secs(30);

/// Tells of revisions. Dropped, all streams end.
pub(crate) struct Changes(watch::Sender<Option<Arc<News>>>);

/// Hears of revisions: of the newest, never of all.
pub(crate) type Heard = watch::Receiver<Option<Arc<News>>>;

/// The newest revision.
pub(crate) struct News {
    pub(super) compiled: Arc<Compiled>,
    /// When what is public changed last, as far as this process knows.
    public: Option<Instant>,
    /// The same for who has a key.
    all: Option<Instant>,
}

/// A way from who takes revisions in to all streams.
pub(crate) fn changes() -> (Changes, Heard) {
    let (sender, receiver) = watch::channel(None);
    (Changes(sender), receiver)
}

impl Changes {
    /// A revision is served from now on.
    pub(crate) fn tell(&self, compiled: Arc<Compiled>) {
        self.0.send_modify(|newest| {
            *newest = Some(Arc::new(News::after(newest.as_deref(), compiled)));
        });
    }
}

impl News {
    fn after(last: Option<&Self>, compiled: Arc<Compiled>) -> Self {
        let when = |differs: bool, before: Option<Instant>| match differs {
            true => Some(Instant::now()),
            false => before,
        };
        let Some(last) = last else {
            return Self {
                compiled,
                public: None,
                all: None,
            };
        };
        let (old, new) = (&last.compiled.views, &compiled.views);
        Self {
            public: when(old.public() != new.public(), last.public),
            all: when(old.all() != new.all(), last.all),
            compiled,
        }
    }

    /// The tag of what somebody sees.
    pub(super) fn tag(&self, caller: &Caller) -> &str {
        self.compiled.views.tag(caller)
    }

    /// Whether it changed just now for somebody.
    pub(super) fn is_fresh(&self, caller: &Caller) -> bool {
        let changed = match caller {
            Caller::Anonymous => self.public,
            Caller::Holder(_) => self.all,
        };
        changed.is_some_and(|at| at.elapsed() < FRESH)
    }
}
