//! What is read: all keys of one port in memory, and those who watch them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use hydrant_ports::{
    Change, EngineError, Entry, Key, Prefix, Versioned, Watch, WatchSender, watch_channel,
};

use crate::Limits;
use crate::error::too_large;

/// A session's number; never given twice by one process.
pub(crate) type SessionId = u64;

/// How long a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until it is deleted.
    Kept,
    /// As long as a session.
    Session(SessionId),
    /// Until a time of day, in milliseconds since 1970.
    Until(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: Bytes,
    pub(crate) revision: u64,
    pub(crate) life: Life,
}

impl Record {
    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        matches!(self.life, Life::Until(until) if until <= now_ms)
    }

    pub(crate) fn entry(&self, key: &Key) -> Entry {
        Entry {
            key: key.clone(),
            value: self.value.clone(),
            revision: self.revision,
        }
    }

    pub(crate) fn versioned(&self) -> Versioned {
        Versioned {
            value: self.value.clone(),
            revision: self.revision,
        }
    }
}

/// What a record counts against the limits.
pub(crate) fn cost(key: &Key, value_bytes: usize) -> usize {
    key.as_str().len() + value_bytes + Limits::RECORD_OVERHEAD
}

struct Watcher {
    prefix: Prefix,
    sender: WatchSender,
}

#[derive(Default)]
pub(crate) struct Image {
    keys: BTreeMap<Key, Record>,
    bytes: usize,
    watchers: Vec<Watcher>,
}

impl Image {
    pub(crate) fn get(&self, key: &Key) -> Option<&Record> {
        self.keys.get(key)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every record below `prefix` and behind `after`, in order.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a Prefix,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> {
        let from = match after {
            Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix.as_str()),
        };
        self.keys
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| prefix.contains(key))
    }

    /// Registers a watch; it begins with all that is there at `now_ms`.
    pub(crate) fn watch(
        &mut self,
        prefix: &Prefix,
        now_ms: i64,
        most: usize,
    ) -> Result<Watch, EngineError> {
        if self.watchers.len() >= most {
            self.watchers.retain(|watcher| !watcher.sender.is_closed());
        }
        if self.watchers.len() >= most {
            return Err(too_large(format!("there are {most} watchers already")));
        }
        let (sender, watch) = watch_channel();
        sender.send(self.all(prefix, now_ms));
        self.watchers.push(Watcher {
            prefix: prefix.clone(),
            sender,
        });
        Ok(watch)
    }

    /// Sets a key to what it is now, and returns what it was. Tells nobody yet.
    pub(crate) fn set(&mut self, key: &Key, record: Option<Record>) -> Option<Record> {
        let new_cost = record.as_ref().map_or(0, |new| cost(key, new.value.len()));
        let old = match record {
            Some(record) => self.keys.insert(key.clone(), record),
            None => self.keys.remove(key),
        };
        let old_cost = old.as_ref().map_or(0, |old| cost(key, old.value.len()));
        self.bytes = self.bytes + new_cost - old_cost;
        old
    }

    /// Tells the watchers what `keys` are now.
    pub(crate) fn tell<'a>(&mut self, keys: impl Iterator<Item = &'a Key> + Clone, now_ms: i64) {
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain(|watcher| self.tell_one(watcher, keys.clone(), now_ms));
        self.watchers = watchers;
    }

    /// `false` when nobody listens any more.
    fn tell_one<'a>(
        &self,
        watcher: &Watcher,
        keys: impl Iterator<Item = &'a Key>,
        now_ms: i64,
    ) -> bool {
        if watcher.sender.is_closed() {
            return false;
        }
        for key in keys.filter(|key| watcher.prefix.contains(key)) {
            let change = match self.keys.get(key) {
                Some(record) => Change::Put(record.entry(key)),
                None => Change::Removed(key.clone()),
            };
            if !watcher.sender.send(change) {
                // Whatever is left of the keys is in it, too.
                watcher.sender.send(self.all(&watcher.prefix, now_ms));
                break;
            }
        }
        true
    }

    /// Tells every watcher all that there is.
    pub(crate) fn tell_all(&self, now_ms: i64) {
        for watcher in &self.watchers {
            watcher.sender.send(self.all(&watcher.prefix, now_ms));
        }
    }

    /// The engine is closed: ends every watch.
    pub(crate) fn end_watches(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.sender.close();
        }
    }

    fn all(&self, prefix: &Prefix, now_ms: i64) -> Change {
        let living = self
            .range(prefix, None)
            .filter(|(_, record)| !record.is_over(now_ms));
        Change::All(living.map(|(key, record)| record.entry(key)).collect())
    }
}

/// An image that many read and the writer changes. Locked for moments, never across a wait.
#[derive(Default)]
pub(crate) struct SharedImage(RwLock<Image>);

impl SharedImage {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Image> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Image> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
