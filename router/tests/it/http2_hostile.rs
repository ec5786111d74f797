//! Clients of HTTP/2 that are hostile, or slow, or gone, and what instances see of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hydrant_contracts::{InstanceId, Pattern};
use hydrant_router::{Limits, Router};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::http2::{PATIENCE, ask, client, instance, request, router, router_with, serve, web};
use crate::raw::{Backend, ok};

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A body whose first bytes come, and then nothing.
fn endless() -> Body {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]);
    Body::from_stream(first.chain(futures::stream::pending()))
}

async fn seen(client: &mut SendRequest<Body>, fields: &[(&'static str, &str)]) -> String {
    let mut asked = request("GET", "/api/web/seen", Body::empty());
    for (name, value) in fields {
        asked.headers_mut().append(*name, value.parse().unwrap());
    }
    let (status, _, seen) = ask(client, asked).await;
    assert_eq!(status, 200);
    seen
}

#[tokio::test]
async fn names_that_look_like_ours_stay_behind() {
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(web()).await, http2)]);
        let mut client = client(router.public_addr()).await;
        let seen = seen(
            &mut client,
            &[
                ("hydrant_caller", "claimed"),
                ("hydrant.caller", "claimed"),
                ("hydrant_token", "claimed"),
                ("x_forwarded_for", "claimed"),
                ("x-forwarded_prefix", "claimed"),
                ("content_length", "claimed"),
                ("an_other", "kept"),
            ],
        )
        .await;
        assert!(!seen.contains("claimed"), "{seen}");
        assert!(seen.contains("an_other: kept"), "{seen}");
    }
}

