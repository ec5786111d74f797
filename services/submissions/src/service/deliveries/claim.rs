//! Leases: a step belongs to one worker for a while, under an epoch that grows with each lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hydrant_records::{Records, RecordsError, Row, Transaction, params, read, transaction};
use hydrant_sdk::{Code, Error};
use tokio::time::{Instant, timeout_at};

use super::{LEASE, MAX_WORKER, invalid};
use crate::attachments;
use crate::proto::{ClaimRequest, ClaimResponse, Lease, Origin, RenewRequest, RenewResponse, Task};
use crate::service::Desk;

/// The longest that a worker may wait for work.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// How often is looked for what another process has put into the queue.
const LOOK: Duration = Duration::from_millis(250);
/// The most steps of one claim, and the most leases of one renewal.
const MAX_STEPS: u32 = 64;
const MAX_LEASES: usize = 1024;
/// How many bytes of fields one answer has, at least one step apart.
const MAX_BYTES: usize = 2 << 20;
/// How often a claim is tried again at once, when others were quicker with all of it.
const RACES: u32 = 8;

/// Which store had the last turn at each consumer, as far as this process gives turns. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, String>>>);

impl Turns {
    fn last(&self, consumer: &str) -> Option<String> {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.get(consumer).cloned()
    }

    fn set(&self, consumer: &str, store: &str) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.insert(consumer.to_owned(), store.to_owned());
    }
}

/// A step that may be leased, as it was seen: with another epoch or in another state it is somebody else's.
struct Candidate {
    state: String,
    epoch: i64,
    task: Task,
}

/// Leases steps of a consumer, at once or as soon as there are some.
///
/// # Errors
///
/// If there is no such consumer, or the database does not answer.
pub(super) async fn claim(
    desk: &Desk,
    turns: &Turns,
    request: &ClaimRequest,
) -> Result<ClaimResponse, Error> {
    check(desk, request)?;
    let wait = Duration::from_millis(request.wait_ms.into()).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut work = desk.work.0.subscribe();
    loop {
        work.mark_unchanged();
        let tasks = now(desk, turns, request).await?;
        if !tasks.is_empty() || Instant::now() >= deadline {
            return Ok(ClaimResponse {
                tasks,
                ..Default::default()
            });
        }
        let look = deadline.min(Instant::now() + LOOK);
        let _ = timeout_at(look, work.changed()).await;
    }
}

fn check(desk: &Desk, request: &ClaimRequest) -> Result<(), Error> {
    if desk.forms.consumer(&request.consumer).is_none() {
        let message = "service/submissions knows no consumer of this name";
        return Err(Error::new(Code::NotFound, "unknown_consumer", message)
            .mend("give all processes of submissions the same file of forms"));
    }
    if request.worker.is_empty() || request.worker.len() > MAX_WORKER {
        return Err(invalid("a worker says who it is, in at most 100 bytes"));
    }
    if !(1..=MAX_STEPS).contains(&request.limit) {
        return Err(invalid("from 1 to 64 steps are claimed"));
    }
    lease_of(request.lease_ms).map(drop)
}

fn lease_of(lease_ms: u32) -> Result<i64, Error> {
    match LEASE.contains(&Duration::from_millis(lease_ms.into())) {
        true => Ok(lease_ms.into()),
        false => Err(invalid("a lease is from 500 ms to 600 s long")),
    }
}

async fn now(desk: &Desk, turns: &Turns, request: &ClaimRequest) -> Result<Vec<Task>, Error> {
    let records = desk.tables.ready().await?;
    for _ in 0..RACES {
        let now = desk.clock.unix_ms();
        let last = turns.last(&request.consumer);
        let candidates = read!(records, |tx| {
            candidates(tx, request, last.as_deref(), now).await
        })?;
        let Some(newest) = candidates.last() else {
            return Ok(Vec::new());
        };
        if let Some(origin) = newest.task.origin.as_option() {
            turns.set(&request.consumer, &origin.store);
        }
        let tasks = lease(&records, candidates, request, now).await?;
        if !tasks.is_empty() {
            return Ok(tasks);
        }
    }
    Ok(Vec::new())
}

