//! Keeps the processes of services running: starts them, starts them again when they end, takes
//! over those of an earlier node, and stops them without losing a request.
//!
//! Every process is a slot of its service, and every slot a task of its own: one failing service
//! keeps no other one waiting.

mod adopt;
mod launch;
mod record;
mod slot;
mod spec;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hydrant_contracts::{Code, Error, InstanceId, ServiceId};

pub use launch::own_program;
pub use spec::{
    Hooks, MAX_INSTANCES, ProcessState, ServiceSpec, SupervisedProcess, SupervisedService,
    SupervisorConfig,
};

use crate::process::{Cgroup, Cgroups, Limits, Process};
use record::{Record, Records};
use slot::{Slot, StopPlan};

/// How long a replacement may take to be ready before what it replaces is stopped all the same.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// At shutdown: until SIGTERM, and from there until SIGKILL.
const SHUTDOWN_DRAIN: Duration = Duration::from_millis(1300);
const SHUTDOWN_STOP: Duration = Duration::from_millis(1700);
/// And for what they print meanwhile.
const SHUTDOWN_LOGS: Duration = Duration::from_millis(300);

/// The processes of this server's services. Dropping it leaves them running, for the next
/// supervisor on the same data folder to take over.
#[derive(Clone)]
pub struct Supervisor {
    context: Arc<Context>,
    fleet: Arc<Mutex<Fleet>>,
}

/// What every slot needs.
struct Context {
    config: SupervisorConfig,
    program: PathBuf,
    records: Records,
    /// `None` where the kernel does not allow it, or nobody needs it.
    cgroups: Option<Cgroups>,
}

#[derive(Default)]
struct Fleet {
    services: BTreeMap<ServiceId, Service>,
    /// In the order in which they were started; those that stop included.
    slots: Vec<Slot>,
    shut_down: bool,
}

struct Service {
    spec: Arc<ServiceSpec>,
    wanted: u32,
}

impl Supervisor {
    /// Takes over what earlier nodes left running, stops what is not wanted any more, and starts
    /// the rest. `program` is the binary that has the command `run`, as [`own_program`].
    ///
    /// To be called in a Tokio runtime. Fails when the data folder can't be read or written.
    pub fn start(
        config: SupervisorConfig,
        program: PathBuf,
        services: Vec<ServiceSpec>,
    ) -> io::Result<Self> {
        let records = Records::open(config.data.join("supervisor"))?;
        let cgroups = prepare_cgroups(&services);
        let supervisor = Self {
            context: Arc::new(Context {
                config,
                program,
                records,
                cgroups,
            }),
            fleet: Arc::default(),
        };
        supervisor.fleet().services = services.into_iter().map(Service::new).collect();
        let outdated = supervisor.adopt()?;
        supervisor.fill();
        outdated
            .into_iter()
            .for_each(|slot| supervisor.replace(slot));
        Ok(supervisor)
    }

    /// Changes the number of processes of a service, and returns the earlier one. Those that are
    /// too many are drained and stopped behind the call's back. The number is kept through
    /// [`Hooks::keep_scale`] first.
    pub async fn scale(&self, service: &ServiceId, instances: u32) -> Result<u32, Error> {
        if instances > MAX_INSTANCES {
            let message = format!("{instances} processes of one service are too many");
            return Err(Error::new(Code::InvalidArgument, "too_many", message)
                .mend(format!("ask for at most {MAX_INSTANCES}")));
        }
        let unknown = || {
            let message = format!("this node does not supervise `{service}`");
            Error::new(Code::NotFound, "no_such_service", message)
                .mend("name a service of the node's configuration")
        };
        if !self.fleet().services.contains_key(service) {
            return Err(unknown());
        }
        self.context
            .config
            .hooks
            .keep_scale(service, instances)
            .await?;
        let before = self.want(service, instances).ok_or_else(unknown)?;
        self.fill();
        Ok(before)
    }

    /// Every service and its processes, sorted by service and slot.
    pub fn status(&self) -> Vec<SupervisedService> {
        let mut fleet = self.fleet();
        fleet.slots.retain(|slot| !slot.has_stopped());
        let mut services: BTreeMap<_, _> = fleet
            .services
            .iter()
            .map(|(id, service)| (id.clone(), seen(&service.spec, service.wanted)))
            .collect();
        for slot in &fleet.slots {
            let id = slot.spec.id.clone();
            let service = services.entry(id).or_insert_with(|| seen(&slot.spec, 0));
            service.processes.push(slot.status());
        }
        let mut services: Vec<_> = services.into_values().collect();
        for service in &mut services {
            service.processes.sort_by_key(|process| process.slot);
        }
        services
    }

    /// Drains and stops every process, all at once, and kills what is left after 3 seconds.
    /// Returns when none runs; nothing is started any more. To be called while the node still
    /// answers its services, which end by telling it.
    pub async fn shutdown(&self) {
        let slots = {
            let mut fleet = self.fleet();
            fleet.shut_down = true;
            std::mem::take(&mut fleet.slots)
        };
        for slot in &slots {
            let stop = SHUTDOWN_STOP.min(slot.spec.stop_timeout);
            slot.stop(StopPlan::new(SHUTDOWN_DRAIN, stop));
        }
        for slot in slots {
            slot.stopped().await;
        }
        // Their last words; not worth a long wait.
        let logs = self.context.config.logs.settle();
        let _ = tokio::time::timeout(SHUTDOWN_LOGS, logs).await;
    }

    /// Looks after no process any more: all run on, for the next supervisor.
    pub fn leave(&self) {
        let mut fleet = self.fleet();
        fleet.shut_down = true;
        fleet.slots.clear();
    }

