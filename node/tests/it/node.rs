//! A whole node: router, local API and supervisor, on real sockets.

use std::path::Path;
use std::time::{Duration, Instant};

use connectrpc::client::{ClientConfig, HttpClient};
use hydrant_contracts::proto::__buffa::oneof::register_event::Event;
use hydrant_contracts::{Identity, PathPrefix, ServiceId, TokenKey, header, proto};
use hydrant_embedded::EmbeddedStore;
use hydrant_node::{Engines, Node, NodeConfig, ServiceSpec, StartError, load_or_create_key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Client, SOON, instance, next};

struct Running {
    node: Node,
    store: EmbeddedStore,
    key: TokenKey,
}

impl Running {
    async fn start(data: &Path, services: Vec<ServiceSpec>) -> Self {
        let store = EmbeddedStore::open(data.join("store.redb")).unwrap();
        let mut config = NodeConfig::new("one".parse().unwrap(), data);
        config.workers = 2;
        config.services = services;
        let engines = Engines {
            coordination: store.coordination(),
            state: store.state(),
        };
        Self {
            node: Node::start(config, engines).await.unwrap(),
            store,
            key: load_or_create_key(&data.join("key")).unwrap(),
        }
    }

    /// A client that goes the way of every service: by the local listener.
    fn client(&self, who: &str) -> Client {
        let identity = match who {
            "operator" => Identity::Operator,
            service => Identity::Service(service.parse().unwrap()),
        };
        let url = format!("http://{}/service/node", self.node.local_addr());
        let config = ClientConfig::new(url.parse().unwrap())
            .with_default_header(header::TOKEN, self.key.issue(&identity));
        Client::new(&HttpClient::plaintext(), &config)
    }

    async fn stop(self) {
        let start = Instant::now();
        self.node.shutdown().await;
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        self.store.close().await;
    }

    /// The status of the answer to a GET on the public listener, and its body.
    async fn get(&self, path: &str) -> (u16, String) {
        get(self.node.public_addr(), path).await
    }
}

/// The status of the answer to a GET, and all of it.
pub async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

/// A web server that answers every request after `delay`.
pub async fn web(delay: Duration) -> std::net::SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                tokio::time::sleep(delay).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

