use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::InstanceId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Context;
use super::adopt::sweep;
use super::launch::launch;
use super::record::Record;
use super::spec::{ProcessState, ServiceSpec, SupervisedProcess};
use crate::process::{Exit, GOOD_RUN, Process, Restarts};

/// How long the last requests of an instance that is not wanted any more may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How long the kernel gets to end a process after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_millis(500);

/// When a process that is to stop has to be how far.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopPlan {
    /// Drained or not, it gets SIGTERM.
    pub(super) terminate_at: Instant,
    /// Ended or not, its group gets SIGKILL.
    pub(super) kill_at: Instant,
}

impl StopPlan {
    pub(super) fn new(drain: Duration, stop: Duration) -> Self {
        let terminate_at = Instant::now() + drain;
        Self {
            terminate_at,
            kill_at: terminate_at + stop,
        }
    }

    fn sooner(self, other: Self) -> Self {
        Self {
            terminate_at: self.terminate_at.min(other.terminate_at),
            kill_at: self.kill_at.min(other.kill_at),
        }
    }
}

/// One of a service's processes: a task that keeps it running until it is told to stop.
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) spec: Arc<ServiceSpec>,
    order: watch::Sender<Option<StopPlan>>,
    shared: Arc<Mutex<Status>>,
    task: JoinHandle<()>,
}

struct Status {
    process: SupervisedProcess,
    next_start: Option<Instant>,
    /// Since when it runs.
    runs_since: Option<Instant>,
}

impl Slot {
    /// Keeps a process running: the adopted one if there is one, else a new one. `restart` is off
    /// for a process that is only kept until its replacement is ready.
    pub(super) fn start(
        context: Arc<Context>,
        spec: Arc<ServiceSpec>,
        index: u32,
        adopted: Option<(Record, Process)>,
        restart: bool,
    ) -> Self {
        let (order, orders) = watch::channel(None);
        let restarts = adopted.as_ref().map_or(0, |(record, _)| record.restarts);
        let shared = Arc::new(Mutex::new(Status::new(index, restarts)));
        let keeper = Keeper {
            context,
            spec: spec.clone(),
            index,
            shared: shared.clone(),
            orders,
            restarts: Restarts::new(),
            lived: Duration::ZERO,
        };
        let first = match adopted {
            Some((record, process)) => Some(keeper.adopted(record, process)),
            // Before the task first runs, so that the status has the process at once.
            None => keeper.launch(),
        };
        let task = tokio::spawn(keeper.keep(first, restart));
        Self {
            index,
            spec,
            order,
            shared,
            task,
        }
    }

    /// Drains and stops it. A second call may only make it sooner.
    pub(super) fn stop(&self, plan: StopPlan) {
        give(&self.order, plan);
    }

    /// The plan for a process that is not wanted any more while the node goes on.
    pub(super) fn unwanted(&self) -> StopPlan {
        StopPlan::new(DRAIN_LIMIT, self.spec.stop_timeout)
    }

    /// Something that stops it later, as not wanted any more.
    pub(super) fn stopper(&self) -> impl FnOnce() + Send + use<> {
        let (order, stop_timeout) = (self.order.clone(), self.spec.stop_timeout);
        move || give(&order, StopPlan::new(DRAIN_LIMIT, stop_timeout))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.order.borrow().is_some()
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.task.is_finished()
    }

    pub(super) async fn stopped(mut self) {
        // A task that panicked has nothing to say either.
        let _ = (&mut self.task).await;
    }

    pub(super) fn status(&self) -> SupervisedProcess {
        let status = lock(&self.shared);
        let is_well = status
            .runs_since
            .is_some_and(|since| since.elapsed() >= GOOD_RUN);
        SupervisedProcess {
            short_runs: match is_well {
                true => 0,
                false => status.process.short_runs,
            },
            next_start: status
                .next_start
                .map(|at| at.saturating_duration_since(Instant::now())),
            ..status.process.clone()
        }
    }
}

