//! HTTP/2 and gRPC requests whose instance is on another server.

use http::StatusCode;
use hydrant_contracts::Instance;

use crate::fleet::{Fleet, errors, publish};
use crate::http2::{
    ask, breaks_off, check_grpc, client, instance, locks, nowhere, request, serve, web,
};

fn on(server: &str, instance: Instance) -> Instance {
    Instance {
        server: server.into(),
        ..instance
    }
}

#[tokio::test]
async fn calls_cross_to_both_kinds_of_instances() {
    for fleet in Fleet::both(&["one", "two"]) {
        for http2 in [true, false] {
            fleet.publish(&[on("two", instance(1, serve(web()).await, http2))]);
            let mut client = client(fleet.node("one").router.public_addr()).await;
            let mut asked = request("GET", "/api/web/seen?a=b", "");
            for (name, value) in [
                ("x-forwarded-for", "10.0.0.9"),
                ("hydrant-to", "somebody"),
                ("hydrant-unsent", "refused"),
                ("hydrant-caller", "operator"),
            ] {
                asked.headers_mut().insert(name, value.parse().unwrap());
            }
            let (status, _, seen) = ask(&mut client, asked).await;
            assert_eq!(status, StatusCode::OK, "{seen}");
            for line in [
                "x-forwarded-for: 10.0.0.9, 127.0.0.1",
                "x-forwarded-prefix: /api/web",
                "x-forwarded-host: shop.example",
                "hydrant-caller: outside",
            ] {
                assert!(seen.lines().any(|other| other == line), "{line} in {seen}");
            }
            assert!(seen.contains("GET /seen"), "{seen}");
            assert!(
                !seen.contains("hydrant-to") && !seen.contains("hydrant-unsent"),
                "{seen}"
            );
            let (status, headers, _) = ask(&mut client, request("GET", "/api/web/moved", "")).await;
            assert_eq!(
                (status.as_u16(), &headers["location"]),
                (302, &"/api/web/there".parse().unwrap())
            );
            let body = "x".repeat(3_000_000);
            let (status, _, back) =
                ask(&mut client, request("POST", "/api/web/echo", body.clone())).await;
            assert!(status == StatusCode::OK && back == body);
        }
    }
}

#[tokio::test]
async fn grpc_crosses() {
    for fleet in Fleet::both(&["one", "two"]) {
        let locks = [on("two", locks().await)];
        fleet.publish(&locks);
        let away = |away: bool| {
            let left = &locks[usize::from(away)..];
            publish(fleet.node("one"), &fleet.servers(), left);
        };
        check_grpc(fleet.node("one").router.public_addr(), away).await;
    }
}

/// A gRPC caller's refusals come as gRPC, also the ones between nodes.
#[tokio::test]
async fn an_instance_that_refuses_on_its_server_costs_nobody_a_request() {
    for fleet in Fleet::both(&["one", "two", "three"]) {
        for http2 in [true, false] {
            let instances = [
                on("two", instance(1, nowhere().await, http2)),
                on("three", instance(2, serve(web()).await, http2)),
            ];
            fleet.publish(&instances);
            let mut client = client(fleet.node("one").router.public_addr()).await;
            for at in 0..40 {
                let mut asked = request("POST", "/api/web/echo", "body");
                if at % 2 == 0 {
                    let kind = "application/grpc".parse().unwrap();
                    asked.headers_mut().insert("content-type", kind);
                }
                let (status, headers, body) = ask(&mut client, asked).await;
                assert_eq!((status, &*body), (StatusCode::OK, "body"), "{headers:?}");
            }
            let stats = fleet
                .node("one")
                .router
                .stats(&"api-web-1".parse().unwrap())
                .remove(0);
            assert!(errors(&stats, "connect") >= 1, "{stats:?}");
        }
    }
}

#[tokio::test]
async fn what_broke_off_there_is_repeated_only_where_that_is_safe() {
    for fleet in Fleet::both(&["one", "two", "three"]) {
        let instances = [
            on("two", instance(1, breaks_off(1).await, false)),
            on("three", instance(2, serve(web()).await, false)),
        ];
        fleet.publish(&instances);
        let mut client = client(fleet.node("one").router.public_addr()).await;
        for _ in 0..20 {
            for (method, path) in [("PUT", "/api/web/echo"), ("POST", "/api/web/safe/echo")] {
                let (status, _, body) = ask(&mut client, request(method, path, "again")).await;
                assert_eq!((status, &*body), (StatusCode::OK, "again"), "{method}");
            }
        }
        fleet.publish(&instances[..1]);
        let (status, headers, body) =
            ask(&mut client, request("POST", "/api/web/echo", "once")).await;
        assert_eq!(status, 502, "{body}");
        assert!(!headers.contains_key("hydrant-broken"), "{headers:?}");
        let stats = fleet
            .node("one")
            .router
            .stats(&"api-web-1".parse().unwrap())
            .remove(0);
        assert!(
            errors(&stats, "closed") >= 1 && errors(&stats, "peer") == 0,
            "{stats:?}"
        );
    }
}

#[tokio::test]
async fn with_a_server_gone_no_request_fails() {
    for mut fleet in Fleet::both(&["one", "two", "three"]) {
        let mut instances = Vec::new();
        for at in 0..6 {
            let server = if at < 3 { "two" } else { "three" };
            instances.push(on(server, instance(at, serve(web()).await, at % 2 == 0)));
        }
        fleet.publish(&instances);
        let mut client = client(fleet.node("one").router.public_addr()).await;
        for at in 0..200 {
            if at == 50 {
                fleet.kill("two");
            }
            let (status, _, body) = ask(&mut client, request("PUT", "/api/web/echo", "body")).await;
            assert_eq!((status, &*body), (StatusCode::OK, "body"), "request {at}");
        }
        let stats = fleet.node("one").router.stats(&"api/web".parse().unwrap());
        let peer: u64 = stats.iter().map(|stats| errors(stats, "peer")).sum();
        println!("errors of the node that is gone: {peer}");
        assert!((1..=4).contains(&peer), "{stats:?}");
    }
}
