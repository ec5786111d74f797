//! HTTP/2 and gRPC through a router, with servers and clients that are not ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use connectrpc::client::{ClientConfig, Http2Connection};
use connectrpc::{
    ConnectRpcService, Protocol, RequestContext, ServiceRequest, ServiceResult, ServiceStream,
};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hydrant_contracts::proto::{self, LockClient};
use hydrant_contracts::{Code, Error, Identity, Instance, Method, Pattern, TokenKey};
use hydrant_router::{Config, Limits, Router, Table};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn router(instances: &[Instance]) -> Router {
    router_with(Limits::default(), instances)
}

pub fn router_with(limits: Limits, instances: &[Instance]) -> Router {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let config = Config {
        public: any,
        secure: None,
        local: any,
        peer: None,
        workers: 2,
        key: TokenKey::new(&[5; 32]),
        limits,
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    };
    let router = Router::start(config).unwrap();
    router.publish(&Table::of_one_server(instances));
    router
}

pub fn instance(number: u16, address: SocketAddr, http2: bool) -> Instance {
    let mut made = crate::decide::instance("api/web", number);
    made.address = address;
    made.http2 = http2;
    made
}

pub async fn serve(routes: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// A web server that tells what it sees.
pub fn web() -> axum::Router {
    let echo = |request: Request| async { Response::new(request.into_body()) };
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        "late"
    };
    let moved = || async { (StatusCode::FOUND, [("location", "/there")]) };
    axum::Router::new()
        .route("/echo", any(echo))
        .route("/safe/echo", any(echo))
        .route("/seen", any(seen))
        .route("/slow", any(slow))
        .route("/moved", any(moved))
        .route("/busy", any(|| async { StatusCode::SERVICE_UNAVAILABLE }))
}

async fn seen(request: Request) -> String {
    let headers = request.headers().iter();
    let mut lines: Vec<_> = headers
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.push(format!(
        "{} {} {:?}",
        request.method(),
        request.uri().path(),
        request.version()
    ));
    lines.join("\n")
}

pub async fn client(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn request(method: &str, path: &str, body: impl Into<Body>) -> http::Request<Body> {
    let uri = format!("http://shop.example{path}");
    http::Request::builder()
        .method(method)
        .uri(uri)
        .body(body.into())
        .unwrap()
}

/// The status, the headers, and the whole body as text.
pub async fn ask(
    client: &mut SendRequest<Body>,
    request: http::Request<Body>,
) -> (StatusCode, HeaderMap, String) {
    let answer = tokio::time::timeout(PATIENCE, client.send_request(request));
    let (parts, body) = answer.await.unwrap().unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (
        parts.status,
        parts.headers,
        String::from_utf8_lossy(&bytes).into_owned(),
    )
}

#[tokio::test]
async fn both_kinds_of_instances_see_what_they_should() {
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(web()).await, http2)]);
        let mut client = client(router.public_addr()).await;
        let mut asked = request("GET", "/api/web/seen?a=b", Body::empty());
        let token = TokenKey::new(&[5; 32]).issue(&Identity::Operator);
        for (name, value) in [
            ("hydrant-token", &*token),
            ("hydrant-caller", "operator-by-claim"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-prefix", "/forged"),
            ("correlation-id", "order-7"),
            ("connect-timeout-ms", "9000"),
        ] {
            asked.headers_mut().append(name, value.parse().unwrap());
        }
        let (status, headers, seen) = ask(&mut client, asked).await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key("transfer-encoding"));
        let version = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
        assert!(seen.ends_with(&format!("GET /seen {version}")), "{seen}");
        for line in [
            "hydrant-caller: operator",
            "x-forwarded-for: 10.0.0.1, 127.0.0.1",
            "x-forwarded-host: shop.example",
            "x-forwarded-prefix: /api/web",
            "correlation-id: order-7",
        ] {
            assert!(seen.lines().any(|found| found == line), "{line} in {seen}");
        }
        assert!(seen.contains("traceparent: 00-"), "{seen}");
        assert!(
            !seen.contains("hydrant-token") && !seen.contains("claim"),
            "{seen}"
        );
        let left = seen
            .lines()
            .find_map(|line| line.strip_prefix("connect-timeout-ms: "));
        assert!((1..=9000).contains(&left.unwrap().parse::<u64>().unwrap()));
        let (status, headers, _) = ask(&mut client, request("GET", "/api/web/moved", "")).await;
        assert_eq!(
            (status, headers["location"].to_str().unwrap()),
            (StatusCode::FOUND, "/api/web/there")
        );
    }
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let router = router(&[instance(1, serve(web()).await, true)]);
    let mut client = client(router.public_addr()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "abc".parse().unwrap());
    let frames = [
        Frame::data(Bytes::from_static(b"hello")),
        Frame::trailers(trailers.clone()),
    ];
    let stream = futures::stream::iter(frames.map(Ok::<_, std::io::Error>));
    let body = Body::new(http_body_util::StreamBody::new(stream));
    let answer = client
        .send_request(request("POST", "/api/web/echo", body))
        .await
        .unwrap();
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "hello");
}

