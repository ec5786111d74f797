use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use connectrpc::ConnectError;
use connectrpc::client::{ClientConfig, HttpClient};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hydrant_contracts::{
    Code, Error, Identity, Instance, InstanceId, Pattern, ServiceId, TokenKey, header, proto,
};
use hydrant_embedded::EmbeddedStore;
use hydrant_node::{Agent, Engines, Parts, Quotas, StartError, Supervision, Traffic};
use hydrant_ports::Coordination;
use hydrant_router::Table;
use hydrant_runtime::Clock;

/// The most that a test waits for what should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// A local API on the embedded engine.
pub struct Server {
    pub agent: Agent,
    pub key: TokenKey,
    pub traffic: Arc<Counted>,
    pub engines: Engines,
    _folder: Arc<tempfile::TempDir>,
}

/// The engines of a fleet, in one process.
pub struct Store {
    pub engines: Engines,
    folder: Arc<tempfile::TempDir>,
}

impl Store {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path().join("store.redb")).unwrap();
        Self {
            engines: Engines {
                coordination: store.coordination(),
                state: store.state(),
            },
            folder: Arc::new(folder),
        }
    }

    /// The node of a server of this fleet.
    pub async fn server(&self, name: &str) -> Server {
        self.start(name).await.unwrap()
    }

    /// As [`server`](Self::server), with its own way to coordination.
    pub async fn server_on(&self, name: &str, coordination: Arc<dyn Coordination>) -> Server {
        let engines = Engines {
            coordination,
            state: self.engines.state.clone(),
        };
        let started = self.start_with(name, engines, Quotas::default());
        started.await.unwrap()
    }

    pub async fn start(&self, name: &str) -> Result<Server, StartError> {
        self.start_with(name, self.engines.clone(), Quotas::default())
            .await
    }

    async fn start_with(
        &self,
        name: &str,
        engines: Engines,
        quotas: Quotas,
    ) -> Result<Server, StartError> {
        let key = TokenKey::new(&[7; 32]);
        let traffic = Arc::new(Counted::default());
        let agent = Agent::start(Parts {
            server: name.parse().unwrap(),
            zone: format!("zone-of-{name}").parse().unwrap(),
            peer: None,
            session: SOON,
            before: Default::default(),
            key: key.clone(),
            engines: engines.clone(),
            traffic: traffic.clone(),
            supervision: Arc::new(OneService),
            router_ports: vec![8080, 8081],
            quotas,
            exports: Default::default(),
            clock: Clock::system(),
        });
        Ok(Server {
            agent: agent.await?,
            key,
            traffic,
            engines,
            _folder: self.folder.clone(),
        })
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Quotas::default(), |engines| engines).await
    }

    /// With other quotas, and with the engines wrapped.
    pub async fn start_with(quotas: Quotas, wrap: impl FnOnce(Engines) -> Engines) -> Self {
        let store = Store::new();
        let engines = wrap(store.engines.clone());
        store.start_with("one", engines, quotas).await.unwrap()
    }

    /// A client of its own, with its own connections: `operator`, or a service.
    pub fn client(&self, who: &str) -> Client {
        let identity = match who {
            "operator" => Identity::Operator,
            service => Identity::Service(service.parse().unwrap()),
        };
        self.client_with(Some(&self.key.issue(&identity)))
    }

    pub fn client_with(&self, token: Option<&str>) -> Client {
        let url = format!("http://{}", self.agent.address());
        let config =
            ClientConfig::new(url.parse().unwrap()).with_default_max_message_size(8 * 1024 * 1024);
        let config = match token {
            Some(token) => config.with_default_header(header::TOKEN, token),
            None => config,
        };
        Client::new(&HttpClient::plaintext(), &config)
    }
}

pub struct Client {
    pub registry: proto::RegistryClient<HttpClient>,
    pub election: proto::ElectionClient<HttpClient>,
    pub lock: proto::LockClient<HttpClient>,
    pub state: proto::StateClient<HttpClient>,
    pub kept: proto::KeptClient<HttpClient>,
    pub node: proto::NodeClient<HttpClient>,
}

impl Client {
    pub fn new(http: &HttpClient, config: &ClientConfig) -> Self {
        Self {
            registry: proto::RegistryClient::new(http.clone(), config.clone()),
            election: proto::ElectionClient::new(http.clone(), config.clone()),
            lock: proto::LockClient::new(http.clone(), config.clone()),
            state: proto::StateClient::new(http.clone(), config.clone()),
            kept: proto::KeptClient::new(http.clone(), config.clone()),
            node: proto::NodeClient::new(http.clone(), config.clone()),
        }
    }

