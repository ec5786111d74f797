//! What the writer has decided and not yet made durable.

use std::collections::{BTreeMap, HashMap};

use hydrant_ports::coordination::SeatName;
use hydrant_ports::{EngineError, Key};

use crate::error::unavailable;
use crate::image::Record;
use crate::queue::{Port, Reply};
use crate::seats::Waiter;

/// An answer that waits for the commit; it is told why there was none.
pub(super) type Answer = Box<dyn FnOnce(Option<&str>) + Send>;

/// What is decided and not yet durable. Discarded as a whole when the commit fails.
pub(super) struct Batch {
    pub(super) now_ms: i64,
    pub(super) coordination: BTreeMap<Key, Option<Record>>,
    pub(super) state: BTreeMap<Key, Option<Record>>,
    pub(super) marks: HashMap<Key, u64>,
    pub(super) epochs: HashMap<Key, u64>,
    pub(super) reserved: Option<u64>,
    /// How much larger the ports are behind it, in bytes.
    pub(super) growth: [isize; 2],
    pub(super) answers: Vec<Answer>,
    pub(super) grants: Vec<(SeatName, Waiter, u64)>,
}

impl Batch {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            now_ms,
            coordination: BTreeMap::new(),
            state: BTreeMap::new(),
            marks: HashMap::new(),
            epochs: HashMap::new(),
            reserved: None,
            growth: [0; 2],
            answers: Vec::new(),
            grants: Vec::new(),
        }
    }

    pub(super) fn keys(&self, port: Port) -> &BTreeMap<Key, Option<Record>> {
        match port {
            Port::Coordination => &self.coordination,
            Port::State => &self.state,
        }
    }

    pub(super) fn keys_mut(&mut self, port: Port) -> &mut BTreeMap<Key, Option<Record>> {
        match port {
            Port::Coordination => &mut self.coordination,
            Port::State => &mut self.state,
        }
    }

    /// Answers once the batch is durable.
    pub(super) fn answer<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, EngineError>,
    ) {
        self.answers.push(Box::new(move |failure| {
            // Who asked may have left.
            let _ = reply.send(match failure {
                None => result,
                Some(why) => Err(unavailable(why)),
            });
        }));
    }
}