#[tokio::test]
async fn large_bodies_stream() {
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 512;
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(web()).await, http2)]);
        let mut client = client(router.public_addr()).await;
        let chunk = Bytes::from(vec![7; CHUNK]);
        let chunks = futures::stream::repeat(chunk)
            .take(CHUNKS)
            .map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(chunks);
        let answer = client
            .send_request(request("POST", "/api/web/echo", body))
            .await
            .unwrap();
        let mut stream = answer.into_body().into_data_stream();
        let mut received = 0;
        while let Some(data) = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap() {
            received += data.unwrap().len();
        }
        assert_eq!(received, CHUNK * CHUNKS);
        let stats = &router.stats(&Pattern::default())[0];
        let whole = (CHUNK * CHUNKS) as u64;
        assert_eq!((stats.bytes_in, stats.bytes_out), (whole, whole));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_instance() {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let endless = move || {
        let counter = Arc::clone(&counter);
        let chunk = Bytes::from(vec![0; 64 * 1024]);
        let chunks = futures::stream::repeat(chunk).map(move |chunk| {
            counter.fetch_add(chunk.len(), Relaxed);
            Ok::<_, std::io::Error>(chunk)
        });
        async { Body::from_stream(chunks).into_response() }
    };
    let routes = axum::Router::new().route("/endless", get(endless));
    let router = router(&[instance(1, serve(routes).await, true)]);
    let mut client = client(router.public_addr()).await;
    let answer = client
        .send_request(request("GET", "/api/web/endless", ""))
        .await
        .unwrap();
    let mut before = usize::MAX;
    let start = Instant::now();
    while made.load(Relaxed) != before {
        assert!(start.elapsed() < PATIENCE, "it never stops: {before} bytes");
        before = made.load(Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(
        before < 32 << 20,
        "{before} bytes were made for a client that reads none"
    );
    drop(answer);
}

#[tokio::test]
async fn deadlines_end_requests_in_the_callers_words() {
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(web()).await, http2)]);
        let mut client = client(router.public_addr()).await;
        let mut plain = request("GET", "/api/web/slow", "");
        plain
            .headers_mut()
            .insert("hydrant-timeout-ms", "100".parse().unwrap());
        let (status, headers, body) = ask(&mut client, plain).await;
        assert_eq!(status, 504);
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(body.contains("deadline_exceeded"), "{body}");
        let mut grpc = request("POST", "/api/web/slow", "");
        grpc.headers_mut()
            .insert("grpc-timeout", "100m".parse().unwrap());
        grpc.headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let (status, headers, _) = ask(&mut client, grpc).await;
        assert_eq!(status, 200);
        assert_eq!(headers["grpc-status"], "4");
        let mut broken = request("GET", "/api/web/slow", "");
        broken
            .headers_mut()
            .insert("hydrant-timeout-ms", "soon".parse().unwrap());
        assert_eq!(ask(&mut client, broken).await.0, 400);
    }
}

#[tokio::test]
async fn refusals_are_in_the_callers_words() {
    let router = router(&[]);
    let mut client = client(router.public_addr()).await;
    for (content_type, status, found, part) in [
        (
            "text/plain",
            403,
            "application/problem+json",
            "tier_refused",
        ),
        (
            "application/json",
            403,
            "application/json",
            "permission_denied",
        ),
        ("application/grpc", 200, "application/grpc", ""),
        (
            "application/connect+json",
            200,
            "application/connect+json",
            "permission_denied",
        ),
    ] {
        let mut asked = request("POST", "/service/shop/shop.v1.Shop/Get", "{}");
        asked
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
        let (code, headers, body) = ask(&mut client, asked).await;
        assert_eq!(code, status, "{content_type}");
        assert_eq!(headers["content-type"], found);
        assert!(body.contains(part), "{body}");
        if content_type == "application/grpc" {
            assert_eq!(headers["grpc-status"], "7");
        }
    }
    let prometheus =
        hydrant_router::stats::prometheus(&router.snapshot(), hydrant_router::Moment::now());
    assert!(prometheus.contains("hydrant_refusals_total{reason=\"tier_refused\"} 4"));
    let mut forged = request("GET", "/api/web/", "");
    forged
        .headers_mut()
        .insert("hydrant-token", "h1.operator.AAAA".parse().unwrap());
    assert_eq!(ask(&mut client, forged).await.0, 401);
}