/// What may be leased now: leases that ran out, and then of each store in turn its oldest.
async fn candidates(
    tx: &mut Transaction,
    request: &ClaimRequest,
    last: Option<&str>,
    now: i64,
) -> Result<Vec<Candidate>, RecordsError> {
    let (consumer, limit) = (&request.consumer, request.limit as usize);
    let mut steps = run_out(tx, consumer, now, limit).await?;
    let left = limit - steps.len();
    let stores = stores(tx, consumer, last, now, left).await?;
    let each = left.div_ceil(stores.len().max(1));
    let mut queues = Vec::new();
    for store in &stores {
        queues.push(oldest(tx, consumer, store, now, each).await?);
    }
    for turn in 0..each {
        steps.extend(queues.iter().filter_map(|queue| queue.get(turn).cloned()));
    }
    steps.truncate(limit);
    with_tasks(tx, &steps).await
}

type Step = (String, i64);

async fn run_out(
    tx: &mut Transaction,
    consumer: &str,
    now: i64,
    limit: usize,
) -> Result<Vec<Step>, RecordsError> {
    let select = "SELECT submission, step FROM submission_steps \
                  WHERE state = 'leased' AND consumer = ? AND lease_until_ms <= ? \
                  ORDER BY submitted_ms LIMIT ?";
    let rows = tx
        .query(select, &params![consumer, now, limit as i64])
        .await?;
    rows.iter().map(read_step).collect()
}

/// The stores whose turn it is, beginning behind the one that had the last.
async fn stores(
    tx: &mut Transaction,
    consumer: &str,
    last: Option<&str>,
    now: i64,
    limit: usize,
) -> Result<Vec<String>, RecordsError> {
    let mut found: Vec<String> = Vec::new();
    let mut before = last.map(str::to_owned);
    while found.len() < limit {
        let next = next_store(tx, consumer, before.as_deref(), now).await?;
        match next {
            Some(store) if found.contains(&store) => break,
            Some(store) => {
                before = Some(store.clone());
                found.push(store);
            }
            // Behind the last store comes the first one.
            None if before.take().is_none() => break,
            None => {}
        }
    }
    Ok(found)
}

async fn next_store(
    tx: &mut Transaction,
    consumer: &str,
    before: Option<&str>,
    now: i64,
) -> Result<Option<String>, RecordsError> {
    let rows = match before {
        Some(before) => {
            let select = "SELECT store FROM submission_steps WHERE state = 'ready' \
                          AND consumer = ? AND store > ? AND due_ms <= ? ORDER BY store LIMIT 1";
            tx.query(select, &params![consumer, before, now]).await?
        }
        None => {
            let select = "SELECT store FROM submission_steps WHERE state = 'ready' \
                          AND consumer = ? AND due_ms <= ? ORDER BY store LIMIT 1";
            tx.query(select, &params![consumer, now]).await?
        }
    };
    rows.first().map(|row| row.get(0)).transpose()
}

async fn oldest(
    tx: &mut Transaction,
    consumer: &str,
    store: &str,
    now: i64,
    limit: usize,
) -> Result<Vec<Step>, RecordsError> {
    let select = "SELECT submission, step FROM submission_steps WHERE state = 'ready' \
                  AND consumer = ? AND store = ? AND due_ms <= ? ORDER BY submitted_ms LIMIT ?";
    let params = params![consumer, store, now, limit as i64];
    let rows = tx.query(select, &params).await?;
    rows.iter().map(read_step).collect()
}

fn read_step(row: &Row) -> Result<Step, RecordsError> {
    Ok((row.get(0)?, row.get(1)?))
}

async fn with_tasks(tx: &mut Transaction, steps: &[Step]) -> Result<Vec<Candidate>, RecordsError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (id, step) in steps {
        let Some(candidate) = candidate(tx, id, *step).await? else {
            continue;
        };
        bytes += candidate.task.fields.len();
        if bytes > MAX_BYTES && !found.is_empty() {
            break;
        }
        found.push(candidate);
    }
    Ok(found)
}

