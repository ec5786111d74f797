//! Proxies in front: who is believed, in what, and what comes of it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use axum::body::Body;
use hydrant_router::{Config, Limits, Plain, Proxies, Router, Told, Written};
use socket2::{Domain, Socket, Type};

use crate::fleet::Authority;
use crate::raw::{Backend, Wire};
use crate::secure::{config, names, start, tls};
use crate::{http2, raw};

pub const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Trusts what comes from [`PROXY`].
pub fn trusting() -> Proxies {
    Proxies {
        trusted: vec!["127.0.0.1".parse().unwrap()],
        ..Proxies::default()
    }
}

/// Without TLS with the outside.
pub fn behind(proxies: Proxies, limits: Limits, backend: SocketAddr) -> Router {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        public: any,
        secure: None,
        local: any,
        peer: None,
        workers: 1,
        key: hydrant_contracts::TokenKey::new(&raw::SECRET),
        limits,
        proxies,
        expected: Vec::new(),
    };
    start(config, backend)
}

pub fn connect(from: Ipv4Addr, to: SocketAddr) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Wire::new(TcpStream::from(socket))
}

/// What an instance sees of a request with these lines.
fn seen(wire: &mut Wire, lines: &str) -> String {
    wire.send(format!("GET /api/t/a HTTP/1.1\r\nhost: x:1\r\n{lines}\r\n"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text().to_lowercase()
}

#[track_caller]
fn has(seen: &str, lines: &[&str]) {
    for line in lines {
        assert!(seen.lines().any(|found| found == *line), "{line} in {seen}");
    }
}

const CHAIN: &str = "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
                     X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nForwarded: for=5.5.5.5\r\n";

#[test]
fn a_trusted_proxy_tells_who_the_client_is_and_nobody_else_does() {
    let backend = Backend::echo();
    let router = behind(trusting(), Limits::default(), backend.address);
    let mut tap = router.taps().all();
    let told = seen(&mut connect(PROXY, router.public_addr()), CHAIN);
    let passed = crate::taps::next(&mut tap);
    assert_eq!(passed.client, Some([1, 2, 3, 4].into()));
    let lines = [
        "x-forwarded-for: 1.2.3.4",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 443",
    ];
    has(&told, &lines);
    assert!(
        !told.contains("5.5.5.5") && !told.contains("6.6.6.6"),
        "{told}"
    );
    let stranger = seen(&mut connect(STRANGER, router.public_addr()), CHAIN);
    let lines = [
        "x-forwarded-for: 6.6.6.6, 1.2.3.4, 127.0.0.2",
        "x-forwarded-proto: http",
        "x-forwarded-host: x:1",
    ];
    has(&stranger, &lines);
    assert!(
        !stranger.contains("5.5.5.5") && !stranger.contains("x-forwarded-port"),
        "{stranger}"
    );
    // By default everybody is a stranger.
    let router = behind(Proxies::default(), Limits::default(), backend.address);
    let nobody = seen(&mut connect(PROXY, router.public_addr()), CHAIN);
    has(
        &nobody,
        &[
            "x-forwarded-for: 6.6.6.6, 1.2.3.4, 127.0.0.1",
            "x-forwarded-proto: http",
        ],
    );
    assert!(
        !nobody.contains("5.5.5.5") && !nobody.contains("x-forwarded-port"),
        "{nobody}"
    );
}

#[test]
fn requests_of_one_connection_are_of_as_many_clients_as_the_proxy_says() {
    let backend = Backend::echo();
    let router = behind(trusting(), Limits::default(), backend.address);
    let mut wire = connect(PROXY, router.public_addr());
    for client in ["1.2.3.4", "1.2.3.5", "1.2.3.5", "2001:db8::1", "1.2.3.4"] {
        let told = seen(&mut wire, &format!("X-Forwarded-For: {client}\r\n"));
        has(
            &told,
            &[
                &format!("x-forwarded-for: {client}"),
                "x-forwarded-proto: http",
            ],
        );
    }
    // A request of the proxy's own.
    has(&seen(&mut wire, ""), &["x-forwarded-for: 127.0.0.1"]);
}

#[test]
fn forwarded_is_read_and_written_where_that_is_chosen() {
    let backend = Backend::echo();
    let both = Proxies {
        read: Told::Forwarded,
        write: Written::Both,
        ..trusting()
    };
    let router = behind(both, Limits::default(), backend.address);
    let mut wire = connect(PROXY, router.public_addr());
    let chain = "X-Forwarded-For: 6.6.6.6\r\n\
                 Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:7\";proto=https;host=shop.example\r\n";
    let told = seen(&mut wire, chain);
    let lines = [
        "x-forwarded-for: 2001:db8::1",
        "x-forwarded-proto: https",
        "forwarded: for=\"[2001:db8::1]\";proto=https;host=\"shop.example\"",
    ];
    has(&told, &lines);
    assert!(!told.contains("6.6.6.6"), "{told}");
    let only = Proxies {
        write: Written::Forwarded,
        ..Proxies::default()
    };
    let router = behind(only, Limits::default(), backend.address);
    let told = seen(&mut connect(STRANGER, router.public_addr()), CHAIN);
    has(&told, &["forwarded: for=127.0.0.2;proto=http;host=\"x:1\""]);
    assert!(!told.contains("x-forwarded-for"), "{told}");
    assert!(!told.contains("x-forwarded-proto"), "{told}");
}

#[tokio::test]
async fn http2_is_told_the_same() {
    for http2 in [true, false] {
        let web = http2::instance(1, http2::serve(http2::web()).await, http2);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxies = Proxies {
            write: Written::Both,
            ..trusting()
        };
        let router = behind(proxies, Limits::default(), any);
        router.publish(&hydrant_router::Table::of_one_server(&[web]));
        let mut client = http2::client(router.public_addr()).await;
        for address in ["1.2.3.4", "2001:db8::1", "1.2.3.4"] {
            let mut asked = http2::request("GET", "/api/web/seen", Body::empty());
            let chain = format!("6.6.6.6, {address}");
            for (name, value) in [
                ("x-forwarded-for", &*chain),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "443"),
                ("forwarded", "for=5.5.5.5"),
                ("hydrant-client-cert", "subject=\"CN=me\""),
            ] {
                asked.headers_mut().append(name, value.parse().unwrap());
            }
            let (_, _, told) = http2::ask(&mut client, asked).await;
            let node = match address.contains(':') {
                true => format!("\"[{address}]\""),
                false => address.to_owned(),
            };
            let lines = [
                format!("x-forwarded-for: {address}"),
                "x-forwarded-proto: https".to_owned(),
                "x-forwarded-port: 443".to_owned(),
                format!("forwarded: for={node};proto=https;host=\"shop.example\""),
            ];
            has(&told, &lines.each_ref().map(|line| &**line));
            assert!(
                !told.contains("6.6.6.6") && !told.contains("5.5.5.5"),
                "{told}"
            );
            assert!(!told.contains("client-cert"), "nobody showed one: {told}");
        }
    }
}

#[test]
fn the_limit_of_an_address_is_that_of_the_client_and_not_of_the_proxy() {
    let backend = Backend::echo();
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let router = behind(trusting(), limits, backend.address);
    let mut wires: Vec<_> = (0..6)
        .map(|_| connect(PROXY, router.public_addr()))
        .collect();
    let of = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let (one, other) = (of("1.2.3.4"), of("1.2.3.5"));
    seen(&mut wires[0], &one);
    seen(&mut wires[1], &one);
    wires[2].send(format!("GET /api/t/a HTTP/1.1\r\nhost: x\r\n{one}\r\n"));
    let refused = wires[2].answer();
    assert_eq!(refused.status(), 503);
    assert!(
        refused.text().contains("1.2.3.4 has 2 connections"),
        "{}",
        refused.text()
    );
    seen(&mut wires[2], &other);
    seen(&mut wires[3], &other);
    // The seat goes with the connection to the next client.
    seen(&mut wires[0], &of("1.2.3.6"));
    seen(&mut wires[4], &one);
}

#[test]
fn who_came_to_the_proxy_by_tls_is_not_sent_there_again() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let mut config = config(tls(&[authority.sign("a", names(&["localhost"]))]));
    config.proxies = trusting();
    config.secure.as_mut().unwrap().plain = Plain::Redirect(None);
    let router = start(config, backend.address);
    let ask = |from, lines: &str| {
        let mut wire = connect(from, router.public_addr());
        wire.send(format!("GET /api/t/a HTTP/1.1\r\nhost: x\r\n{lines}\r\n"));
        wire.answer().status()
    };
    assert_eq!(ask(PROXY, "X-Forwarded-Proto: https\r\n"), 200);
    assert_eq!(ask(PROXY, "X-Forwarded-Proto: http\r\n"), 308);
    assert_eq!(ask(STRANGER, "X-Forwarded-Proto: https\r\n"), 308);
}
