//! Supervised services as several commands show them.

use hydrant_contracts::{Instance, Pattern, ServiceId, Tier, proto};
use serde::Serialize;

use crate::output::{count, time};

/// The service that a message names; `None` when it is broken.
pub(crate) fn id(service: &proto::SupervisedService) -> Option<ServiceId> {
    let tier = Tier::try_from(service.tier.as_known()?).ok()?;
    Some(ServiceId::new(tier, service.service.parse().ok()?))
}

/// The instances that are the service's supervised processes, and not started by hand.
pub(crate) fn instances<'a>(
    service: &'a proto::SupervisedService,
    known: &'a [Instance],
) -> impl Iterator<Item = &'a Instance> {
    known.iter().filter(move |instance| {
        let mut processes = service.processes.iter();
        processes.any(|process| process.instance == instance.id.as_str())
    })
}

/// What holds up the supervised services that the pattern means, a line each.
pub(crate) fn troubles(services: &[proto::SupervisedService], pattern: &Pattern) -> Vec<String> {
    services
        .iter()
        .filter_map(|service| Some((id(service)?, service)))
        .filter(|(id, _)| pattern.matches_service(id))
        .flat_map(|(id, service)| {
            let processes = service.processes.iter();
            processes.filter_map(move |process| trouble(&id, process))
        })
        .collect()
}

/// Why a process does not run, when it does not. One that keeps ending is a trouble too while it is
/// tried again, until it has run for a while.
fn trouble(id: &ServiceId, process: &proto::SupervisedProcess) -> Option<String> {
    let keeps_ending = process.state != "stopping" && process.short_runs > 0;
    if process.state != "backing off" && !keeps_ending {
        return None;
    }
    let mut line = format!("{id} process {} keeps ending", process.slot);
    if !process.last_exit.is_empty() {
        line += &format!(": {}", process.last_exit);
    }
    if process.restarts > 0 {
        let times = count(u64::from(process.restarts), "time", "times");
        line += &format!("; started again {times}");
    }
    if process.next_start_ms > 0 {
        line += &format!("; next start in {} s", process.next_start_ms.div_ceil(1000));
    }
    Some(format!("{line}. See `hydrant logs {id}`"))
}

/// A supervised service as `--json` shows it.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    service: &'a str,
    tier: Option<&'static str>,
    version: &'a str,
    wanted: u32,
    processes: Vec<ShownProcess<'a>>,
}

#[derive(Serialize)]
struct ShownProcess<'a> {
    slot: u32,
    instance: Option<&'a str>,
    pid: Option<u32>,
    state: &'a str,
    restarts: u32,
    last_exit: Option<&'a str>,
    next_start_ms: Option<u64>,
    since: String,
    adopted: bool,
}

impl<'a> From<&'a proto::SupervisedService> for Shown<'a> {
    fn from(service: &'a proto::SupervisedService) -> Self {
        Self {
            service: &service.service,
            tier: id(service).map(|id| id.tier.as_str()),
            version: &service.version,
            wanted: service.wanted,
            processes: service.processes.iter().map(ShownProcess::from).collect(),
        }
    }
}

impl<'a> From<&'a proto::SupervisedProcess> for ShownProcess<'a> {
    fn from(process: &'a proto::SupervisedProcess) -> Self {
        Self {
            slot: process.slot,
            instance: Some(process.instance.as_str()).filter(|id| !id.is_empty()),
            pid: Some(process.pid).filter(|pid| *pid != 0),
            state: &process.state,
            restarts: process.restarts,
            last_exit: Some(process.last_exit.as_str()).filter(|exit| !exit.is_empty()),
            next_start_ms: Some(process.next_start_ms).filter(|wait| *wait != 0),
            since: time(process.since_unix_ms),
            adopted: process.adopted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_ending_is_a_trouble_also_while_it_is_tried_again() {
        let told = |state: &str, short_runs| {
            let process = proto::SupervisedProcess {
                state: state.into(),
                short_runs,
                last_exit: "exited with 7".into(),
                restarts: 3,
                ..Default::default()
            };
            trouble(&"api/broken".parse().unwrap(), &process)
        };
        let line = "api/broken process 0 keeps ending: exited with 7; started again 3 times. \
                    See `hydrant logs api/broken`";
        for (state, short_runs) in [("backing off", 0), ("backing off", 1), ("running", 1)] {
            assert_eq!(told(state, short_runs).as_deref(), Some(line), "{state}");
        }
        assert_eq!(told("running", 0), None, "it has run well");
        assert_eq!(told("stopping", 2), None, "it is not wanted any more");
    }
}
