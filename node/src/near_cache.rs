//! Answers to reads of the state that may be a little old, kept in memory.
//!
//! What is promised: an answer that says it is `age` old is what the store said at most `age` ago,
//! and `age` is never above what the reader allowed. Who writes through this node reads its own
//! write. Nothing here is ever shown to who asks for no age, to locks, or to compared writes: they
//! ask the store.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_ports::state::StateEntry;
use hydrant_ports::{EngineError, Key, State};
use hydrant_runtime::Shutdown;
use tokio::time::Instant;

/// The most keys that are kept, and the most bytes of keys and values.
const MOST: (usize, usize) = (20_000, 32 * 1024 * 1024);

/// Counted for each key, beside its text and its value: the maps around them.
const OVERHEAD: usize = 200;

/// How many counts of writes there are: keys share them.
const COUNTS: usize = 256;

/// What the store said of keys lately.
pub(crate) struct NearCache {
    state: Arc<dyn State>,
    kept: Mutex<Kept>,
    /// Writes that went through this node, by the hash of their key: an answer that was under way
    /// during one is not kept.
    writes: [AtomicU64; COUNTS],
    hasher: RandomState,
}

/// An answer of the store, and how old it is at most.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) found: Option<StateEntry>,
    /// Zero when the store was asked for this answer.
    pub(crate) age: Duration,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<Key, Said>,
    /// By the last use, the longest ago first.
    uses: BTreeMap<u64, Key>,
    last_use: u64,
    bytes: usize,
}

struct Said {
    found: Option<StateEntry>,
    /// When the store was asked, which was before it answered.
    asked: Instant,
    last_use: u64,
}

impl NearCache {
    pub(crate) fn new(state: Arc<dyn State>) -> Self {
        Self {
            state,
            kept: Mutex::default(),
            writes: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }

    /// Reads a key: from memory when what the store said is no older than `max_age`, else from the
    /// store.
    pub(crate) async fn get(&self, key: &Key, max_age: Duration) -> Result<Answer, EngineError> {
        if !max_age.is_zero()
            && let Some(answer) = self.kept().get(key, max_age)
        {
            return Ok(answer);
        }
        let (asked, writes) = (Instant::now(), self.writes(key));
        let found = self.state.get(key).await?;
        self.keep(key, &found, asked, writes, !max_age.is_zero());
        Ok(Answer {
            found,
            age: Duration::ZERO,
        })
    }

    /// Begins a write of a key. When the guard is dropped, also because the writer has gone away,
    /// what was said of the key before is forgotten.
    pub(crate) fn writing<'a>(&'a self, key: &'a Key) -> Writing<'a> {
        Writing { cache: self, key }
    }

    /// Forgets all, as often as the store may have lost writes. Ends with the node.
    pub(crate) async fn empty_on_failovers(&self, shutdown: &Shutdown) {
        let mut failovers = self.state.failovers();
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                // Without a sender there never is one.
                changed = failovers.changed() => match changed {
                    Ok(()) => self.empty(),
                    Err(_) => return,
                },
            }
        }
    }

    fn empty(&self) {
        let mut kept = self.kept();
        *kept = Kept::default();
        // Under the lock: what was asked before is not kept after.
        for count in &self.writes {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps an answer, unless the key was written meanwhile. One that nobody asked to keep only
    /// takes the place of an older one.
    fn keep(
        &self,
        key: &Key,
        found: &Option<StateEntry>,
        asked: Instant,
        writes: u64,
        is_wanted: bool,
    ) {
        let mut kept = self.kept();
        let known = kept.answers.get(key);
        let is_newer = known.is_none_or(|said| said.asked < asked);
        if self.writes(key) == writes && is_newer && (is_wanted || known.is_some()) {
            kept.put(key, found.clone(), asked);
        }
    }

    fn forget(&self, key: &Key) {
        let mut kept = self.kept();
        kept.remove(key);
        self.count_of(key).fetch_add(1, Ordering::Relaxed);
    }

    fn writes(&self, key: &Key) -> u64 {
        self.count_of(key).load(Ordering::Relaxed)
    }

    fn count_of(&self, key: &Key) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key) as usize;
        &self.writes[hash % COUNTS]
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write of a key that is under way.
pub(crate) struct Writing<'a> {
    cache: &'a NearCache,
    key: &'a Key,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.cache.forget(self.key);
    }
}

impl Kept {
    fn get(&mut self, key: &Key, max_age: Duration) -> Option<Answer> {
        let said = self.answers.get_mut(key)?;
        let age = whole_ms(said.asked.elapsed());
        if age > max_age {
            return None;
        }
        let mut found = said.found.clone();
        if let Some(StateEntry { ttl: Some(ttl), .. }) = &mut found {
            // What has run out may have been written anew: only the store knows.
            *ttl = ttl.checked_sub(age).filter(|left| !left.is_zero())?;
        }
        self.last_use += 1;
        self.uses.remove(&said.last_use);
        said.last_use = self.last_use;
        self.uses.insert(self.last_use, key.clone());
        Some(Answer { found, age })
    }

    fn put(&mut self, key: &Key, found: Option<StateEntry>, asked: Instant) {
        self.remove(key);
        self.last_use += 1;
        let said = Said {
            found,
            asked,
            last_use: self.last_use,
        };
        self.bytes += cost(key, &said);
        self.uses.insert(self.last_use, key.clone());
        self.answers.insert(key.clone(), said);
        while self.answers.len() > MOST.0 || self.bytes > MOST.1 {
            let Some((_, oldest)) = self.uses.pop_first() else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(said) = self.answers.remove(key) {
            self.uses.remove(&said.last_use);
            self.bytes -= cost(key, &said);
        }
    }
}

fn cost(key: &Key, said: &Said) -> usize {
    let value = said
        .found
        .as_ref()
        .map_or(0, |found| found.entry.value.len());
    OVERHEAD + key.as_str().len() + value
}

/// Rounded up, as it travels: an age is never told too small.
fn whole_ms(age: Duration) -> Duration {
    Duration::from_millis(u64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
