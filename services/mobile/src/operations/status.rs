use std::collections::BTreeMap;

use hydrant_sdk::{Instance, Leader};

use crate::alarms::Alarm;
use crate::operations::report::Report;
use crate::operations::watch::{DATABASE, STATE};
use crate::proto::{AlarmStatus, InstanceStatus, SourceStatus, StatusResponse};
use crate::sources::board::{Poll, Polls};

/// What was seen of everything at one moment.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) leader: Option<Leader>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) reports: Vec<Report>,
    /// What the process that looks tells of itself.
    pub(crate) own: Report,
    pub(crate) polls: Polls,
    pub(crate) newest: Option<u64>,
    pub(crate) published: u64,
    /// What could not be seen, and why.
    pub(crate) missing: BTreeMap<&'static str, String>,
}

impl Seen {
    /// A part of it; one that could not be seen is an alarm.
    pub(crate) fn part<T>(&mut self, name: &'static str, found: Result<T, String>) -> Option<T> {
        found
            .map_err(|why| self.missing.entry(name).or_insert(why))
            .ok()
    }

    pub(crate) fn status(&self, now: i64) -> StatusResponse {
        StatusResponse {
            leader: self
                .leader
                .as_ref()
                .map(|leader| leader.name.clone())
                .unwrap_or_default(),
            epoch: self.leader.as_ref().map_or(0, |leader| leader.epoch),
            newest_revision: self.newest,
            published_revision: self.published,
            instances: self
                .instances
                .iter()
                .map(|instance| self.instance(instance))
                .collect(),
            sources: self.polls.sources.iter().map(source).collect(),
            alarms: self.alarms(now),
            ..Default::default()
        }
    }

    pub(crate) fn report(&self, instance: &Instance) -> Option<&Report> {
        let id = instance.id.to_string();
        self.reports.iter().find(|report| report.instance == id)
    }

    fn instance(&self, instance: &Instance) -> InstanceStatus {
        let report = self.report(instance);
        InstanceStatus {
            instance: instance.id.to_string(),
            service: instance.service.to_string(),
            server: instance.server.clone(),
            revision: report.and_then(|report| report.revision),
            refused_revision: report.and_then(|report| report.refused_revision),
            reported_unix_ms: report.map_or(0, |report| report.at_unix_ms),
            ..Default::default()
        }
    }

    /// What processes have raised, each alarm once with all who see it, and what could not be seen.
    fn alarms(&self, now: i64) -> Vec<AlarmStatus> {
        let mut alarms: BTreeMap<(String, String), AlarmStatus> = BTreeMap::new();
        let others = self.reports.iter();
        let others = others.filter(|report| report.instance != self.own.instance);
        for report in others.chain([&self.own]) {
            for alarm in &report.alarms {
                let key = (alarm.name.clone(), alarm.message.clone());
                let told = alarms
                    .entry(key)
                    .or_insert_with(|| alarm.clone().told(Vec::new()));
                told.since_unix_ms = told.since_unix_ms.min(alarm.since_unix_ms);
                told.instances.push(report.instance.clone());
            }
        }
        let mut alarms: Vec<AlarmStatus> = alarms.into_values().collect();
        let mut unseen = self.unseen(now);
        unseen.retain(|alarm| alarms.iter().all(|known| known.name != alarm.name));
        alarms.extend(unseen.into_iter().map(|alarm| alarm.told(Vec::new())));
        alarms
    }

    fn unseen(&self, now: i64) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for (part, why) in &self.missing {
            let mend = match *part {
                "database" => DATABASE,
                "state" => STATE,
                _ => "see `hydrant health`: which engine is away",
            };
            let message = format!("the {part} can't be seen: {why}");
            alarms.push(Alarm::new(part, now, &message, mend));
        }
        if self.leader.is_none() && !self.missing.contains_key("leader") {
            let message =
                "no process of service/mobile leads: nobody asks the sources or publishes";
            let mend = "start one: hydrant scale service/mobile 2";
            alarms.push(Alarm::new("leader", now, message, mend));
        }
        alarms
    }
}

fn source((name, poll): (&String, &Poll)) -> SourceStatus {
    SourceStatus {
        name: name.clone(),
        as_of_unix_ms: poll.as_of,
        failing_since_unix_ms: poll.failing_since,
        reason: poll.reason.clone(),
        mend: poll.mend.clone(),
        next_try_unix_ms: poll.next_try,
        ..Default::default()
    }
}
