use std::sync::Arc;
use std::time::Duration;

use hydrant_runtime::Clock;
use hydrant_sdk::{Error, Hydrant, Instance, Leader, Service};
use serde::de::DeserializeOwned;

use crate::alarms::Alarms;
use crate::operations::report::{REPORTS, Report};
use crate::operations::status::Seen;
use crate::proto::{
    BringRequest, BringResponse, InstanceReport, InstanceReported, OPERATIONS_BRING_SPEC,
    OPERATIONS_REPORT_SPEC, OPERATIONS_STATUS_SPEC, StatusRequest,
};
use crate::service::Desk;
use crate::service::lead::ELECTION;
use crate::sources::Brought;
use crate::sources::board::{POLLS, Polls};

/// How long one part of the status may take to be found out.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers operators, from what all processes have told.
pub(crate) struct OperationsDesk {
    pub(crate) hydrant: Hydrant,
    pub(crate) clock: Clock,
    pub(crate) documents: Desk,
    /// What this process has raised itself.
    pub(crate) alarms: Alarms,
}

/// Lets a service answer operators.
pub(crate) fn serve(service: Service, desk: &Arc<OperationsDesk>) -> Service {
    let (status, report, bring) = (Arc::clone(desk), Arc::clone(desk), Arc::clone(desk));
    service
        .endpoint(OPERATIONS_STATUS_SPEC, move |_: StatusRequest| {
            let desk = Arc::clone(&status);
            async move { Ok::<_, Error>(desk.see().await.status(desk.clock.unix_ms())) }
        })
        .endpoint(OPERATIONS_REPORT_SPEC, move |request: InstanceReport| {
            let desk = Arc::clone(&report);
            async move { desk.report(request).await }
        })
        .endpoint(OPERATIONS_BRING_SPEC, move |request: BringRequest| {
            let desk = Arc::clone(&bring);
            async move { desk.bring(request).await }
        })
}

impl OperationsDesk {
    async fn report(&self, request: InstanceReport) -> Result<InstanceReported, Error> {
        let report = Report::received(request, self.clock.unix_ms())?;
        report.keep(&self.hydrant.state()).await?;
        Ok(InstanceReported::default())
    }

    async fn bring(&self, request: BringRequest) -> Result<BringResponse, Error> {
        let brought = Brought::received(request, self.clock.unix_ms())?;
        brought.keep(&self.hydrant.state()).await?;
        Ok(BringResponse::default())
    }

    /// All at once; what does not answer in time is missing, and said to be.
    pub(crate) async fn see(&self) -> Seen {
        let (leader, instances, reports, polls, newest) = tokio::join!(
            within(self.leader()),
            within(self.instances()),
            within(self.reports()),
            within(self.polls()),
            within(self.newest()),
        );
        let mut seen = Seen {
            published: self.documents.published().revision(),
            own: self.own_report(),
            ..Seen::default()
        };
        seen.leader = seen.part("leader", leader).flatten();
        seen.instances = seen.part("instances", instances).unwrap_or_default();
        seen.reports = seen.part("state", reports).unwrap_or_default();
        seen.polls = seen.part("state", polls).flatten().unwrap_or_default();
        seen.newest = seen.part("database", newest).flatten();
        seen
    }

    /// As it is now: the state has an older one, or is away.
    fn own_report(&self) -> Report {
        Report {
            instance: self.hydrant.own_name(),
            at_unix_ms: self.clock.unix_ms(),
            alarms: self.alarms.list(),
            ..Report::default()
        }
    }

    async fn leader(&self) -> Result<Option<Leader>, Error> {
        self.hydrant.observe(ELECTION).next().await
    }

    async fn instances(&self) -> Result<Vec<Instance>, Error> {
        self.hydrant.discover("mobile").await
    }

    async fn reports(&self) -> Result<Vec<Report>, Error> {
        let entries = self.hydrant.state().list(REPORTS).await?;
        Ok(entries
            .iter()
            .filter_map(|entry| read(&entry.value))
            .collect())
    }

    /// The newest revision of the tables; `None` without tables.
    async fn newest(&self) -> Result<Option<u64>, Error> {
        match self.documents.has_tables() {
            true => self.documents.writable_head().await.map(Some),
            false => Ok(None),
        }
    }

    async fn polls(&self) -> Result<Option<Polls>, Error> {
        let entry = self.hydrant.state().get(POLLS).await?;
        Ok(entry.and_then(|entry| read(&entry.value)))
    }
}

/// What another version of the program wrote may be unreadable; then it is as if it were not there.
fn read<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

async fn within<T>(part: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, part).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}