    /// The ids of the instances that are known.
    pub async fn discover(&self, pattern: &str) -> Vec<String> {
        let request = proto::DiscoverRequest {
            pattern: pattern.into(),
            ..Default::default()
        };
        let found = self.registry.discover(request).await.unwrap();
        let found = found.into_owned().instances.into_iter();
        found.map(|instance| instance.id).collect()
    }

    /// Waits until exactly these instances are known.
    pub async fn discovers(&self, ids: &[&str]) {
        let start = std::time::Instant::now();
        loop {
            let found = self.discover("").await;
            if found == ids {
                return;
            }
            assert!(start.elapsed() < SOON, "{found:?} instead of {ids:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What a candidate is told.
pub type Campaign = connectrpc::client::ServerStream<
    <HttpClient as connectrpc::client::ClientTransport>::ResponseBody,
    proto::__buffa::view::CampaignEventView<'static>,
>;

/// The next event of a stream, soon.
macro_rules! next {
    ($stream:expr) => {
        tokio::time::timeout(crate::support::SOON, $stream.message())
            .await
            .expect("an event comes soon")
            .map(|event| event.and_then(|event| event.to_owned_message().event))
    };
}
pub(crate) use next;

/// What the node said was wrong.
pub fn error<T>(result: Result<T, ConnectError>) -> Error {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => Error::from_connect(&error),
    }
}

pub fn code<T>(result: Result<T, ConnectError>) -> Option<Code> {
    result.err().map(|error| error.code)
}

pub fn instance(service: &str, id: &str) -> proto::Instance {
    let service: ServiceId = service.parse().unwrap();
    proto::Instance {
        id: id.into(),
        tier: proto::Tier::from(service.tier).into(),
        service: service.name.to_string(),
        version: "1.0.0".into(),
        address: "127.0.0.1:4000".into(),
        state: proto::InstanceState::INSTANCE_STATE_READY.into(),
        ..Default::default()
    }
}

pub fn register(service: &str, id: &str, ttl_ms: u32) -> proto::RegisterRequest {
    proto::RegisterRequest {
        instance: instance(service, id).into(),
        ttl_ms,
        ..Default::default()
    }
}

/// A router that routes nothing, and says of every instance what the test tells it.
#[derive(Default)]
pub struct Counted {
    pub published: Mutex<Vec<Arc<Instance>>>,
    pub in_flight: Mutex<HashMap<String, u64>>,
}

impl Traffic for Counted {
    fn publish(&self, table: &Table) {
        (*self.published.lock().unwrap()).clone_from(&table.instances);
    }

    fn rules_epoch(&self) -> u64 {
        0
    }

    fn in_flight(&self, instance: &InstanceId) -> u64 {
        let counts = self.in_flight.lock().unwrap();
        counts.get(instance.as_str()).copied().unwrap_or(0)
    }

    fn stats(&self, _: &Pattern) -> Vec<proto::InstanceStats> {
        Vec::new()
    }

    fn metrics(&self) -> String {
        "hydrant_refusals_total 0\n".into()
    }

    fn explain(&self, _: &proto::ExplainRequest) -> proto::ExplainResponse {
        proto::ExplainResponse::default()
    }
}

/// Supervises `api/web`, and has two lines of its log and one of another service.
struct OneService;

#[async_trait]
impl Supervision for OneService {
    fn services(&self) -> Vec<proto::SupervisedService> {
        vec![proto::SupervisedService {
            tier: proto::Tier::TIER_API.into(),
            service: "web".into(),
            wanted: 2,
            ..Default::default()
        }]
    }

    async fn scale(&self, _: &ServiceId, _: u32) -> Result<u32, Error> {
        Ok(2)
    }

    fn logs(
        &self,
        _: Pattern,
        _: usize,
        follow: bool,
    ) -> BoxStream<'static, Result<proto::LogLine, Error>> {
        let line = |service: &str, message: &str| {
            Ok(proto::LogLine {
                service: service.into(),
                message: message.into(),
                ..Default::default()
            })
        };
        let lines = [
            line("api/web", "one"),
            line("service/secret", "two"),
            line("api/web", "three"),
        ];
        let lines = futures::stream::iter(lines);
        match follow {
            true => lines.chain(futures::stream::pending()).boxed(),
            false => lines.boxed(),
        }
    }
}
