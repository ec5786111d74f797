use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::budget::Budget;
use crate::counter::Count;
use crate::histogram::Histogram;
use crate::limit::Pace;
use crate::shed::Shedding;

/// The most endpoints of one service that are counted each by itself.
const MAX_ENDPOINTS: usize = CHUNK * CHUNK;
const CHUNK: usize = 64;

/// An endpoint of a service: the same number in every snapshot, for counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointId(u16);

impl EndpointId {
    pub(crate) const fn from_number(number: u16) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u16 {
        self.0
    }
}

/// What lives as long as a service, over all snapshots: the numbers of its endpoints, and what
/// its requests may be repeated.
#[derive(Debug)]
pub struct ServiceLive {
    names: Mutex<Names>,
    /// One for each worker.
    budgets: Box<[Budget]>,
    shedding: Shedding,
    panics: AtomicBool,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<str>, EndpointId>,
    names: Vec<Arc<str>>,
}

impl ServiceLive {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let others = Names {
            ids: HashMap::new(),
            names: vec!["others".into()],
        };
        Arc::new(Self {
            names: Mutex::new(others),
            budgets: (0..workers.max(1)).map(|_| Budget::default()).collect(),
            shedding: Shedding::new(workers),
            panics: AtomicBool::new(false),
        })
    }

    /// The retry budget of `worker`.
    pub fn budget(&self, worker: usize) -> &Budget {
        &self.budgets[worker]
    }

    /// What was refused because its instances had all that they can answer.
    pub(crate) fn shedding(&self) -> &Shedding {
        &self.shedding
    }

    /// Notes whether so many instances are out that all are used; tells whether it was so before.
    pub(crate) fn panics(&self, panics: bool) -> bool {
        self.panics.swap(panics, Relaxed)
    }

    /// Whether so many instances are out that all are used.
    pub(crate) fn is_panicking(&self) -> bool {
        self.panics.load(Relaxed)
    }

    /// The number of an endpoint, by its name. Number 0 stands for all beyond the limit.
    pub(crate) fn endpoint(&self, name: &str) -> EndpointId {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = names.ids.get(name) {
            return *id;
        }
        if names.names.len() >= MAX_ENDPOINTS {
            return EndpointId(0);
        }
        let (name, id): (Arc<str>, _) = (name.into(), EndpointId(names.names.len() as u16));
        names.names.push(Arc::clone(&name));
        names.ids.insert(name, id);
        id
    }

    pub(crate) fn endpoint_name(&self, id: EndpointId) -> Arc<str> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&names.names[usize::from(id.0)])
    }
}

/// Counters of one endpoint at one instance, written by one worker.
#[derive(Debug, Default)]
pub(crate) struct EndpointCounters {
    pub(crate) requests: Count,
    pub(crate) errors: Count,
    pub(crate) latency: Histogram,
    pub(crate) pace: Pace,
}

type Chunk = [OnceLock<Box<EndpointCounters>>; CHUNK];

/// Counters by endpoint, in memory only once they are used.
#[derive(Debug)]
pub(crate) struct EndpointTable([OnceLock<Box<Chunk>>; CHUNK]);

impl Default for EndpointTable {
    fn default() -> Self {
        Self([const { OnceLock::new() }; CHUNK])
    }
}

impl EndpointTable {
    pub(crate) fn get(&self, id: EndpointId) -> &EndpointCounters {
        let (chunk, at) = (usize::from(id.0) / CHUNK, usize::from(id.0) % CHUNK);
        let chunk =
            self.0[chunk % CHUNK].get_or_init(|| Box::new([const { OnceLock::new() }; CHUNK]));
        chunk[at].get_or_init(Box::default)
    }

    pub(crate) fn used(&self) -> impl Iterator<Item = (EndpointId, &EndpointCounters)> {
        let chunks = self.0.iter().enumerate();
        chunks
            .filter_map(|(at, chunk)| Some((at, chunk.get()?)))
            .flat_map(|(chunk_at, chunk)| {
                let counters = chunk.iter().enumerate();
                counters.filter_map(move |(at, counters)| {
                    let id = EndpointId((chunk_at * CHUNK + at) as u16);
                    Some((id, &**counters.get()?))
                })
            })
    }
}
