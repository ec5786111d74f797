use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::Request;
use axum::middleware::Next;
use connectrpc::{
    ConnectRpcService, RequestContext, Response, Router, ServiceRequest, ServiceResult,
    ServiceStream,
};
use futures::{StreamExt as _, stream};
use hydrant_contracts::proto::{
    self, acquire_event, campaign_event, register_event, watch_instances_event, watch_state_event,
};
use hydrant_contracts::{Code, Error, Instance};
use hydrant_sdk::{Config, Hydrant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// A node whose answers a test decides. It has a runtime of its own, so that dropping it closes
/// all of its connections, as the end of its process would.
pub struct FakeNode {
    pub address: SocketAddr,
    pub seen: Seen,
    runtime: Option<Runtime>,
}

/// What the node was told, and what it is to answer.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Inside>>);

#[derive(Default)]
pub struct Inside {
    pub registered: Vec<Instance>,
    pub reports: Vec<(proto::InstanceState, String)>,
    pub beats: u64,
    pub drains: u64,
    pub puts: Vec<proto::PutRequest>,
    pub requests: Vec<http::HeaderMap>,
    /// How long a lease lives, in milliseconds; 0 leaves it to the sdk.
    pub ttl_ms: u32,
    /// Keep-alives are left without an answer.
    pub silent: bool,
    /// Registrations are refused with this.
    pub refuse: Option<Error>,
    /// Of the candidate who was elected last.
    pub epoch: u64,
    registrations: Vec<mpsc::UnboundedSender<proto::RegisterEvent>>,
    candidates: Vec<mpsc::UnboundedSender<proto::CampaignEvent>>,
    watches: Vec<mpsc::UnboundedSender<proto::WatchStateEvent>>,
}

impl Seen {
    pub fn now(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// Asks every registered instance to stop.
    pub fn ask_to_stop(&self, reason: &str) {
        let stop = register_event::Stop {
            reason: reason.into(),
            ..Default::default()
        };
        let event = proto::RegisterEvent {
            event: Some(stop.into()),
            ..Default::default()
        };
        for registration in &self.now().registrations {
            let _ = registration.send(event.clone());
        }
    }

    /// Takes the seat away from whoever leads.
    pub fn depose(&self) {
        let lost = campaign_event::Lost {
            reason: "deposed".into(),
            ..Default::default()
        };
        let event = proto::CampaignEvent {
            event: Some(lost.into()),
            ..Default::default()
        };
        for candidate in self.now().candidates.drain(..) {
            let _ = candidate.send(event.clone());
        }
    }

    /// Breaks every watch off.
    pub fn break_watches(&self) {
        self.now().watches.clear();
    }
}

impl FakeNode {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Seen::default())
    }

    /// Starts again at the same address, as after a crash.
    pub fn start_at(address: SocketAddr, seen: Seen) -> Self {
        let runtime = Runtime::new().unwrap();
        let socket = socket_at(address);
        let address = socket.local_addr().unwrap();
        let routes = routes(seen.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(socket).unwrap();
            axum::serve(listener, routes).await
        });
        Self {
            address,
            seen,
            runtime: Some(runtime),
        }
    }

    pub fn hydrant(&self) -> Hydrant {
        Hydrant::new(self.config()).unwrap()
    }

    pub fn config(&self) -> Config {
        let url = format!("http://{}", self.address);
        Config::new(&url, Some("h1.service/test.abc")).unwrap()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn socket_at(address: SocketAddr) -> std::net::TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

fn routes(seen: Seen) -> axum::Router {
    let api = Arc::new(Api(seen.clone()));
    let router = proto::RegistryExt::register(Arc::clone(&api), Router::new());
    let router = proto::ElectionExt::register(Arc::clone(&api), router);
    let router = proto::LockExt::register(Arc::clone(&api), router);
    let router = proto::StateExt::register(api, router);
    let note = move |request: Request, next: Next| {
        seen.now().requests.push(request.headers().clone());
        next.run(request)
    };
    axum::Router::new()
        .nest_service("/service/node", ConnectRpcService::new(router))
        .layer(axum::middleware::from_fn(note))
}

struct Api(Seen);

impl Api {
    async fn beat(&self) -> ServiceResult<proto::KeepAliveResponse> {
        let (silent, ttl_ms) = {
            let mut seen = self.0.now();
            seen.beats += 1;
            (seen.silent, seen.ttl_ms)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Response::ok(proto::KeepAliveResponse {
            ttl_ms,
            ..Default::default()
        })
    }
}

/// Events that are sent as they come; the stream ends when their sender is gone.
fn events<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> ServiceStream<T> {
    stream::unfold(receiver, |mut receiver| async move {
        Some((Ok(receiver.recv().await?), receiver))
    })
    .boxed()
}

#[allow(refining_impl_trait)]
impl proto::Registry for Api {
    async fn register_instance(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::RegisterRequest>,
    ) -> ServiceResult<ServiceStream<proto::RegisterEvent>> {
        let mut seen = self.0.now();
        if let Some(error) = &seen.refuse {
            return Err(error.clone().into());
        }
        let instance = request.to_owned_message().instance.into_option().unwrap();
        seen.registered.push(Instance::try_from(&instance).unwrap());
        let registered = register_event::Registered {
            lease_id: "lease-1".into(),
            ttl_ms: seen.ttl_ms,
            ..Default::default()
        };
        let (send, receive) = mpsc::unbounded_channel();
        let _ = send.send(proto::RegisterEvent {
            event: Some(registered.into()),
            ..Default::default()
        });
        seen.registrations.push(send);
        Ok(Response::new(events(receive)))
    }

    async fn keep_alive(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        self.beat().await
    }

    async fn report(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::ReportRequest>,
    ) -> ServiceResult<proto::ReportResponse> {
        let report = request.to_owned_message();
        let state = report.state.as_known().unwrap();
        self.0.now().reports.push((state, report.detail));
        Response::ok(proto::ReportResponse::default())
    }

    async fn drain(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::DrainRequest>,
    ) -> ServiceResult<proto::DrainResponse> {
        self.0.now().drains += 1;
        Response::ok(proto::DrainResponse::default())
    }

    async fn discover(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::DiscoverRequest>,
    ) -> ServiceResult<proto::DiscoverResponse> {
        let instances = self.0.now().registered.iter().map(Into::into).collect();
        Response::ok(proto::DiscoverResponse {
            instances,
            ..Default::default()
        })
    }

    async fn watch(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::WatchInstancesRequest>,
    ) -> ServiceResult<ServiceStream<proto::WatchInstancesEvent>> {
        let all = watch_instances_event::All {
            instances: self.0.now().registered.iter().map(Into::into).collect(),
            ..Default::default()
        };
        let told = [
            watch_instances_event::Event::from(all),
            watch_instances_event::Event::Removed("test-1".into()),
        ];
        let told = told.map(|event| {
            Ok(proto::WatchInstancesEvent {
                event: Some(event),
                ..Default::default()
            })
        });
        Ok(Response::new(
            stream::iter(told).chain(stream::pending()).boxed(),
        ))
    }
}

#[allow(refining_impl_trait)]
impl proto::Election for Api {
    async fn campaign(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::CampaignRequest>,
    ) -> ServiceResult<ServiceStream<proto::CampaignEvent>> {
        let mut seen = self.0.now();
        seen.epoch += 1;
        let joined = campaign_event::Joined {
            lease_id: "lease-2".into(),
            ttl_ms: seen.ttl_ms,
            ..Default::default()
        };
        let elected = campaign_event::Elected {
            epoch: seen.epoch,
            ..Default::default()
        };
        let (send, receive) = mpsc::unbounded_channel();
        let told: [campaign_event::Event; 2] = [joined.into(), elected.into()];
        for event in told {
            let _ = send.send(proto::CampaignEvent {
                event: Some(event),
                ..Default::default()
            });
        }
        seen.candidates.push(send);
        Ok(Response::new(events(receive)))
    }

    async fn keep_alive(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        self.beat().await
    }

    async fn observe(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::ObserveRequest>,
    ) -> ServiceResult<ServiceStream<proto::ObserveEvent>> {
        let leader = proto::ObserveEvent {
            leader: "test-1".into(),
            epoch: self.0.now().epoch,
            ..Default::default()
        };
        let told = stream::iter([Ok(proto::ObserveEvent::default()), Ok(leader)]);
        Ok(Response::new(told.chain(stream::pending()).boxed()))
    }
}

#[allow(refining_impl_trait)]
impl proto::Lock for Api {
    /// The lock `taken` is always held by somebody else.
    async fn acquire(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::AcquireRequest>,
    ) -> ServiceResult<ServiceStream<proto::AcquireEvent>> {
        let joined = acquire_event::Joined {
            lease_id: "lease-3".into(),
            ttl_ms: self.0.now().ttl_ms,
            ..Default::default()
        };
        let acquired = acquire_event::Acquired {
            fence: 7,
            ..Default::default()
        };
        let told = [acquire_event::Event::from(joined), acquired.into()].map(|event| {
            Ok(proto::AcquireEvent {
                event: Some(event),
                ..Default::default()
            })
        });
        let stream = if request.name == "taken" {
            let late = Error::new(Code::DeadlineExceeded, "lock_held", "somebody holds it");
            let late = stream::once(async move { Err(late.into()) });
            stream::iter(told).take(1).chain(late).boxed()
        } else {
            stream::iter(told).chain(stream::pending()).boxed()
        };
        Ok(Response::new(stream))
    }

    async fn keep_alive(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        self.beat().await
    }
}

#[allow(refining_impl_trait)]
impl proto::State for Api {
    async fn get(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::GetRequest>,
    ) -> ServiceResult<proto::GetResponse> {
        let found = self
            .0
            .now()
            .puts
            .iter()
            .rev()
            .find(|put| put.key == request.key)
            .cloned();
        Response::ok(proto::GetResponse {
            entry: found.map(entry_of).into(),
            // As if it came from memory, as old as is allowed.
            age_ms: request.max_age_ms,
            ..Default::default()
        })
    }

    async fn put(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::PutRequest>,
    ) -> ServiceResult<proto::PutResponse> {
        let mut seen = self.0.now();
        seen.puts.push(request.to_owned_message());
        Response::ok(proto::PutResponse {
            revision: seen.puts.len() as u64,
            ..Default::default()
        })
    }

    async fn compare_and_put(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::CompareAndPutRequest>,
    ) -> ServiceResult<proto::PutResponse> {
        Err(Error::new(Code::Aborted, "conflict", "at another revision").into())
    }

    async fn delete(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::DeleteRequest>,
    ) -> ServiceResult<proto::DeleteResponse> {
        Response::ok(proto::DeleteResponse::default())
    }

    /// Two entries a page.
    async fn list(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::ListRequest>,
    ) -> ServiceResult<proto::ListResponse> {
        let mut puts = self.0.now().puts.clone();
        puts.sort_by(|one, other| one.key.cmp(&other.key));
        puts.retain(|put| put.key.as_str() > request.after);
        let more = puts.len() > 2;
        Response::ok(proto::ListResponse {
            entries: puts.into_iter().take(2).map(entry_of).collect(),
            more,
            ..Default::default()
        })
    }

    async fn watch(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, proto::WatchStateRequest>,
    ) -> ServiceResult<ServiceStream<proto::WatchStateEvent>> {
        let mut seen = self.0.now();
        let all = watch_state_event::All {
            entries: seen.puts.iter().cloned().map(entry_of).collect(),
            ..Default::default()
        };
        let (send, receive) = mpsc::unbounded_channel();
        let _ = send.send(proto::WatchStateEvent {
            event: Some(all.into()),
            ..Default::default()
        });
        seen.watches.push(send);
        Ok(Response::new(events(receive)))
    }
}

fn entry_of(put: proto::PutRequest) -> proto::Entry {
    proto::Entry {
        key: put.key,
        value: put.value,
        revision: 1,
        ..Default::default()
    }
}