#[tokio::test]
async fn cookies_reach_old_instances_in_one_line() {
    let router = router(&[instance(1, serve(web()).await, false)]);
    let mut client = client(router.public_addr()).await;
    let seen = seen(&mut client, &[("cookie", "a=1"), ("cookie", "b=2")]).await;
    assert!(
        seen.lines().any(|line| line == "cookie: a=1; b=2"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body() {
    let router = router(&[]);
    let mut client = client(router.public_addr()).await;
    let (status, headers, body) = ask(&mut client, request("HEAD", "/api/none/x", "")).await;
    assert_eq!((status, &*body), (StatusCode::NOT_FOUND, ""));
    assert_eq!(headers["content-type"], "application/problem+json");
}

/// Answers every request with the trailers that it got, in its body.
async fn trailers_of(request: axum::extract::Request) -> String {
    let collected = request.into_body().collect().await.unwrap();
    format!("{:?}", collected.trailers())
}

#[tokio::test]
async fn trailers_do_not_say_what_heads_say() {
    for http2 in [true, false] {
        let routes = axum::Router::new().route("/seen", axum::routing::any(trailers_of));
        let router = router(&[instance(1, serve(routes).await, http2)]);
        let mut client = client(router.public_addr()).await;
        let mut trailers = HeaderMap::new();
        for name in ["hydrant-caller", "hydrant_caller", "x-forwarded-for", "sum"] {
            trailers.insert(name, "value".parse().unwrap());
        }
        let frames = [
            Frame::data(Bytes::from_static(b"x")),
            Frame::trailers(trailers),
        ];
        let stream = futures::stream::iter(frames.map(Ok::<_, std::io::Error>));
        let body = Body::new(http_body_util::StreamBody::new(stream));
        let mut asked = request("POST", "/api/web/seen", body);
        let names = "hydrant-caller, hydrant_caller, x-forwarded-for, sum";
        asked
            .headers_mut()
            .insert("trailer", names.parse().unwrap());
        let (_, _, seen) = ask(&mut client, asked).await;
        assert!(seen.contains("sum"), "{seen}");
        assert!(!seen.contains("caller") && !seen.contains("for"), "{seen}");
    }
}

/// An instance of HTTP/2 that takes so many streams of one connection.
async fn narrow(streams: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(endless()))
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn long_streams_do_not_keep_others_waiting() {
    let router = router(&[instance(1, narrow(100).await, true)]);
    let mut client = client(router.public_addr()).await;
    let mut open = Vec::new();
    for number in 0..150 {
        let asked = client.send_request(request("GET", "/api/web/stream", ""));
        let answer = tokio::time::timeout(PATIENCE / 2, asked).await;
        let answer = answer.unwrap_or_else(|_| panic!("stream {number} waits for the others"));
        open.push(answer.unwrap());
    }
}

fn in_flight(router: &Router) -> u64 {
    let id: InstanceId = "api-web-1".parse().unwrap();
    router.in_flight(&id)
}

#[tokio::test]
async fn an_upload_that_never_ends_does_not_outlive_its_answer() {
    let early = Backend::start(|mut wire, _| {
        wire.head();
        wire.send(ok(b"early"));
        wire.exactly(1 << 20);
    });
    let router = router(&[instance(1, early.address, false)]);
    let mut client = client(router.public_addr()).await;
    let (_, _, body) = ask(&mut client, request("POST", "/api/web/x", endless())).await;
    assert_eq!(body, "early");
    until("nothing in flight", || in_flight(&router) == 0).await;
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_the_instances_fault() {
    for http2 in [false, true] {
        let address = if http2 {
            serve(web()).await
        } else {
            Backend::start(|mut wire, _| {
                wire.exactly(1 << 20);
            })
            .address
        };
        let router = router(&[instance(1, address, http2)]);
        let mut client = client(router.public_addr()).await;
        for _ in 0..10 {
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let first = futures::stream::iter([Ok(Bytes::from_static(b"first"))]);
            let broken = futures::stream::once(async {
                let _ = stopped.await;
                Err(std::io::Error::other("gone"))
            });
            let body = Body::from_stream(first.chain(broken));
            let asked = tokio::spawn(client.send_request(request("POST", "/api/web/slow", body)));
            until("in flight", || in_flight(&router) == 1).await;
            stop.send(()).unwrap();
            assert!(asked.await.unwrap().is_err());
            until("nothing in flight", || in_flight(&router) == 0).await;
        }
        let stats = router.stats(&Pattern::default()).remove(0);
        assert!(!stats.ejected, "{stats:?}");
        assert_eq!(stats.errors["canceled"], 10, "{stats:?}");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_any_more_is_left() {
    let endless = || async {
        let chunks = futures::stream::repeat(Bytes::from(vec![0; 64 * 1024]));
        Body::from_stream(chunks.map(Ok::<_, std::io::Error>))
    };
    let routes = axum::Router::new().route("/endless", axum::routing::get(endless));
    let limits = Limits {
        stream_idle: Duration::from_millis(500),
        ..Limits::default()
    };
    let router = router_with(limits, &[instance(1, serve(routes).await, true)]);
    let mut client = client(router.public_addr()).await;
    let asked = client.send_request(request("GET", "/api/web/endless", ""));
    let answer = asked.await.unwrap();
    assert_eq!(in_flight(&router), 1);
    until("nothing in flight", || in_flight(&router) == 0).await;
    drop(answer);
}

#[tokio::test]
async fn connections_to_instances_do_not_stay_open_unused() {
    let backend = Backend::answering(|_| ok(b"x"));
    let limits = Limits {
        upstream_idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let router = router_with(limits, &[instance(1, backend.address, false)]);
    let mut client = client(router.public_addr()).await;
    assert_eq!(
        ask(&mut client, request("GET", "/api/web/x", "")).await.0,
        200
    );
    until("the connection is closed", || backend.open() == 0).await;
}

#[tokio::test]
async fn an_authority_is_a_host_and_no_more() {
    let router = router(&[instance(1, serve(web()).await, false)]);
    let mut client = client(router.public_addr()).await;
    for (authority, expected) in [("shop.example:80", 200), ("me:secret@shop.example", 400)] {
        let mut asked = request("GET", "/api/web/seen", "");
        *asked.uri_mut() = format!("http://{authority}/api/web/seen").parse().unwrap();
        assert_eq!(ask(&mut client, asked).await.0, expected, "{authority}");
    }
}
