use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use futures::future::BoxFuture;
use hydrant_runtime::Clock;
use hydrant_sdk::{Error, Hydrant, Instance, Leader};
use serde::de::DeserializeOwned;

use crate::operations::report::{REPORTS, Report};
use crate::operations::status::{Revisions, Seen};
use crate::proto::{
    BringRequest, BringResponse, InstanceReport, InstanceReported, Operations, StatusRequest,
    StatusResponse,
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
    pub(crate) revisions: Box<dyn Revisions>,
}

impl Operations for OperationsDesk {
    async fn status(
        &self,
        _context: RequestContext,
        _request: ServiceRequest<'_, StatusRequest>,
    ) -> ServiceResult<StatusResponse> {
        Response::ok(self.see().await.status(self.clock.unix_ms()))
    }

    async fn report(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, InstanceReport>,
    ) -> ServiceResult<InstanceReported> {
        let report = Report::received(request.to_owned_message(), self.clock.unix_ms())?;
        report.keep(&self.hydrant.state()).await?;
        Response::ok(InstanceReported::default())
    }

    async fn bring(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, BringRequest>,
    ) -> ServiceResult<BringResponse> {
        let brought = Brought::received(request.to_owned_message(), self.clock.unix_ms())?;
        brought.keep(&self.hydrant.state()).await?;
        Response::ok(BringResponse::default())
    }
}

impl OperationsDesk {
    /// All at once; what does not answer in time is missing, and said to be.
    pub(crate) async fn see(&self) -> Seen {
        let (leader, instances, reports, polls, newest) = tokio::join!(
            within(self.leader()),
            within(self.instances()),
            within(self.reports()),
            within(self.polls()),
            within(self.revisions.newest()),
        );
        let mut seen = Seen {
            published: self.revisions.published(),
            ..Seen::default()
        };
        seen.leader = seen.part("leader", leader).flatten();
        seen.instances = seen.part("instances", instances).unwrap_or_default();
        seen.reports = seen.part("state", reports).unwrap_or_default();
        seen.polls = seen.part("state", polls).flatten().unwrap_or_default();
        seen.newest = seen.part("database", newest).flatten();
        seen
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

impl Revisions for Desk {
    fn newest(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(async {
            match self.has_tables() {
                true => self.head().await.map(Some),
                false => Ok(None),
            }
        })
    }

    fn published(&self) -> u64 {
        Desk::published(self).revision()
    }
}
