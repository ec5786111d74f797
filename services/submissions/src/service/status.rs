//! How a submission stands, at once or when it has changed.

use std::time::Duration;

use hydrant_records::{RecordsError, Row, Transaction, params, read};
use hydrant_sdk::Error;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout_at};

use super::{Desk, unknown};
use crate::attachments;
use crate::proto::{GetRequest, Status, Step};

/// The longest that somebody may wait for a change.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// How often is looked for what another process has changed.
const LOOK: Duration = Duration::from_millis(250);
/// How many changes are remembered for who is slow to hear; who misses one looks soon anyway.
const REMEMBERED: usize = 1024;

/// The ids of submissions that this process changes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Changes(broadcast::Sender<String>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(REMEMBERED))
    }
}

impl Changes {
    /// Says that a submission has changed.
    pub(crate) fn tell(&self, id: &str) {
        // Nobody may be waiting.
        let _ = self.0.send(id.to_owned());
    }
}

/// How a submission stands; when the caller knows that already, as soon as it has changed or the caller's
/// time is over.
///
/// # Errors
///
/// If there is none of this id, or the database does not answer.
pub(super) async fn get(desk: &Desk, request: &GetRequest) -> Result<Status, Error> {
    let wait = Duration::from_millis(request.wait_ms.into()).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut changes = desk.changes.0.subscribe();
    loop {
        let status = now(desk, &request.id).await?;
        if status.version != request.known_version || Instant::now() >= deadline {
            return Ok(status);
        }
        let look = deadline.min(Instant::now() + LOOK);
        let _ = timeout_at(look, told(&mut changes, &request.id)).await;
    }
}

async fn told(changes: &mut broadcast::Receiver<String>, id: &str) {
    while changes.recv().await.is_ok_and(|changed| changed != id) {}
}

async fn now(desk: &Desk, id: &str) -> Result<Status, Error> {
    let records = desk.tables.ready().await?;
    let status = read!(records, |tx| read(tx, id).await)?;
    status.ok_or_else(|| unknown(id))
}

/// How a submission stands, as a transaction sees it.
pub(super) async fn read(tx: &mut Transaction, id: &str) -> Result<Option<Status>, RecordsError> {
    let select = "SELECT form, state, accepted_ms, submitted_ms, reference, version \
                  FROM submissions WHERE id = ?";
    let rows = tx.query(select, &params![id]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let attachments = attachments::of_submission(tx, id).await?;
    let select = "SELECT step, consumer, kind, state, attempts, ended_ms, reason \
                  FROM submission_steps WHERE submission = ? ORDER BY step";
    let steps = tx.query(select, &params![id]).await?;
    Ok(Some(Status {
        id: id.to_owned(),
        form: row.get(0)?,
        state: row.get(1)?,
        accepted_unix_ms: row.get(2)?,
        submitted_unix_ms: row.get(3)?,
        reference: row.get(4)?,
        version: row.get::<i64>(5)? as u64,
        attachments,
        steps: steps.iter().map(read_step).collect::<Result<_, _>>()?,
        ..Default::default()
    }))
}

fn read_step(row: &Row) -> Result<Step, RecordsError> {
    Ok(Step {
        number: row.get::<i64>(0)? as u32,
        consumer: row.get(1)?,
        kind: row.get(2)?,
        state: row.get(3)?,
        attempts: row.get::<i64>(4)? as u32,
        done_unix_ms: row.get(5)?,
        reason: row.get(6)?,
        ..Default::default()
    })
}