async fn candidate(
    tx: &mut Transaction,
    id: &str,
    step: i64,
) -> Result<Option<Candidate>, RecordsError> {
    let select = "SELECT t.state, t.epoch, t.attempts, s.form, s.fields, s.store, s.person, \
                  s.session, s.accepted_ms, s.submitted_ms, s.reference \
                  FROM submission_steps t JOIN submissions s ON s.id = t.submission \
                  WHERE t.submission = ? AND t.step = ?";
    let rows = tx.query(select, &params![id, step]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let attachments = attachments::of_submission(tx, id).await?;
    let epoch: i64 = row.get(1)?;
    let task = Task {
        id: id.to_owned(),
        step: step as u32,
        epoch: epoch as u64 + 1,
        attempt: row.get::<i64>(2)? as u32 + 1,
        form: row.get(3)?,
        fields: row.get(4)?,
        origin: Origin {
            store: row.get(5)?,
            user: row.get(6)?,
            session: row.get(7)?,
            ..Default::default()
        }
        .into(),
        accepted_unix_ms: row.get(8)?,
        submitted_unix_ms: row.get::<Option<i64>>(9)?.unwrap_or_default(),
        reference: row.get(10)?,
        attachments,
        ..Default::default()
    };
    let state = row.get(0)?;
    Ok(Some(Candidate { state, epoch, task }))
}

/// Takes those that are still as they were seen.
async fn lease(
    records: &Records,
    candidates: Vec<Candidate>,
    request: &ClaimRequest,
    now: i64,
) -> Result<Vec<Task>, Error> {
    let until = now + lease_of(request.lease_ms)?;
    let taken = transaction!(records, |tx| {
        let mut taken = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            taken.push(take(tx, candidate, &request.worker, until).await?);
        }
        Ok::<Vec<bool>, RecordsError>(taken)
    })?;
    let both = candidates.into_iter().zip(taken);
    Ok(both
        .filter_map(|(candidate, is_ours)| is_ours.then_some(candidate.task))
        .collect())
}

async fn take(
    tx: &mut Transaction,
    candidate: &Candidate,
    worker: &str,
    until: i64,
) -> Result<bool, RecordsError> {
    let update = "UPDATE submission_steps SET state = 'leased', epoch = epoch + 1, worker = ?, \
                  lease_until_ms = ? WHERE submission = ? AND step = ? AND state = ? AND epoch = ?";
    let params = params![
        worker,
        until,
        &candidate.task.id,
        i64::from(candidate.task.step),
        &candidate.state,
        candidate.epoch
    ];
    Ok(tx.execute(update, &params).await? == 1)
}

/// Holds leases for longer; tells which are not held any more.
///
/// # Errors
///
/// If there are too many, or the database does not answer.
pub(super) async fn renew(desk: &Desk, request: &RenewRequest) -> Result<RenewResponse, Error> {
    if request.leases.len() > MAX_LEASES {
        return Err(invalid("at most 1024 leases are renewed at a time"));
    }
    let until = desk.clock.unix_ms() + lease_of(request.lease_ms)?;
    let records = desk.tables.ready().await?;
    let lost = transaction!(records, |tx| {
        let mut lost = Vec::new();
        for lease in &request.leases {
            if !hold(tx, lease, until).await? {
                lost.push(lease.clone());
            }
        }
        Ok::<_, RecordsError>(lost)
    })?;
    Ok(RenewResponse {
        lost,
        ..Default::default()
    })
}

async fn hold(tx: &mut Transaction, lease: &Lease, until: i64) -> Result<bool, RecordsError> {
    let update = "UPDATE submission_steps SET lease_until_ms = ? \
                  WHERE submission = ? AND step = ? AND epoch = ? AND state = 'leased'";
    let params = params![
        until,
        &lease.id,
        i64::from(lease.step),
        i64::try_from(lease.epoch).unwrap_or(i64::MAX)
    ];
    Ok(tx.execute(update, &params).await? == 1)
}