impl Drop for Slot {
    /// The process lives on, but nobody starts it again: that is the next supervisor's part.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Status {
    fn new(slot: u32, restarts: u32) -> Self {
        Self {
            process: SupervisedProcess {
                slot,
                instance: None,
                pid: None,
                state: ProcessState::Starting,
                restarts,
                last_exit: None,
                next_start: None,
                since_unix_ms: 0,
                adopted: false,
                short_runs: 0,
            },
            next_start: None,
            runs_since: None,
        }
    }
}

/// A running process and its record.
struct Running {
    instance: InstanceId,
    process: Process,
    since: Instant,
}

struct Keeper {
    context: Arc<Context>,
    spec: Arc<ServiceSpec>,
    index: u32,
    shared: Arc<Mutex<Status>>,
    orders: watch::Receiver<Option<StopPlan>>,
    restarts: Restarts,
    /// How long the process ran that ended last.
    lived: Duration,
}

impl Keeper {
    async fn keep(mut self, first: Option<Running>, restart: bool) {
        let mut next = first;
        loop {
            if let Some(mut running) = next.take() {
                tokio::select! {
                    exit = running.process.exited() => self.ended(running, exit),
                    () = ordered(&mut self.orders) => return self.stop(running).await,
                }
            }
            if !restart {
                return;
            }
            let wait = self.back_off();
            tokio::select! {
                () = sleep(wait) => {}
                () = ordered(&mut self.orders) => return,
            }
            self.status().process.restarts += 1;
            next = self.launch();
        }
    }

    /// Starts a process; `None` when that fails, which the status tells.
    fn launch(&self) -> Option<Running> {
        let instance = InstanceId::generate(&self.spec.id.name);
        self.enter(ProcessState::Starting, None);
        self.spawn(&instance)
            .inspect_err(|error| self.not_started(&instance, error))
            .ok()
    }

    /// The record is written first: a node that dies in between leaves the intent, by which the
    /// next one finds the process.
    fn spawn(&self, instance: &InstanceId) -> io::Result<Running> {
        let mut record = self.record(instance);
        self.context.records.save(&record)?;
        let cgroup = self.context.cgroup(instance, &self.spec.limits);
        let config = &self.context.config;
        let launch = launch(config, &self.context.program, &self.spec, instance, cgroup);
        let process = Process::spawn(launch)?;
        record.process = Some(process.id().clone());
        if let Err(error) = self.context.records.save(&record) {
            // The intent stands, so the process can still be found.
            tracing::warn!(%error, %instance, "cannot record a process");
        }
        let running = Running {
            instance: instance.clone(),
            process,
            since: Instant::now(),
        };
        self.enter(ProcessState::Running, Some(&running));
        tracing::info!(service = %self.spec.id, %instance, pid = running.process.id().pid, "started");
        Ok(running)
    }

    fn record(&self, instance: &InstanceId) -> Record {
        Record {
            service: self.spec.id.clone(),
            version: self.spec.version.clone(),
            slot: self.index,
            instance: instance.clone(),
            fingerprint: super::launch::fingerprint(&self.context.config, &self.spec),
            restarts: self.status().process.restarts,
            process: None,
        }
    }

    fn adopted(&self, mut record: Record, process: Process) -> Running {
        record.process = Some(process.id().clone());
        if let Err(error) = self.context.records.save(&record) {
            tracing::warn!(%error, instance = %record.instance, "cannot record a process");
        }
        let running = Running {
            instance: record.instance,
            process,
            since: Instant::now(),
        };
        self.enter(ProcessState::Running, Some(&running));
        tracing::info!(
            service = %self.spec.id, instance = %running.instance,
            pid = running.process.id().pid, "taken over"
        );
        running
    }

    fn not_started(&self, instance: &InstanceId, error: &io::Error) {
        let program = self.spec.command.first().map_or("", String::as_str);
        let what = format!("cannot start `{program}`: {error}");
        tracing::warn!(service = %self.spec.id, %instance, "{what}");
        self.forget(instance);
        self.status().process.last_exit = Some(what);
    }