pub fn web_instance(id: &str, address: std::net::SocketAddr) -> proto::RegisterRequest {
    let service: ServiceId = "api/web".parse().unwrap();
    let route = PathPrefix::new(&service, "/api/web/", true).unwrap();
    let mut instance = instance("api/web", id);
    instance.address = address.to_string();
    instance.prefixes = vec![proto::PathPrefix {
        prefix: route.prefix,
        strip: route.strip as u32,
        ..Default::default()
    }];
    proto::RegisterRequest {
        instance: instance.into(),
        ttl_ms: 60_000,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_web_server_is_routed_drained_and_gone() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), vec![]).await;
    let client = running.client("api/web");
    let address = web(Duration::from_millis(500)).await;
    let mut stream = client
        .registry
        .register_instance(web_instance("web-1", address))
        .await
        .unwrap();
    let Some(Event::Registered(registered)) = next!(stream).unwrap() else {
        panic!("the first event");
    };
    let drain = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let request = proto::DrainRequest {
            lease_id: registered.lease_id.clone(),
            timeout_ms: 10_000,
            ..Default::default()
        };
        let start = Instant::now();
        let left = client.registry.drain(request).await.unwrap().into_owned();
        (left.in_flight, start.elapsed())
    };
    let ((status, body), (left, waited)) = tokio::join!(running.get("/api/web/"), drain);
    assert_eq!(status, 200, "{body}");
    assert_eq!(left, 0);
    assert!(
        waited >= Duration::from_millis(200),
        "it waited for the request: {waited:?}"
    );
    assert_eq!(running.get("/api/web/").await.0, 503, "draining");

    drop(stream);
    client.discovers(&[]).await;
    let (status, body) = running.get("/api/web/").await;
    assert!(matches!(status, 404 | 503), "{body}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_speaks_grpc_on_its_bare_paths_and_never_on_the_public_listener() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), vec![]).await;
    let token = running.key.issue(&Identity::Operator);
    let config = |address: std::net::SocketAddr| {
        ClientConfig::new(format!("http://{address}").parse().unwrap())
            .with_protocol(connectrpc::Protocol::Grpc)
            .with_default_header(header::TOKEN, &*token)
    };
    let http = HttpClient::plaintext_http2_only();
    let local = Client::new(&http, &config(running.node.local_addr()));
    let health = local
        .node
        .health(Default::default())
        .await
        .unwrap()
        .into_owned();
    assert!(health.healthy);
    let request = proto::ExplainRequest {
        method: "GET".into(),
        path: "/service/node/".into(),
        public_listener: true,
        ..Default::default()
    };
    let explained = local.node.explain(request).await.unwrap().into_owned();
    assert_eq!(
        (&*explained.outcome, explained.status, &*explained.reason),
        ("refuse", 403, "tier_refused")
    );
    let public = Client::new(&http, &config(running.node.public_addr()));
    let refused = public.node.health(Default::default()).await;
    assert!(refused.is_err());
    assert_eq!(running.get("/health").await.0, 403);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let store = EmbeddedStore::open(folder.path().join("store.redb")).unwrap();
    let mut config = NodeConfig::new("one".parse().unwrap(), folder.path());
    config.public = taken.local_addr().unwrap();
    let engines = Engines {
        coordination: store.coordination(),
        state: store.state(),
    };
    let error = Node::start(config, engines).await.err().unwrap();
    assert!(matches!(error, StartError::Router(_)));
    assert!(
        error
            .to_string()
            .contains(&taken.local_addr().unwrap().to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_service_is_scaled_and_the_number_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let sleeper = || {
        let command = vec!["/bin/sleep".into(), "1000".into()];
        let id = "service/sleeper".parse().unwrap();
        let mut spec = ServiceSpec::new(id, "1.0.0".parse().unwrap(), command);
        spec.sdk = true;
        vec![spec]
    };
    let running = Running::start(folder.path(), sleeper()).await;
    let operator = running.client("operator");
    let scaled = operator.node.scale(proto::ScaleRequest {
        service: "sleeper".into(),
        instances: 3,
        ..Default::default()
    });
    let scaled = scaled.await.unwrap().into_owned();
    assert_eq!((scaled.before, scaled.after), (1, 3));
    let pids = running_processes(&operator, 3).await;
    running.stop().await;
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} still runs"
        );
    }

    let running = Running::start(folder.path(), sleeper()).await;
    running_processes(&running.client("operator"), 3).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_prints_is_followed_through_the_local_api() {
    let folder = tempfile::tempdir().unwrap();
    let script = "while :; do echo tick; sleep 0.2; done";
    let command = ["/bin/sh", "-c", script].map(String::from).to_vec();
    let id = "service/ticker".parse().unwrap();
    let mut spec = ServiceSpec::new(id, "1.0.0".parse().unwrap(), command);
    spec.sdk = true;
    let running = Running::start(folder.path(), vec![spec]).await;
    let operator = running.client("operator");
    let request = proto::LogsRequest {
        pattern: "ticker".into(),
        follow: true,
        ..Default::default()
    };
    let mut lines = operator.node.logs(request).await.unwrap();
    for _ in 0..3 {
        let line = tokio::time::timeout(SOON, lines.message()).await.unwrap();
        let line = line.unwrap().unwrap().to_owned_message();
        assert_eq!((&*line.service, &*line.message), ("service/ticker", "tick"));
    }
    running.stop().await;
}

/// Waits until so many processes run; their ids.
async fn running_processes(client: &Client, count: usize) -> Vec<u32> {
    let start = Instant::now();
    loop {
        let health = client
            .node
            .health(Default::default())
            .await
            .unwrap()
            .into_owned();
        let processes = health
            .services
            .iter()
            .flat_map(|service| &service.processes);
        let pids: Vec<_> = processes
            .map(|process| process.pid)
            .filter(|pid| *pid != 0)
            .collect();
        if pids.len() == count {
            return pids;
        }
        assert!(start.elapsed() < SOON, "{health:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_front_of_the_router_ends_the_lease_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), vec![]).await;
    let operator = running.client("operator");
    let mut socket = TcpStream::connect(running.node.local_addr()).await.unwrap();
    let message =
        serde_json::to_vec(&web_instance("web-1", ([127, 0, 0, 1], 4000).into())).unwrap();
    let identity = Identity::Service("api/web".parse().unwrap());
    let head = format!(
        "POST /service/node/hydrant.v1.Registry/RegisterInstance HTTP/1.1\r\nhost: x\r\n\
         content-type: application/connect+json\r\n{}: {}\r\ncontent-length: {}\r\n\r\n",
        header::TOKEN,
        running.key.issue(&identity),
        message.len() + 5,
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_u8(0).await.unwrap();
    socket.write_u32(message.len() as u32).await.unwrap();
    socket.write_all(&message).await.unwrap();
    operator.discovers(&["web-1"]).await;
    drop(socket);
    operator.discovers(&[]).await;
    running.stop().await;
}
