//! Connections that wait for their next submission.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use crate::delivery::outcome::Failure;
use crate::forms::Sftp;

/// How long a connection may wait.
const IDLE: Duration = Duration::from_secs(60);

/// The connections of one consumer; there are never more than submissions are under way.
#[derive(Default)]
pub(in crate::delivery) struct SftpPool(Mutex<Vec<(Connection, Instant)>>);

impl SftpPool {
    /// A connection that answers: one that waits, or a new one.
    pub(in crate::delivery) async fn take(&self, sftp: &Sftp) -> Result<Connection, Failure> {
        while let Some(connection) = self.youngest() {
            if connection.is_well().await {
                return Ok(connection);
            }
        }
        Connection::open(sftp).await
    }

    /// Keeps a connection on which nothing went wrong.
    pub(in crate::delivery) fn give_back(&self, connection: Connection) {
        self.idle().push((connection, Instant::now()));
    }

    fn youngest(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
