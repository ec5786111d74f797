use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::instance::Live;

/// How long an instance may take to accept the connection of a probe.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Probes that run at once.
const MAX_PROBES: usize = 64;

/// The instances that refuse connections, for the task that asks them whether they still do.
#[derive(Debug, Default)]
pub struct ProbeQueue {
    waiting: Mutex<Vec<Arc<Live>>>,
    added: Notify,
}

impl ProbeQueue {
    pub(crate) fn push(&self, live: Arc<Live>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| Arc::ptr_eq(other, &live)) {
            waiting.push(live);
        }
        drop(waiting);
        self.added.notify_one();
    }

    /// Connects to ejected instances when their trial is due, and readmits those that accept.
    /// Runs for ever: one worker runs it, as a task.
    pub async fn run(&self) {
        loop {
            let Some(next) = self.next_trial() else {
                self.added.notified().await;
                continue;
            };
            let wait = next.since(Moment::now());
            if !wait.is_zero() {
                let _ = tokio::time::timeout(wait, self.added.notified()).await;
                continue;
            }
            let trials = self.take_due(Moment::now()).into_iter().map(probe);
            futures::future::join_all(trials).await;
        }
    }

    /// When the next trial is due. Forgets those that are in again, and those that are no more.
    fn next_trial(&self) -> Option<Moment> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .retain(|live| live.ejection().next_trial().is_some() && Arc::strong_count(live) > 1);
        waiting
            .iter()
            .filter_map(|live| live.ejection().next_trial())
            .min()
    }

    fn take_due(&self, now: Moment) -> Vec<Arc<Live>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |live: &&Arc<Live>| live.ejection().claim_trial(now, CONNECT_LIMIT * 2);
        waiting
            .iter()
            .filter(due)
            .take(MAX_PROBES)
            .cloned()
            .collect()
    }
}

async fn probe(live: Arc<Live>) {
    let connect = TcpStream::connect(live.address());
    match tokio::time::timeout(CONNECT_LIMIT, connect).await {
        Ok(Ok(_)) => live.ejection().readmit(),
        _ => live.ejection().trial_failed(Moment::now()),
    }
}
