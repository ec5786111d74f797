use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::Stream;
use hydrant_contracts::proto::{self, register_event, watch_instances_event};
use hydrant_contracts::{Error, Instance, InstanceId, InstanceState, Pattern};
use tokio::sync::watch;

use super::{LocalApi, pattern, told};
use crate::registration::Told;
use crate::table::Instances;

impl proto::Registry for LocalApi {
    async fn register_instance(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::RegisterRequest>,
    ) -> ServiceResult<ServiceStream<proto::RegisterEvent>> {
        let who = self.identify(&context)?;
        let request = request.to_owned_message();
        let instance = Instance::try_from(&*request.instance).map_err(Error::from)?;
        self.authority.may_register(&who, &instance)?;
        let events = self
            .registrations
            .register(&who, instance, request.ttl_ms)?;
        let server = self.server.clone();
        Response::ok(told(events, move |event| register_event(event, &server)))
    }

    async fn keep_alive(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        Response::ok(self.keep_lease_alive(&context, request.lease_id)?)
    }

    async fn report(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::ReportRequest>,
    ) -> ServiceResult<proto::ReportResponse> {
        let who = self.identify(&context)?;
        let state = request.state.as_known().unwrap_or_default();
        let state = InstanceState::try_from(state).map_err(Error::from)?;
        self.registrations
            .report(&who, request.lease_id, state, request.detail)
            .await?;
        Response::ok(proto::ReportResponse::default())
    }

    async fn drain(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::DrainRequest>,
    ) -> ServiceResult<proto::DrainResponse> {
        let who = self.identify(&context)?;
        let timeout = Duration::from_millis(request.timeout_ms.into());
        let in_flight = self
            .registrations
            .drain(&who, request.lease_id, timeout)
            .await?;
        Response::ok(proto::DrainResponse {
            in_flight,
            ..Default::default()
        })
    }

    async fn discover(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::DiscoverRequest>,
    ) -> ServiceResult<proto::DiscoverResponse> {
        self.identify(&context)?;
        let found = matching(&self.table.instances(), &pattern(request.pattern)?);
        Response::ok(proto::DiscoverResponse {
            instances: found
                .values()
                .map(|instance| (&**instance).into())
                .collect(),
            ..Default::default()
        })
    }

    async fn watch(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, proto::WatchInstancesRequest>,
    ) -> ServiceResult<ServiceStream<proto::WatchInstancesEvent>> {
        let who = self.identify(&context)?;
        let pattern = pattern(request.pattern)?;
        let permit = self.watches.take(&who)?;
        Response::ok(self.permitted(permit, changes(self.table.changes(), pattern)))
    }
}

fn register_event(told: Told, server: &str) -> proto::RegisterEvent {
    let event = match told {
        Told::Registered { lease_id, ttl_ms } => register_event::Registered {
            lease_id,
            ttl_ms,
            server: server.into(),
            ..Default::default()
        }
        .into(),
        Told::Stop { reason } => register_event::Stop {
            reason,
            ..Default::default()
        }
        .into(),
    };
    proto::RegisterEvent {
        event,
        ..Default::default()
    }
}

type ById = BTreeMap<InstanceId, Arc<Instance>>;

fn matching(instances: &Instances, pattern: &Pattern) -> ById {
    instances
        .values()
        .map(|known| &known.instance)
        .filter(|instance| pattern.matches(&instance.service, instance.id.as_str()))
        .map(|instance| (instance.id.clone(), instance.clone()))
        .collect()
}

/// All that matches, then a change at a time. A slow watcher skips what is history by now.
fn changes(
    table: watch::Receiver<Option<Arc<Instances>>>,
    pattern: Pattern,
) -> impl Stream<Item = Result<proto::WatchInstancesEvent, Error>> {
    let known: Option<ById> = None;
    let pending = VecDeque::new();
    futures::stream::unfold(
        (table, known, pending),
        move |(mut table, mut known, mut pending)| {
            let pattern = pattern.clone();
            async move {
                while pending.is_empty() {
                    if known.is_some() {
                        table.changed().await.ok()?;
                    }
                    let instances = table.borrow_and_update().clone().unwrap_or_default();
                    let now = matching(&instances, &pattern);
                    pending = match &known {
                        None => VecDeque::from([all(&now)]),
                        Some(before) => difference(before, &now),
                    };
                    known = Some(now);
                }
                let event = proto::WatchInstancesEvent {
                    event: Some(pending.pop_front()?),
                    ..Default::default()
                };
                Some((Ok(event), (table, known, pending)))
            }
        },
    )
}

type Event = proto::__buffa::oneof::watch_instances_event::Event;

fn all(now: &ById) -> Event {
    watch_instances_event::All {
        instances: now.values().map(|instance| (&**instance).into()).collect(),
        ..Default::default()
    }
    .into()
}

fn difference(before: &ById, now: &ById) -> VecDeque<Event> {
    let removed = before.keys().filter(|id| !now.contains_key(*id));
    let put = now
        .iter()
        .filter(|(id, instance)| before.get(*id) != Some(*instance));
    removed
        .map(|id| Event::Removed(id.to_string()))
        .chain(put.map(|(_, instance)| proto::Instance::from(&**instance).into()))
        .collect()
}
