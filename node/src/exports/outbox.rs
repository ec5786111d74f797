use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What waits for a receiver: at most so many bytes; when it is full the oldest goes. Never blocks
/// who puts something in.
#[derive(Debug)]
pub(super) struct Outbox {
    most: usize,
    waiting: Mutex<Waiting>,
    came: Notify,
    emptied: Notify,
    closed: AtomicBool,
    sent: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// Something is with the receiver.
    under_way: bool,
}

/// A text, and how many lines it counts for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) lines: u64,
}

impl Outbox {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            waiting: Mutex::default(),
            came: Notify::new(),
            emptied: Notify::new(),
            closed: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            trouble: Mutex::new(None),
        })
    }

    pub(super) fn push(&self, text: String, lines: u64) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += text.len();
        waiting.items.push_back(Item { text, lines });
        while waiting.bytes > self.most
            && let Some(oldest) = waiting.items.pop_front()
        {
            waiting.bytes -= oldest.text.len();
            self.leave_out(oldest.lines);
        }
        self.came.notify_one();
    }

    /// Counts lines that did not even get in, or that the receiver refuses.
    pub(super) fn leave_out(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Waits for something, and takes up to so many bytes of it; `None` when there will be no more.
    pub(super) async fn take(&self, most: usize) -> Option<Vec<Item>> {
        loop {
            let came = self.came.notified();
            let items = lock(&self.waiting).take(most);
            if !items.is_empty() {
                return Some(items);
            }
            self.emptied.notify_waiters();
            if self.is_closed() {
                return None;
            }
            came.await;
        }
    }

    /// The receiver has it.
    pub(super) fn taken(&self, items: &[Item]) {
        self.sent.fetch_add(lines(items), Ordering::Relaxed);
        *lock(&self.trouble) = None;
    }

    /// The receiver refuses it, for good.
    pub(super) fn refused(&self, items: &[Item], why: String) {
        self.leave_out(lines(items));
        self.fails(why);
    }

    /// The receiver does not take it now.
    pub(super) fn fails(&self, why: String) {
        *lock(&self.trouble) = Some(why);
    }

    /// Nothing more comes; returns when all is sent, which may be never.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        loop {
            let emptied = self.emptied.notified();
            let is_empty = {
                let waiting = lock(&self.waiting);
                waiting.items.is_empty() && !waiting.under_way
            };
            self.came.notify_one();
            if is_empty {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> u64 {
        lock(&self.waiting).bytes as u64
    }

    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }
}

impl Waiting {
    fn take(&mut self, most: usize) -> Vec<Item> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.items.front()
            && (items.is_empty() || bytes + next.text.len() <= most)
        {
            bytes += next.text.len();
            items.extend(self.items.pop_front());
        }
        self.bytes -= bytes;
        self.under_way = !items.is_empty();
        items
    }
}

fn lines(items: &[Item]) -> u64 {
    items.iter().map(|item| item.lines).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_is_left_out_and_counted() {
        let outbox = Outbox::new(10);
        for text in ["aaaa", "bbbb", "cccc", "dddd"] {
            outbox.push(text.into(), 1);
        }
        assert_eq!((outbox.dropped(), outbox.waiting()), (2, 8));
        outbox.push("far too long for the box".into(), 3);
        assert_eq!((outbox.dropped(), outbox.waiting()), (7, 0));
        outbox.push("e".into(), 1);
        let items = outbox.take(100).await.unwrap();
        assert_eq!(items[0].text, "e");
        outbox.taken(&items);
        assert_eq!(outbox.sent(), 1);
    }

    #[tokio::test]
    async fn what_waits_is_sent_before_the_end() {
        let outbox = Outbox::new(100);
        outbox.push("a".into(), 1);
        let sender = outbox.clone();
        let sent = tokio::spawn(async move {
            let mut all = String::new();
            while let Some(items) = sender.take(1).await {
                all.extend(items.iter().map(|item| item.text.as_str()));
                sender.taken(&items);
            }
            all
        });
        outbox.push("b".into(), 1);
        outbox.close().await;
        assert_eq!(sent.await.unwrap(), "ab");
        assert_eq!(outbox.sent(), 2);
    }
}
