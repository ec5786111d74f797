use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::{Entry, Key};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything below the prefix: what the watcher held before is void. Comes first, and again
    /// after every gap.
    All(Vec<Entry>),
    /// A key was written.
    Put(Entry),
    /// A key is gone.
    Removed(Key),
}

/// The most changes that wait for a slow watcher. One more, and they give way to a gap.
const MAX_PENDING: usize = 4096;

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<Change>,
    lagged: bool,
    closed: bool,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an engine tells of a prefix. Dropping it ends the watch.
pub struct Watch(Arc<Shared>);

/// The engine's end of a watch.
#[derive(Clone)]
pub struct WatchSender(Arc<Shared>);

/// Makes a watch: a bounded queue of changes that never blocks the engine.
pub fn watch_channel() -> (WatchSender, Watch) {
    let shared = Arc::new(Shared::default());
    (WatchSender(shared.clone()), Watch(shared))
}

impl Watch {
    /// The next change, or `None` when the engine is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let ready = self.0.ready.notified();
            {
                let mut queue = self.0.queue();
                if let Some(change) = queue.pending.pop_front() {
                    return Some(change);
                }
                if queue.closed {
                    return None;
                }
            }
            ready.await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.pending.clear();
    }
}

impl WatchSender {
    /// Queues a change. `false` asks the engine for a [`Change::All`]: the watcher was too slow
    /// and has lost changes.
    pub fn send(&self, change: Change) -> bool {
        let mut queue = self.0.queue();
        match &change {
            Change::All(_) => {
                queue.pending.clear();
                queue.lagged = false;
            }
            _ if queue.lagged || queue.pending.len() >= MAX_PENDING => {
                queue.lagged = true;
                queue.pending.clear();
                return false;
            }
            _ => {}
        }
        queue.pending.push_back(change);
        drop(queue);
        self.0.ready.notify_one();
        true
    }

    /// Nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.0.queue().closed
    }

    /// The engine is closed: the watcher gets what is pending, then the end.
    pub fn close(&self) {
        self.0.queue().closed = true;
        self.0.ready.notify_one();
    }
}
