use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hydrant_contracts::proto::{
    self, DrainRequest, DrainResponse, REGISTRY_DRAIN_SPEC, REGISTRY_KEEP_ALIVE_SPEC,
    REGISTRY_REGISTER_INSTANCE_SPEC, REGISTRY_REPORT_SPEC, RegisterEvent, RegisterRequest,
    ReportRequest, ReportResponse, register_event,
};
use hydrant_contracts::{Code, Error, Instance, InstanceState};
use hydrant_runtime::Backoff;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Events, Hydrant, is_refusal};
use crate::lease::{Lease, Validity, millis_or, within};

/// How long an instance may be silent before the node calls it gone.
const TTL: Duration = Duration::from_secs(6);
/// How long to wait for the node's answers that need no work.
const ANSWER: Duration = Duration::from_secs(5);

/// An instance in the registry: registered, kept alive, and registered again whenever the node
/// comes back. Dropping it takes the instance out.
///
/// It works in a task of its own; every method only looks at, or tells, that task.
pub struct Registration {
    hydrant: Hydrant,
    report: watch::Sender<Report>,
    status: watch::Receiver<Status>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, PartialEq)]
struct Report {
    state: InstanceState,
    detail: String,
}

#[derive(Clone, Default)]
struct Status {
    /// The lease under which the instance is registered now.
    lease: Option<String>,
    /// The node's answer to the first registration, when it refused for good.
    refused: Option<Error>,
    /// Why the node wants the instance to stop.
    stop: Option<String>,
    /// Since when the node is away, by the steady clock; `None` while it is there.
    away_since: Option<Duration>,
    /// The state that the node has heard of, and routes by.
    told: Option<Report>,
}

