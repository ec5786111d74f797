//! What this process has seen of epochs: in a fail-over the servers may forget it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hydrant_ports::Key;
use hydrant_ports::state::Under;

/// A bounded memory; the oldest names are forgotten first.
pub(crate) struct Seen(Mutex<Memory>);

struct Memory {
    marks: Bounded<u64>,
    keys: Bounded<Under>,
}

struct Bounded<T> {
    values: HashMap<Key, T>,
    order: VecDeque<Key>,
    most: usize,
}

impl Seen {
    /// Remembers `most` marks, and as many keys.
    pub(crate) fn new(most: usize) -> Self {
        Self(Mutex::new(Memory {
            marks: Bounded::new(most),
            keys: Bounded::new(most),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest epoch of a mark; 0 when none was seen.
    pub(crate) fn mark(&self, mark: &Key) -> u64 {
        self.lock().marks.values.get(mark).copied().unwrap_or(0)
    }

    pub(crate) fn note_mark(&self, mark: &Key, epoch: u64) {
        let mut memory = self.lock();
        let known = memory.marks.values.get(mark).copied().unwrap_or(0);
        if epoch > known {
            memory.marks.insert(mark, epoch);
        }
    }

    /// All marks that are remembered.
    pub(crate) fn marks(&self) -> Vec<(Key, u64)> {
        let memory = self.lock();
        let marks = memory.marks.values.iter();
        marks.map(|(mark, epoch)| (mark.clone(), *epoch)).collect()
    }

    /// Notes under which epoch a key is, and tells whether it may be shown: not when the same
    /// key was seen under a higher epoch of the same mark.
    pub(crate) fn may_show(&self, key: &Key, under: Option<&Under>) -> bool {
        let mut memory = self.lock();
        let Some(under) = under else {
            return true;
        };
        let seen = memory.keys.values.get(key);
        let seen = seen.filter(|seen| seen.mark == under.mark);
        match seen.map(|seen| seen.epoch) {
            Some(epoch) if epoch > under.epoch => false,
            Some(epoch) if epoch == under.epoch => true,
            _ => {
                memory.keys.insert(key, under.clone());
                true
            }
        }
    }
}

impl<T> Bounded<T> {
    fn new(most: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    fn insert(&mut self, key: &Key, value: T) {
        if self.values.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key.clone());
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn under(mark: &str, epoch: u64) -> Option<Under> {
        let mark = key(mark);
        Some(Under { mark, epoch })
    }

    #[test]
    fn a_lower_epoch_of_the_same_mark_is_not_shown() {
        let seen = Seen::new(9);
        let show = |under: Option<Under>| seen.may_show(&key("k"), under.as_ref());
        assert!(show(under("m", 5)));
        assert!(!show(under("m", 4)));
        assert!(show(under("m", 5)));
        assert!(show(None));
        assert!(show(under("other", 1)));
        assert!(show(under("m", 4)), "the other mark came later");
        assert!(show(under("m", 6)));
        assert!(!show(under("m", 5)));
    }

    #[test]
    fn memory_has_a_bound() {
        let seen = Seen::new(2);
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            seen.note_mark(&key(name), 5 + index as u64);
            seen.note_mark(&key(name), 1);
        }
        assert_eq!(["a", "b", "c"].map(|name| seen.mark(&key(name))), [0, 6, 7]);
        assert_eq!(seen.marks().len(), 2);
    }
}
