use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_contracts::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::instance::Live;
use crate::tls::{Protocol, Tls};
use crate::upstream::{connect, connect_node};

/// How long an instance may take to accept the connection of a probe, and a node to answer it.
const LIMIT: Duration = Duration::from_secs(1);
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

    /// Connects to ejected instances when their trial is due, and readmits those that accept; the
    /// nodes of other servers must also answer. Runs for ever: one worker runs it, as a task.
    pub(crate) async fn run(&self, tls: Option<&Tls>) {
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
            let due = self.take_due(Moment::now());
            let trials = due.into_iter().map(|live| probe(live, tls));
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
        let due = |live: &&Arc<Live>| live.ejection().claim_trial(now, LIMIT * 2);
        waiting
            .iter()
            .filter(due)
            .take(MAX_PROBES)
            .cloned()
            .collect()
    }
}

async fn probe(live: Arc<Live>, tls: Option<&Tls>) {
    let trial = async {
        match live.node() {
            None => connect(live.address(), LIMIT).await.map(drop),
            Some(server) => ask(server, live.address(), tls).await,
        }
    };
    match tokio::time::timeout(LIMIT, trial).await {
        Ok(Ok(())) => live.ejection().readmit(),
        _ => live.ejection().trial_failed(Moment::now()),
    }
}

/// The system accepts connections for a node that is frozen: only an answer shows that it lives.
async fn ask(server: &ServerName, address: SocketAddr, tls: Option<&Tls>) -> io::Result<()> {
    let mut node = connect_node(server, address, tls, Protocol::Http1, LIMIT).await?;
    let request = format!("OPTIONS * HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    node.write_all(request.as_bytes()).await?;
    node.flush().await?;
    let mut begin = [0; 7];
    node.read_exact(&mut begin).await?;
    match &begin {
        b"HTTP/1." => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
