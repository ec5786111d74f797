use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::configuration::Merged;
use crate::configuration::set::LayerSet;

/// The most merges that are kept, in bytes of JSON.
const MAX_BYTES: usize = 16 << 20;
/// What one merge takes beside its JSON, about.
const OVERHEAD: usize = 512;

/// What sets of layers were merged to. When it is full, all are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    merges: HashMap<LayerSet, Arc<Merged>>,
    bytes: usize,
}

impl Memo {
    pub(crate) fn get_or(&self, set: LayerSet, merge: impl FnOnce() -> Merged) -> Arc<Merged> {
        if let Some(merged) = self.kept(|kept| kept.merges.get(&set).cloned()) {
            return merged;
        }
        let merged = Arc::new(merge());
        self.kept(|kept| kept.put(set, &merged));
        merged
    }

    fn kept<T>(&self, work: impl FnOnce(&mut Kept) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn put(&mut self, set: LayerSet, merged: &Arc<Merged>) {
        // The value takes a few times the space of its text.
        let size = OVERHEAD + 4 * merged.json.len();
        if self.bytes + size > MAX_BYTES {
            *self = Self::default();
        }
        if self.merges.insert(set, Arc::clone(merged)).is_none() {
            self.bytes += size;
        }
    }
}
