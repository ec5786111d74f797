use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hydrant_runtime::Clock;
use hydrant_sdk::{Error, Hydrant, InstanceId, State};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::alarms::{Alarm, Alarms};
use crate::api::serving::Served;
use crate::proto::{AlarmStatus, InstanceReport, OperationsClient};

/// What the key of a report begins with; the id of the instance follows.
pub(crate) const REPORTS: &str = "instance/";
/// The alarm of a process that can't take what is published.
const REVISION: &str = "revision";
/// The alarm of a process that lets requests in without anything to answer from.
const NOTHING: &str = "nothing-published";
/// How often a process reports, when nothing changes.
const EVERY: Duration = Duration::from_secs(10);
/// For how long a report counts: a process that is silent for longer is not there any more.
const COUNTS: Duration = Duration::from_secs(35);
/// How long alarms are gathered before they are reported: many changes at once are one report.
const GATHER: Duration = Duration::from_millis(250);
/// How long a report may take to be delivered.
const DELIVERY: Duration = Duration::from_secs(2);
/// How long to wait after a report that was not delivered.
const AGAIN: Duration = Duration::from_secs(1);
/// The most alarms of one report.
const MAX_ALARMS: usize = 200;

/// How a process is, by its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) instance: String,
    /// The revision that it answers from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<u64>,
    /// A newer revision that it could not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused_revision: Option<u64>,
    /// When it came, in milliseconds since 1970.
    pub(crate) at_unix_ms: i64,
    pub(crate) alarms: Vec<Alarm>,
}

impl Report {
    /// # Errors
    ///
    /// If the instance has no name that can be.
    pub(crate) fn received(request: InstanceReport, now: i64) -> Result<Self, Error> {
        let instance: InstanceId = request.instance.parse()?;
        Ok(Self {
            instance: instance.to_string(),
            revision: Some(request.revision),
            refused_revision: request.refused_revision,
            at_unix_ms: now,
            alarms: request
                .alarms
                .into_iter()
                .take(MAX_ALARMS)
                .map(|alarm| {
                    Alarm::new(
                        &alarm.name,
                        alarm.since_unix_ms,
                        &alarm.message,
                        &alarm.mend,
                    )
                })
                .collect(),
        })
    }

    /// Keeps it where every process of the service finds it.
    pub(crate) async fn keep(&self, state: &State) -> Result<(), Error> {
        let key = format!("{REPORTS}{}", self.instance);
        let text = serde_json::to_vec(self).unwrap_or_default();
        state.put_for(COUNTS, &key, text).await.map(drop)
    }
}

/// Reports how a process of `api/mobile` is, as long as it runs.
pub(crate) struct Reporter {
    pub(crate) hydrant: Hydrant,
    pub(crate) served: Served,
    pub(crate) reception: Reception,
}

/// How the published revisions are received. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reception {
    pub(crate) alarms: Alarms,
    /// The newest revision that could not be taken; 0 for none.
    refused: Arc<AtomicU64>,
    /// There is something new to report.
    news: Arc<Notify>,
}

impl Reception {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            alarms: Alarms::new(clock),
            refused: Arc::default(),
            news: Arc::default(),
        }
    }

    /// Requests are let in, and no revision has come for all of this time.
    pub(crate) fn begins_with_nothing(&self, waited: Duration) {
        let message = format!(
            "no revision, or nothing of the sources, has come in {} s: apps get what there is",
            waited.as_secs()
        );
        let mend = "see that service/mobile runs and reaches its database: hydrant list mobile, \
                    hydrant logs service/mobile";
        self.alarms.raise(NOTHING, &message, mend);
    }

    /// There is all that answers are made from.
    pub(crate) fn can_answer(&self) {
        self.alarms.clear(NOTHING);
    }

    /// A revision came that is served from now on.
    pub(crate) fn took(&self) {
        self.refused.store(0, Ordering::Relaxed);
        self.alarms.clear(REVISION);
        self.news.notify_one();
    }

    /// A revision came that can't be served. `revision` is 0 when not even that could be read.
    pub(crate) fn refused(&self, revision: u64, why: &dyn fmt::Display) {
        self.refused.store(revision, Ordering::Relaxed);
        let message = format!(
            "the published revision {revision} can't be served here, and the last good one goes on: {why}"
        );
        let mend =
            "give all servers the same version of the program, or revert: hydrant mobile revert";
        self.alarms.raise(REVISION, &message, mend);
        self.news.notify_one();
    }

    fn newest_refused(&self) -> Option<u64> {
        match self.refused.load(Ordering::Relaxed) {
            0 => None,
            revision => Some(revision),
        }
    }
}

impl Reporter {
    pub(crate) async fn report_again_and_again(self) -> Result<(), Error> {
        let client = self
            .hydrant
            .client("service/mobile", OperationsClient::new)?;
        let instance = self.hydrant.own_name();
        loop {
            let report = self.report(&instance);
            let delivered = tokio::time::timeout(DELIVERY, client.report(report)).await;
            match delivered {
                Ok(Ok(_)) => self.until_news().await,
                // Alarms are for who can be reached; this one is seen by its absence.
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// News come at once: who made a change waits until every process has told of it.
    async fn until_news(&self) {
        let _ = tokio::time::timeout(EVERY, self.reception.news.notified()).await;
    }

    fn report(&self, instance: &str) -> InstanceReport {
        let serving = self.served.load();
        if serving.is_complete() {
            self.reception.can_answer();
        }
        let alarms = self.reception.alarms.list().into_iter();
        InstanceReport {
            instance: instance.to_owned(),
            revision: serving.compiled.revision,
            refused_revision: self.reception.newest_refused(),
            alarms: alarms.map(|alarm| alarm.told(Vec::new())).collect(),
            ..Default::default()
        }
    }
}

/// Keeps reports of the own process of `service/mobile`, as long as it runs.
pub(crate) struct OwnReports {
    pub(crate) hydrant: Hydrant,
    pub(crate) clock: Clock,
    pub(crate) alarms: Alarms,
}

impl OwnReports {
    pub(crate) async fn keep_again_and_again(self) -> Result<(), Error> {
        let state = self.hydrant.state();
        let mut changes = self.alarms.changes();
        loop {
            changes.mark_unchanged();
            let report = Report {
                instance: self.hydrant.own_name(),
                at_unix_ms: self.clock.unix_ms(),
                alarms: self.alarms.list(),
                ..Report::default()
            };
            let kept = tokio::time::timeout(DELIVERY, report.keep(&state)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            tokio::time::sleep(GATHER).await;
            let _ = tokio::time::timeout(EVERY, changes.changed()).await;
        }
    }
}

impl Alarm {
    /// As operators are told, with the processes that see it.
    pub(crate) fn told(self, instances: Vec<String>) -> AlarmStatus {
        AlarmStatus {
            name: self.name,
            since_unix_ms: self.since_unix_ms,
            message: self.message,
            mend: self.mend,
            instances,
            ..Default::default()
        }
    }
}
