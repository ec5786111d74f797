use crate::counter::Count;
use crate::refusal::Reason;

/// What the router counts beside the instances: one row for each worker, which alone writes it.
#[derive(Debug)]
pub struct Totals {
    workers: Box<[Row]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Row {
    refused: [Count; Reason::ALL.len()],
    handshakes_failed: Count,
}

impl Totals {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Row::default()).collect(),
        }
    }

    /// Counts a request that `worker` answered itself.
    pub fn refused(&self, worker: usize, reason: Reason) {
        self.workers[worker].refused[reason.index()].add(1);
    }

    /// Counts a client that did not finish its TLS handshake with `worker`.
    pub(crate) fn handshake_failed(&self, worker: usize) {
        self.workers[worker].handshakes_failed.add(1);
    }

    /// How many clients did not finish their TLS handshake, over all workers.
    pub fn handshakes_failed(&self) -> u64 {
        let rows = self.workers.iter();
        rows.map(|row| row.handshakes_failed.get()).sum()
    }

    /// How many requests were refused for this reason, over all workers.
    pub fn refusals(&self, reason: Reason) -> u64 {
        let rows = self.workers.iter();
        rows.map(|row| row.refused[reason.index()].get()).sum()
    }
}