/// An address where nothing listens.
pub async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_refusing_instance_costs_nobody_a_request_and_comes_back() {
    for http2 in [true, false] {
        let dead = nowhere().await;
        let alive = instance(1, serve(web()).await, http2);
        let router = router(&[alive, instance(2, dead, http2)]);
        let mut client = client(router.public_addr()).await;
        for number in 0..50 {
            let method = if number % 2 == 0 { "POST" } else { "GET" };
            let (status, _, body) =
                ask(&mut client, request(method, "/api/web/echo", "body")).await;
            assert_eq!((status, &*body), (StatusCode::OK, "body"));
        }
        let dead_id: Pattern = "api-web-2".parse().unwrap();
        let stats = router.stats(&dead_id).remove(0);
        assert!(stats.ejected && stats.errors["connect"] >= 1, "{stats:?}");
        assert!(stats.requests <= 5, "ejected at once: {stats:?}");
        let listener = TcpListener::bind(dead).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, web()).await });
        let start = Instant::now();
        while router.stats(&dead_id)[0].ejected {
            assert!(start.elapsed() < PATIENCE, "never readmitted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn with_every_instance_dead_the_answer_is_a_503_at_once() {
    let router = router(&[
        instance(1, nowhere().await, true),
        instance(2, nowhere().await, false),
    ]);
    let mut client = client(router.public_addr()).await;
    for _ in 0..10 {
        let start = Instant::now();
        let (status, headers, body) = ask(&mut client, request("GET", "/api/web/echo", "")).await;
        assert_eq!(status, 503);
        assert_eq!(headers["retry-after"], "1");
        assert!(body.contains("no_healthy_instance"), "{body}");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

/// Reads so much of a request and breaks off.
pub async fn breaks_off(after: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read_exact(&mut vec![0; after]).await;
        }
    });
    address
}

#[tokio::test]
async fn what_may_be_repeated_is_and_nothing_else() {
    let instances = [
        instance(1, serve(web()).await, false),
        instance(2, breaks_off(1).await, false),
    ];
    let router = router(&instances);
    let mut client = client(router.public_addr()).await;
    for _ in 0..20 {
        for (method, path) in [("PUT", "/api/web/echo"), ("POST", "/api/web/safe/echo")] {
            let (status, _, body) = ask(&mut client, request(method, path, "again")).await;
            assert_eq!((status, &*body), (StatusCode::OK, "again"), "{method}");
        }
    }
    router.publish(&Table::of_one_server(&instances[1..]));
    let (status, _, body) = ask(&mut client, request("POST", "/api/web/echo", "once")).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("upstream_failed"), "{body}");
    let stats = router.stats(&"api-web-2".parse().unwrap()).remove(0);
    assert!(stats.errors["closed"] >= 1, "{stats:?}");
}

#[tokio::test]
async fn a_large_body_is_not_repeated() {
    let router = router(&[
        instance(1, breaks_off(128 * 1024).await, false),
        instance(2, breaks_off(128 * 1024).await, false),
    ]);
    let mut client = client(router.public_addr()).await;
    let body = vec![0; 256 * 1024];
    let (status, _, _) = ask(&mut client, request("PUT", "/api/web/echo", body)).await;
    assert_eq!(status, 502);
    let stats = router.stats(&Pattern::default());
    assert_eq!(stats.iter().map(|stats| stats.requests).sum::<u64>(), 1);
}

