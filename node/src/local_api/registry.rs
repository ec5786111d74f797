use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::Stream;
use hydrant_contracts::proto::{self, register_event, watch_instances_event};
use hydrant_contracts::{Error, Instance, InstanceId, InstanceState, Pattern};
use tokio::sync::watch;

use super::{LocalApi, pattern, told};
use crate::instances::{Instances, OfService};
use crate::registration::Told;
use crate::table::View;

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
        let found = matching(&self.table.view().instances, &pattern(request.pattern)?);
        Response::ok(proto::DiscoverResponse {
            instances: found.into_values().map(|found| (&*found).into()).collect(),
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
        .iter()
        .filter(|instance| pattern.matches(&instance.service, instance.id.as_str()))
        .map(|instance| (instance.id.clone(), instance.clone()))
        .collect()
}

/// All that matches, then a change at a time. A slow watcher skips what is history by now.
fn changes(
    table: watch::Receiver<View>,
    pattern: Pattern,
) -> impl Stream<Item = Result<proto::WatchInstancesEvent, Error>> {
    let known: Option<Instances> = None;
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
                    let now = table.borrow_and_update().instances.clone();
                    pending = match &known {
                        None => VecDeque::from([all(&matching(&now, &pattern))]),
                        Some(before) => difference(before, &now, &pattern),
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

/// What changed, of the services that did: the others are shared between the two.
fn difference(before: &Instances, now: &Instances, pattern: &Pattern) -> VecDeque<Event> {
    let none = Arc::new(OfService::new());
    let gone = before.services().filter(|(id, _)| now.of(id).is_none());
    let gone = gone.map(|(_, was)| (was, &none));
    let changed = now
        .services()
        .map(|(id, is)| (before.of(id).unwrap_or(&none), is));
    gone.chain(changed)
        .filter(|(was, is)| !Arc::ptr_eq(was, is))
        .flat_map(|(was, is)| of_service(was, is, pattern))
        .collect()
}

fn of_service<'a>(
    was: &'a OfService,
    is: &'a OfService,
    pattern: &'a Pattern,
) -> impl Iterator<Item = Event> + 'a {
    let matches =
        |instance: &Arc<Instance>| pattern.matches(&instance.service, instance.id.as_str());
    let removed = was
        .iter()
        .filter(move |(id, instance)| matches(instance) && !is.contains_key(*id));
    let put = is
        .iter()
        .filter(move |(id, instance)| matches(instance) && was.get(*id) != Some(*instance));
    removed
        .map(|(id, _)| Event::Removed(id.to_string()))
        .chain(put.map(|(_, instance)| proto::Instance::from(&**instance).into()))
}