    fn ended(&mut self, running: Running, exit: Exit) {
        // What it left behind must not run beside its successor.
        running.process.kill_group();
        if !matches!(exit, Exit::Code(_)) {
            sweep(&running.instance);
        }
        self.forget(&running.instance);
        self.lived = running.since.elapsed();
        tracing::warn!(service = %self.spec.id, instance = %running.instance, "{exit}");
        self.status().process.last_exit = Some(exit.to_string());
    }

    fn forget(&self, instance: &InstanceId) {
        self.context.records.remove(instance);
        self.context.config.logs.ended(instance);
        if let Some(cgroups) = &self.context.cgroups {
            cgroups.remove(instance.as_str());
        }
    }

    fn back_off(&mut self) -> Duration {
        let lived = std::mem::take(&mut self.lived);
        let wait = self.restarts.wait_after(lived);
        self.enter(ProcessState::BackingOff, None);
        let mut status = self.status();
        status.next_start = Some(Instant::now() + wait);
        let process = &mut status.process;
        process.short_runs = match lived < GOOD_RUN {
            true => process.short_runs.saturating_add(1),
            false => 0,
        };
        wait
    }

    /// Drain, SIGTERM, SIGKILL: each as soon as the one before has done its work, and at the
    /// latest when the plan says.
    async fn stop(&mut self, mut running: Running) {
        self.enter(ProcessState::Stopping, Some(&running));
        let mut orders = self.orders.clone();
        tokio::select! {
            () = self.drain(&running.instance) => {}
            () = reached(&mut orders, |plan| plan.terminate_at) => {}
            _ = running.process.exited() => {}
        }
        running.process.terminate();
        tokio::select! {
            _ = running.process.exited() => {}
            () = reached(&mut orders, |plan| plan.kill_at) => {
                tracing::warn!(instance = %running.instance, "did not stop in time: killed");
                running.process.kill_group();
                sweep(&running.instance);
            }
        }
        running.process.kill_group();
        if timeout(KILL_LIMIT, running.process.exited()).await.is_err() {
            tracing::error!(instance = %running.instance, "does not end, even killed");
            // The record stays: the next node looks after it.
            return;
        }
        self.forget(&running.instance);
        tracing::info!(service = %self.spec.id, instance = %running.instance, "stopped");
    }

    async fn drain(&self, instance: &InstanceId) {
        let limit = self.orders.borrow().map_or(Duration::ZERO, |plan| {
            plan.terminate_at.saturating_duration_since(Instant::now())
        });
        self.context.config.hooks.drain(instance, limit).await;
    }

    fn enter(&self, state: ProcessState, running: Option<&Running>) {
        let mut status = self.status();
        let process = &mut status.process;
        process.state = state;
        process.since_unix_ms = self.context.config.clock.unix_ms();
        process.instance = running.map(|running| running.instance.clone());
        process.pid = running.map(|running| running.process.id().pid);
        process.adopted = running.is_some_and(|running| running.process.is_adopted());
        status.next_start = None;
        status.runs_since = running.map(|running| running.since);
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.shared)
    }
}

fn give(order: &watch::Sender<Option<StopPlan>>, plan: StopPlan) {
    order.send_modify(|order| {
        *order = Some(order.map_or(plan, |earlier| earlier.sooner(plan)));
    });
}

/// Resolves when there is an order to stop. A supervisor that is dropped gives none: its
/// processes live on.
async fn ordered(orders: &mut watch::Receiver<Option<StopPlan>>) {
    if orders.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when a time of the plan has come, which may be moved nearer meanwhile.
async fn reached(orders: &mut watch::Receiver<Option<StopPlan>>, time: fn(&StopPlan) -> Instant) {
    loop {
        let at = orders
            .borrow_and_update()
            .as_ref()
            .map_or_else(Instant::now, time);
        tokio::select! {
            () = sleep_until(at) => return,
            Ok(()) = orders.changed() => {}
        }
    }
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