#[tokio::test]
async fn at_shutdown_requests_end_and_connections_close() {
    let router = router(&[instance(1, serve(web()).await, true)]);
    let mut client = client(router.public_addr()).await;
    let asked = client.send_request(request("GET", "/api/web/slow", ""));
    let asked = tokio::spawn(asked);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    router.shutdown(Duration::from_secs(10)).await;
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let answer = asked.await.unwrap().unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "late");
    assert!(client.ready().await.is_err() || client.is_closed());
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    let router = router(&[instance(1, serve(web()).await, true)]);
    let id = "api-web-1".parse().unwrap();
    let mut client = client(router.public_addr()).await;
    let asked = tokio::spawn(client.send_request(request("GET", "/api/web/slow", "")));
    let wait_for = async |count: u64| {
        let start = Instant::now();
        while router.in_flight(&id) != count {
            assert!(
                start.elapsed() < Duration::from_millis(1900),
                "still not {count}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait_for(1).await;
    asked.abort();
    wait_for(0).await;
    assert_eq!(router.stats(&Pattern::default())[0].errors["canceled"], 1);
}

struct Locks;

#[expect(refining_impl_trait, reason = "the concrete types are plainer to read")]
impl proto::Lock for Locks {
    async fn acquire(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::AcquireRequest>,
    ) -> ServiceResult<ServiceStream<proto::AcquireEvent>> {
        let fence = u64::from(request.ttl_ms);
        let events = (0..fence).map(|fence| {
            let held = proto::acquire_event::Acquired {
                fence,
                ..Default::default()
            };
            Ok(proto::AcquireEvent {
                event: held.into(),
                ..Default::default()
            })
        });
        connectrpc::Response::stream_ok(futures::stream::iter(events))
    }

    async fn keep_alive(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, proto::KeepAliveRequest>,
    ) -> ServiceResult<proto::KeepAliveResponse> {
        if request.lease_id.is_empty() {
            let error = Error::new(Code::FailedPrecondition, "no_lease", "there is no lease");
            return Err(error.into());
        }
        let ttl_ms = request.lease_id.len() as u32;
        connectrpc::Response::ok(proto::KeepAliveResponse {
            ttl_ms,
            ..Default::default()
        })
    }
}

/// An instance of a service with methods.
pub async fn locks() -> Instance {
    let rpc = proto::LockExt::register(Arc::new(Locks), connectrpc::Router::new());
    let routes = axum::Router::new().fallback_service(ConnectRpcService::new(rpc));
    let mut locks = instance(1, serve(routes).await, true);
    locks.methods = ["Acquire", "KeepAlive"]
        .map(|name| Method {
            path: format!("hydrant.v1.Lock/{name}").parse().unwrap(),
            idempotent: false,
        })
        .into();
    locks
}

/// Calls by both protocols, with and without the service in the path; `away` takes the instance
/// away, or brings it back.
pub async fn check_grpc(address: SocketAddr, away: impl Fn(bool)) {
    for (protocol, base) in [
        (Protocol::Grpc, ""),
        (Protocol::Grpc, "/api/web"),
        (Protocol::Connect, "/api/web"),
    ] {
        let uri: http::Uri = format!("http://{address}{base}").parse().unwrap();
        let connection = Http2Connection::connect_plaintext(uri.clone())
            .await
            .unwrap()
            .shared(16);
        let client = LockClient::new(connection, ClientConfig::new(uri).with_protocol(protocol));
        let ask = |lease_id: &str| {
            let lease_id = lease_id.into();
            client.keep_alive(proto::KeepAliveRequest {
                lease_id,
                ..Default::default()
            })
        };
        assert_eq!(ask("lease").await.unwrap().into_owned().ttl_ms, 5);
        let error = Error::from_connect(&ask("").await.unwrap_err());
        assert_eq!(
            (error.code, &*error.reason),
            (Code::FailedPrecondition, "no_lease")
        );
        let request = proto::AcquireRequest {
            ttl_ms: 100,
            ..Default::default()
        };
        let mut events = client.acquire(request).await.unwrap();
        let mut count = 0;
        while events
            .message::<proto::AcquireEvent>()
            .await
            .unwrap()
            .is_some()
        {
            count += 1;
        }
        assert_eq!(count, 100);
        away(true);
        let error = Error::from_connect(&ask("lease").await.unwrap_err());
        assert_eq!(
            (error.code, &*error.reason),
            (Code::Unavailable, "no_instance")
        );
        assert!(error.retryable);
        away(false);
    }
}

#[tokio::test]
async fn grpc_goes_through() {
    let locks = [locks().await];
    let router = router(&locks);
    let away = |away: bool| router.publish(&Table::of_one_server(&locks[usize::from(away)..]));
    check_grpc(router.public_addr(), away).await;
}