impl Registration {
    /// Begins to register `instance`, in the state that it has. Returns at once.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(hydrant: &Hydrant, instance: Instance) -> Self {
        let (report, wanted) = watch::channel(Report {
            state: instance.state,
            detail: instance.detail.clone(),
        });
        let (status, seen) = watch::channel(Status {
            away_since: Some(hydrant.clock().now()),
            ..Status::default()
        });
        let keeper = Keeper {
            hydrant: hydrant.clone(),
            instance,
            wanted,
            status: Arc::new(status),
        };
        Self {
            hydrant: hydrant.clone(),
            report,
            status: seen,
            _task: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// Waits until the instance is registered.
    ///
    /// # Errors
    ///
    /// If the node refuses it for good, as with a wrong token. A node that is not there is waited
    /// for.
    pub async fn registered(&self) -> Result<(), Error> {
        let decided = |status: &Status| status.lease.is_some() || status.refused.is_some();
        let status = self.wait_for(decided).await;
        match status.refused.filter(|_| status.lease.is_none()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Tells the node a new state, now and after every registration to come. Only the latest one
    /// counts.
    pub fn report(&self, state: InstanceState, detail: impl Into<String>) {
        let report = Report {
            state,
            detail: detail.into(),
        };
        self.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    /// Resolves when the node routes by the state that was reported last. A node that is not there
    /// is waited for.
    pub async fn reported(&self) {
        let is_told = |status: &Status| status.told.as_ref() == Some(&*self.report.borrow());
        self.wait_for(is_told).await;
    }

    /// Resolves when the node asks the instance to stop, with the reason. The instance then
    /// drains, finishes and exits.
    pub async fn stop_requested(&self) -> String {
        let status = self.wait_for(|status| status.stop.is_some()).await;
        status.stop.unwrap_or_default()
    }

    /// How long the node has been away; `None` while it is there.
    pub fn node_away(&self) -> Option<Duration> {
        let since = self.status.borrow().away_since?;
        Some(self.hydrant.clock().now().saturating_sub(since))
    }

    /// Resolves when the node has been away for `grace` without a break.
    pub async fn abandoned(&self, grace: Duration) {
        loop {
            self.wait_for(|status| status.away_since.is_some()).await;
            let away = self.node_away().unwrap_or_default();
            if away >= grace {
                return;
            }
            tokio::time::sleep(grace - away).await;
        }
    }

    /// Takes the instance out of every routing table and waits, at most for `timeout`, until its
    /// last request is done. Returns how many are left. While the node is away there is nothing to
    /// wait for.
    ///
    /// # Errors
    ///
    /// If the node goes away meanwhile.
    pub async fn drain(&self, timeout: Duration) -> Result<u64, Error> {
        self.report(InstanceState::Draining, "");
        let Some(lease_id) = self.status.borrow().lease.clone() else {
            return Ok(0);
        };
        let request = DrainRequest {
            lease_id,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let answer = self.hydrant.node(REGISTRY_DRAIN_SPEC, request, None);
        let answer: DrainResponse = within(timeout + ANSWER, answer).await?;
        Ok(answer.in_flight)
    }

    async fn wait_for(&self, condition: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        let found = status.wait_for(|status| condition(status)).await;
        match found.map(|status| status.clone()) {
            Ok(status) => status,
            // The task lives as long as this handle: it can't be gone.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The task behind a registration.
struct Keeper {
    hydrant: Hydrant,
    instance: Instance,
    wanted: watch::Receiver<Report>,
    status: Arc<watch::Sender<Status>>,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let error = match self.register().await {
                Ok((lease, events, told)) => {
                    backoff.reset();
                    self.hold(lease, events, told).await
                }
                Err(error) => error,
            };
            self.note_end(&error);
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Opens the stream whose life is the instance's.
    async fn register(&mut self) -> Result<(Lease, Events<RegisterEvent>, Report), Error> {
        let asked = self.hydrant.clock().now();
        let report = self.wanted.borrow_and_update().clone();
        let request = RegisterRequest {
            instance: buffa::MessageField::some(proto::Instance::from(&self.in_state(&report))),
            ttl_ms: TTL.as_millis() as u32,
            ..Default::default()
        };
        let opening = self
            .hydrant
            .node_stream(REGISTRY_REGISTER_INSTANCE_SPEC, request);
        let mut events: Events<RegisterEvent> = within(ANSWER, opening).await?;
        let first = within(ANSWER, async {
            events.next().await.unwrap_or_else(|| Err(stream_ended()))
        })
        .await?;
        let Some(register_event::Event::Registered(registered)) = first.event else {
            return Err(stream_ended());
        };
        let ttl = millis_or(registered.ttl_ms, TTL);
        let lease = Lease {
            id: registered.lease_id,
            ttl,
            keep_alive: REGISTRY_KEEP_ALIVE_SPEC,
            validity: Validity::new(self.hydrant.clock(), asked, ttl),
        };
        Ok((lease, events, report))
    }

    fn in_state(&self, report: &Report) -> Instance {
        Instance {
            state: report.state,
            detail: report.detail.clone(),
            ..self.instance.clone()
        }
    }

    /// Keeps the registration as long as it lasts; tells why it ended.
    async fn hold(
        &mut self,
        lease: Lease,
        mut events: Events<RegisterEvent>,
        told: Report,
    ) -> Error {
        self.status.send_modify(|status| {
            status.lease = Some(lease.id.clone());
            status.away_since = None;
            status.told = Some(told);
        });
        let (hydrant, status) = (self.hydrant.clone(), Arc::clone(&self.status));
        tokio::select! {
            error = lease.keep(&hydrant) => error,
            error = listen(&mut events, &status) => error,
            error = self.send_reports(&lease.id) => error,
        }
    }

    async fn send_reports(&mut self, lease_id: &str) -> Error {
        loop {
            if self.wanted.changed().await.is_err() {
                return std::future::pending().await;
            }
            let report = self.wanted.borrow_and_update().clone();
            let request = ReportRequest {
                lease_id: lease_id.into(),
                state: proto::InstanceState::from(report.state).into(),
                detail: report.detail.clone(),
                ..Default::default()
            };
            let answer = self.hydrant.node(REGISTRY_REPORT_SPEC, request, None);
            let answer: Result<ReportResponse, Error> = within(ANSWER, answer).await;
            if let Err(error) = answer {
                return error;
            }
            self.status.send_modify(|status| status.told = Some(report));
        }
    }

    fn note_end(&self, error: &Error) {
        let now = self.hydrant.clock().now();
        self.status.send_modify(|status| {
            if status.away_since.is_none() {
                tracing::warn!(%error, "the registration ended; registering again");
            }
            status.lease = None;
            status.told = None;
            status.away_since.get_or_insert(now);
            if status.refused.is_none() && is_refusal(error) {
                tracing::error!(%error, "the node refuses the registration");
                status.refused = Some(error.clone());
            }
        });
    }
}

/// Waits for what the node has to say; tells why the stream ended.
async fn listen(events: &mut Events<RegisterEvent>, status: &watch::Sender<Status>) -> Error {
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Some(register_event::Event::Stop(stop)) = event.event {
                    status.send_modify(|status| status.stop = Some(stop.reason.clone()));
                }
            }
            Err(error) => return error,
        }
    }
    stream_ended()
}

pub(crate) fn stream_ended() -> Error {
    Error::new(
        Code::Unavailable,
        "stream_ended",
        "the node ended the stream",
    )
}
