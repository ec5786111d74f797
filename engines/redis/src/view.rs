//! What one watcher has been told, and what it is told next.

use std::collections::{HashMap, HashSet};

use hydrant_ports::{Change, Entry, Key, Prefix, WatchSender};

use crate::message::{Message, What};
use crate::requests::Found;
use crate::seen::Seen;

/// How many messages wait while a partition is listed. One more, and it is listed again.
const MAX_HELD: usize = 8192;

/// A watch. Whatever happened, it ends up at what is on the servers: a list that is compared with
/// what was told, then messages that are newer than the list.
pub(crate) struct View {
    pub(crate) prefix: Prefix,
    sender: WatchSender,
    parts: Vec<Part>,
    /// The watcher was told nothing yet, or lost what it was told: it gets all at once.
    is_void: bool,
}

/// What is told of one partition.
#[derive(Default)]
struct Part {
    /// The revisions that were told; 0 where a value is still being fetched.
    told: HashMap<Key, u64>,
    /// Up to where the list is that it began with.
    base: u64,
    /// The number of the list that is under way.
    listing: Option<u64>,
    /// The messages since that began.
    held: Vec<Message>,
    /// More came than may wait.
    has_overflown: bool,
    /// The list, while other partitions' lists are awaited.
    fresh: Option<Vec<Found>>,
}

/// What a watch needs next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// A list of this partition.
    List(usize),
    /// Lists of all.
    ListAll,
}

impl View {
    pub(crate) fn new(prefix: Prefix, sender: WatchSender, partitions: usize) -> Self {
        Self {
            prefix,
            sender,
            parts: (0..partitions).map(|_| Part::default()).collect(),
            is_void: true,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// A list of a partition begins; what comes of earlier ones is not used.
    pub(crate) fn begin_list(&mut self, partition: usize, number: u64) {
        let part = &mut self.parts[partition];
        part.listing = Some(number);
        part.held.clear();
        part.has_overflown = false;
        part.fresh = None;
    }

    /// A list has come, with the partition's revision when it began.
    pub(crate) fn listed(
        &mut self,
        partition: usize,
        number: u64,
        revision: u64,
        entries: &[Found],
        seen: &Seen,
    ) -> Need {
        let part = &mut self.parts[partition];
        if part.listing != Some(number) {
            return Need::Nothing;
        }
        part.listing = None;
        if part.has_overflown {
            return Need::List(partition);
        }
        part.base = revision;
        if self.is_void {
            part.fresh = Some(entries.to_vec());
            return self.tell_all(seen);
        }
        let is_told = self.compare(partition, entries, seen) && self.release(partition);
        self.need(is_told)
    }

    /// Whether this list is still waited for.
    pub(crate) fn awaits(&self, partition: usize, number: u64) -> bool {
        self.parts[partition].listing == Some(number)
    }

    /// A change. Whether it may be shown at all is decided before.
    pub(crate) fn message(&mut self, partition: usize, message: &Message) -> Need {
        if !self.prefix.contains(&message.key) {
            return Need::Nothing;
        }
        let part = &mut self.parts[partition];
        if part.listing.is_some() || self.is_void {
            part.hold(message);
            return Need::Nothing;
        }
        let is_told = self.apply(partition, message);
        self.need(is_told)
    }

    fn need(&mut self, is_told: bool) -> Need {
        match is_told || self.is_closed() {
            true => Need::Nothing,
            false => {
                self.is_void = true;
                Need::ListAll
            }
        }
    }

    /// Tells everything, once the lists of all partitions are there.
    fn tell_all(&mut self, seen: &Seen) -> Need {
        if self.parts.iter().any(|part| part.fresh.is_none()) {
            return Need::Nothing;
        }
        let mut all = Vec::new();
        for part in &mut self.parts {
            let fresh = part.fresh.take().unwrap_or_default();
            part.told.clear();
            for found in fresh {
                if seen.may_show(&found.key, found.under.as_ref()) {
                    part.told.insert(found.key.clone(), found.revision);
                    all.push(entry(&found));
                }
            }
        }
        all.sort_by(|one, other| one.key.cmp(&other.key));
        self.is_void = false;
        self.sender.send(Change::All(all));
        let is_told = (0..self.parts.len()).all(|partition| self.release(partition));
        self.need(is_told)
    }

    /// Tells how a list differs from what was told. `false` when the watcher is too slow.
    fn compare(&mut self, partition: usize, entries: &[Found], seen: &Seen) -> bool {
        let part = &mut self.parts[partition];
        let listed: HashSet<&Key> = entries.iter().map(|found| &found.key).collect();
        let gone: Vec<Key> = part
            .told
            .keys()
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        let mut is_told = true;
        for key in gone {
            if part.told.remove(&key) != Some(0) {
                is_told &= self.sender.send(Change::Removed(key));
            }
        }
        for found in entries {
            let is_news = part.told.get(&found.key) != Some(&found.revision);
            if is_news && seen.may_show(&found.key, found.under.as_ref()) {
                part.told.insert(found.key.clone(), found.revision);
                is_told &= self.sender.send(Change::Put(entry(found)));
            }
        }
        is_told
    }

    /// Applies the messages that came during a list.
    fn release(&mut self, partition: usize) -> bool {
        let held = std::mem::take(&mut self.parts[partition].held);
        held.iter().all(|message| self.apply(partition, message))
    }

    fn apply(&mut self, partition: usize, message: &Message) -> bool {
        let part = &mut self.parts[partition];
        let Message { revision, key, .. } = message;
        let told = part.told.get(key).copied();
        if *revision <= told.unwrap_or(part.base) {
            return true;
        }
        match &message.what {
            // Deleted since, or listed: a late value tells nothing.
            What::Fetched(_) if told.is_none() => true,
            What::Put(value) | What::Fetched(value) => {
                part.told.insert(key.clone(), *revision);
                self.sender.send(Change::Put(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    revision: *revision,
                }))
            }
            What::Large => {
                part.told.entry(key.clone()).or_insert(0);
                true
            }
            What::Removed => match part.told.remove(key) {
                None | Some(0) => true,
                Some(_) => self.sender.send(Change::Removed(key.clone())),
            },
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.sender.close();
    }
}

impl Part {
    fn hold(&mut self, message: &Message) {
        if self.held.len() >= MAX_HELD {
            self.held.clear();
            self.has_overflown = true;
        }
        if !self.has_overflown {
            self.held.push(message.clone());
        }
    }
}

fn entry(found: &Found) -> Entry {
    Entry {
        key: found.key.clone(),
        value: found.value.clone(),
        revision: found.revision,
    }
}
