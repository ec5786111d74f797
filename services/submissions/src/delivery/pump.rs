//! One consumer's share of the queue: claimed as there is room, brought there, and reported.

use std::sync::Arc;
use std::time::Duration;

use hydrant_runtime::Backoff;
use hydrant_sdk::Context;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Keeper;
use super::breaker::{Breaker, Room};
use super::courier::Courier;
use super::lease::{Held, Leases};
use super::outcome::{Done, Failure, Trouble};
use super::pace::Pace;
use crate::forms::Flow;
use crate::proto::report_request::Outcome;
use crate::proto::{ClaimRequest, Delivered, Failed, ReportRequest, Task};

/// How long an answer may take, beyond the wait that was asked for.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that is claimed at once.
const MOST: u32 = 64;
/// The waits while who has the queue is away.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// How often the wait has doubled before what can't be had here is tried again.
const OURS: u32 = 3;

pub(super) struct Pump {
    shared: Arc<Shared>,
    pace: Pace,
}

/// What the jobs of one consumer share.
struct Shared {
    name: String,
    flow: Flow,
    worker: String,
    courier: Courier,
    breaker: Breaker,
    leases: Leases,
    keeper: Arc<Keeper>,
}

impl Pump {
    pub(super) fn new(
        name: &str,
        flow: &Flow,
        courier: Courier,
        worker: &str,
        keeper: &Arc<Keeper>,
    ) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            worker: worker.to_owned(),
            courier,
            breaker: Breaker::new(flow.breaker, flow.concurrency),
            leases: Leases::new(flow.lease),
            keeper: Arc::clone(keeper),
            flow: flow.clone(),
        };
        Self {
            pace: Pace::new(shared.flow.rate),
            shared: Arc::new(shared),
        }
    }

    /// Works for as long as the process does.
    pub(super) async fn run(mut self) {
        let mut jobs = JoinSet::new();
        let (leases, keeper) = (self.shared.leases.clone(), self.shared.keeper.clone());
        let mut waits = Backoff::new(FIRST, LONGEST);
        let work = async {
            loop {
                while jobs.try_join_next().is_some() {}
                match self.shared.breaker.room(jobs.len() as u32) {
                    Room::Full => drop(jobs.join_next().await),
                    Room::From(time) => sleep_until(time).await,
                    Room::Probe => self.begin(1, &mut jobs, &mut waits).await,
                    Room::For(room) => self.begin(room, &mut jobs, &mut waits).await,
                }
            }
        };
        tokio::join!(work, leases.renew(keeper));
    }

    /// Begins with up to `room` submissions, as soon as there is one.
    async fn begin(&mut self, room: u32, jobs: &mut JoinSet<()>, waits: &mut Backoff) {
        let limit = self.pace.take(room.min(MOST)).await;
        let asked = Instant::now();
        match self.shared.claim(limit).await {
            Ok(tasks) => {
                waits.reset();
                self.pace
                    .give_back(limit.saturating_sub(tasks.len() as u32));
                for task in tasks {
                    let leases = &self.shared.leases;
                    let held = leases.hold(&task.id, task.step, task.epoch, asked);
                    jobs.spawn(Arc::clone(&self.shared).job(task, held));
                }
            }
            Err(error) => {
                self.pace.give_back(limit);
                if waits.attempts() == 0 {
                    tracing::warn!(consumer = self.shared.name, %error, "no work can be had");
                }
                sleep(waits.next_wait()).await;
            }
        }
    }
}

impl Shared {
    async fn claim(&self, limit: u32) -> Result<Vec<Task>, String> {
        let wait = self.leases.longest_wait();
        let request = ClaimRequest {
            consumer: self.name.clone(),
            worker: self.worker.clone(),
            limit,
            lease_ms: self.leases.lease_ms(),
            wait_ms: wait.as_millis() as u32,
            ..Default::default()
        };
        match timeout(wait + ANSWER, self.keeper.claim(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_owned().tasks),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".into()),
        }
    }

    /// One attempt, in the context of its submission: its id is on every line of the log.
    async fn job(self: Arc<Self>, task: Task, held: Held) {
        let mut context = Context::new();
        if let Ok(id) = task.id.parse() {
            context.correlation_id = id;
        }
        context.scope(self.attempt(&task, &held)).await;
    }

    async fn attempt(&self, task: &Task, held: &Held) {
        // While the consumer is not known to be well, a failure says nothing of the submission.
        let is_probe = self.breaker.is_open();
        let ended = tokio::select! {
            biased;
            () = held.lost() => {
                tracing::warn!(consumer = self.name, "the lease was lost, another one goes on");
                return;
            }
            ended = self.courier.deliver(task, held) => ended,
        };
        let outcome = match ended {
            Ok(done) => self.done(task, done),
            Err(failure) => self.failed(task, failure, is_probe),
        };
        self.report(held, outcome).await;
    }

    fn done(&self, task: &Task, done: Done) -> Outcome {
        self.breaker.succeeded();
        tracing::info!(consumer = self.name, attempt = task.attempt, "delivered");
        Delivered {
            reference: done.reference,
            evidence: done.evidence.to_string(),
            ..Default::default()
        }
        .into()
    }

    fn failed(&self, task: &Task, failure: Failure, is_probe: bool) -> Outcome {
        match failure.trouble {
            Trouble::Refused => self.breaker.succeeded(),
            _ if self.breaker.failed(&failure) => {
                let reason = failure.reason.escape_debug();
                tracing::error!(consumer = self.name, %reason, "the consumer is left alone for a while");
            }
            _ => {}
        }
        let is_counted = failure.trouble == Trouble::Failing && !is_probe;
        let is_last = is_counted && task.attempt >= self.flow.attempts;
        let is_final = is_last || failure.trouble == Trouble::Refused;
        let wait = match failure.trouble {
            // Nothing holds these back but their own waits.
            Trouble::Ours => self.flow.backoff.draw(OURS),
            _ if is_counted => self.flow.backoff.draw(task.attempt.saturating_sub(1)),
            _ => self.breaker.wait_behind(),
        };
        let wait = failure.retry_after.map_or(wait, |asked| asked.max(wait));
        let reason = match is_last {
            true => format!("after {} attempts: {}", task.attempt, failure.reason),
            false => failure.reason,
        };
        let shown = reason.escape_debug();
        tracing::warn!(consumer = self.name, attempt = task.attempt, is_final, reason = %shown, "not delivered");
        Failed {
            reason,
            is_final,
            retry_in_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            not_counted: !is_counted,
            ..Default::default()
        }
        .into()
    }

    /// Reports for as long as the lease is held: after that nobody would listen.
    async fn report(&self, held: &Held, outcome: Outcome) {
        let request = ReportRequest {
            lease: held.lease().into(),
            outcome: Some(outcome),
            ..Default::default()
        };
        let mut waits = Backoff::new(FIRST, LONGEST);
        while held.is_held() {
            let answer = timeout(ANSWER, self.keeper.report(request.clone())).await;
            match answer.map(|answer| answer.map(|answer| answer.into_owned().kept)) {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(%error, "an outcome could not be reported"),
                Err(_) => tracing::warn!("an outcome could not be reported: no answer"),
            }
            sleep(waits.next_wait()).await;
        }
        let consumer = &self.name;
        tracing::warn!(
            consumer,
            "an outcome did not count: another one has the lease"
        );
    }
}
