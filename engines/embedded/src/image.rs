//! What is read: all keys of one port in memory, and those who watch them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use hydrant_ports::{
    Change, EngineError, Entry, Key, Prefix, Versioned, Watch, WatchSender, watch_channel,
};

use crate::Limits;
use crate::error::{closed, too_large};

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
    closed: bool,
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
        if self.closed {
            return Err(closed());
        }
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

    /// The engine is closed: ends every watch, and begins no more.
    pub(crate) fn end_watches(&mut self) {
        self.closed = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: u64) -> Option<Record> {
        Some(Record {
            value: Bytes::from_static(b"x"),
            revision,
            life: Life::Kept,
        })
    }

    #[tokio::test]
    async fn a_watcher_that_lags_is_told_all_again() {
        let key: Key = "a".parse().unwrap();
        let mut image = Image::default();
        let mut watch = image.watch(&Prefix::default(), 0, 1).unwrap();
        for revision in 1..=10_000 {
            image.set(&key, record(revision));
            image.tell([&key].into_iter(), 0);
        }
        let mut told = Vec::new();
        loop {
            let change = watch.next().await.unwrap();
            told.push(change);
            match told.last() {
                Some(Change::Put(entry)) if entry.revision == 10_000 => break,
                Some(Change::All(all)) if all.iter().any(|e| e.revision == 10_000) => break,
                _ => {}
            }
        }
        assert!(told.len() < 10_000, "the queue has no bound");
        assert!(
            matches!(told[0], Change::All(_)),
            "changes were lost without a word"
        );
    }

    #[test]
    fn bytes_are_counted() {
        let key: Key = "abc".parse().unwrap();
        let mut image = Image::default();
        image.set(&key, record(1));
        image.set(&key, record(2));
        assert_eq!(image.bytes(), cost(&key, 1));
        image.set(&key, None);
        assert_eq!(image.bytes(), 0);
    }

    #[test]
    fn ranges_begin_behind_a_key_and_end_with_their_prefix() {
        let mut image = Image::default();
        for name in ["a", "b/1", "b/2", "b/3", "c"] {
            image.set(&name.parse().unwrap(), record(1));
        }
        let names = |prefix: &str, after: Option<&str>| -> Vec<String> {
            let prefix = prefix.parse().unwrap();
            let after = after.map(|after| after.parse().unwrap());
            let range = image.range(&prefix, after.as_ref());
            range.map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!(names("b/", None), ["b/1", "b/2", "b/3"]);
        assert_eq!(names("b/", Some("b/2")), ["b/3"]);
        assert_eq!(names("b/", Some("a")), ["b/1", "b/2", "b/3"]);
        assert!(names("b/", Some("c")).is_empty());
        assert_eq!(names("", Some("b/3")), ["c"]);
    }
}