    /// Takes over the living processes of earlier nodes. Returns the slots of those that were
    /// started from something else than their service is now.
    fn adopt(&self) -> io::Result<Vec<Slot>> {
        let found = adopt::find(&self.context.records)?;
        for record in &found.ended {
            self.context.records.remove(&record.instance);
        }
        let living = found.living.iter();
        let living = living.map(|(record, _)| record.instance.clone());
        self.context
            .config
            .logs
            .only_these_live(&living.collect())?;
        let mut outdated = Vec::new();
        for (record, process) in found.living {
            outdated.extend(self.take_over(record, process));
        }
        Ok(outdated)
    }

    fn take_over(&self, record: Record, process: Process) -> Option<Slot> {
        let mut fleet = self.fleet();
        let Some(service) = fleet.services.get(&record.service) else {
            let slot = self.leaving(record, process);
            fleet.slots.push(slot);
            return None;
        };
        let (spec, wanted) = (service.spec.clone(), service.wanted);
        let index = record.slot;
        let current = record.fingerprint == launch::fingerprint(&self.context.config, &spec);
        let free = !fleet.has(&record.service, index);
        let keep = current && free;
        let adopted = Some((record, process));
        let slot = Slot::start(self.context.clone(), spec, index, adopted, keep);
        if !keep {
            return Some(slot);
        }
        if index >= wanted {
            slot.stop(slot.unwanted());
        }
        fleet.slots.push(slot);
        None
    }

    /// A process whose service is not in the configuration any more.
    fn leaving(&self, record: Record, process: Process) -> Slot {
        let (service, version) = (record.service.clone(), record.version.clone());
        let spec = Arc::new(ServiceSpec::new(service, version, Vec::new()));
        let index = record.slot;
        let adopted = Some((record, process));
        let slot = Slot::start(self.context.clone(), spec, index, adopted, false);
        slot.stop(slot.unwanted());
        slot
    }

    /// Stops a process that is out of date, once the one that replaces it is ready.
    fn replace(&self, slot: Slot) {
        let mut fleet = self.fleet();
        let replacement = fleet.instance(&slot.spec.id, slot.index);
        let stop = slot.stopper();
        fleet.slots.push(slot);
        let hooks = self.context.config.hooks.clone();
        tokio::spawn(async move {
            if let Some(instance) = replacement {
                // In time or not, there shall not be both for ever.
                let _ = tokio::time::timeout(READY_LIMIT, hooks.ready(&instance)).await;
            }
            stop();
        });
    }

    /// Sets the wanted number and stops what is too much.
    fn want(&self, service: &ServiceId, instances: u32) -> Option<u32> {
        let mut fleet = self.fleet();
        let before = std::mem::replace(&mut fleet.services.get_mut(service)?.wanted, instances);
        for slot in &fleet.slots {
            if slot.spec.id == *service && slot.index >= instances && !slot.is_stopping() {
                slot.stop(slot.unwanted());
            }
        }
        Some(before)
    }

    /// Starts a process in every slot that is wanted and has none.
    fn fill(&self) {
        let mut fleet = self.fleet();
        if fleet.shut_down {
            return;
        }
        fleet.slots.retain(|slot| !slot.has_stopped());
        for (spec, index) in fleet.missing() {
            let slot = Slot::start(self.context.clone(), spec, index, None, true);
            fleet.slots.push(slot);
        }
    }

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    fn new(spec: ServiceSpec) -> (ServiceId, Self) {
        let wanted = spec.instances.min(MAX_INSTANCES);
        let spec = Arc::new(spec);
        (spec.id.clone(), Self { spec, wanted })
    }
}

impl Fleet {
    /// Whether a process of the slot runs and is to stay.
    fn has(&self, service: &ServiceId, index: u32) -> bool {
        self.staying(service, index).is_some()
    }

    fn instance(&self, service: &ServiceId, index: u32) -> Option<InstanceId> {
        self.staying(service, index)?.status().instance
    }

    fn staying(&self, service: &ServiceId, index: u32) -> Option<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.index == index && slot.spec.id == *service && !slot.is_stopping())
    }

    fn missing(&self) -> Vec<(Arc<ServiceSpec>, u32)> {
        self.services
            .values()
            .flat_map(|service| (0..service.wanted).map(|index| (service.spec.clone(), index)))
            .filter(|(spec, index)| !self.has(&spec.id, *index))
            .collect()
    }
}

impl Context {
    fn cgroup(&self, instance: &InstanceId, limits: &Limits) -> Option<Cgroup> {
        let cgroups = self.cgroups.as_ref()?;
        if !needs_cgroup(limits) {
            return None;
        }
        cgroups
            .limit(instance.as_str(), limits)
            .inspect_err(|error| tracing::warn!(%error, %instance, "no control group"))
            .ok()
    }
}

fn needs_cgroup(limits: &Limits) -> bool {
    limits.memory.is_some() || limits.cpu.is_some()
}

/// Prepares control groups if a service has a limit that they enforce.
fn prepare_cgroups(services: &[ServiceSpec]) -> Option<Cgroups> {
    if !services.iter().any(|spec| needs_cgroup(&spec.limits)) {
        return None;
    }
    let cgroups = Cgroups::prepare();
    if let Err(error) = &cgroups {
        tracing::info!(%error, "no control groups: memory is limited per process");
        for spec in services.iter().filter(|spec| spec.limits.cpu.is_some()) {
            tracing::warn!(service = %spec.id, "its limit of CPU is not enforced");
        }
    }
    cgroups.ok()
}

fn seen(spec: &ServiceSpec, wanted: u32) -> SupervisedService {
    SupervisedService {
        id: spec.id.clone(),
        version: spec.version.clone(),
        wanted,
        processes: Vec::new(),
    }
}
