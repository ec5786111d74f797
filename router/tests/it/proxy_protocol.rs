//! The PROXY protocol: a balancer that passes bytes on says first whose they are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hydrant_harness::{ReverseProxy, skipped};
use hydrant_router::{Limits, Proxies};

use crate::fleet::Authority;
use crate::proxies::{PROXY, STRANGER, behind, connect, trusting};
use crate::raw::{Backend, Wire};
use crate::secure::{Secure, config, names, start, tls};

fn speaking() -> Proxies {
    Proxies {
        proxy_protocol: true,
        ..trusting()
    }
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        rest,
    ]
    .concat()
}

/// Of a client at 1.2.3.4, with something behind the addresses that nobody here knows.
fn of_a_client() -> Vec<u8> {
    let rest = [1, 2, 3, 4, 127, 0, 0, 1, 0, 99, 0, 80, 0xe0, 0, 2, 7, 7];
    header(0x21, 0x11, &rest)
}

const ASK: &[u8] = b"GET /api/t/a HTTP/1.1\r\nhost: x\r\n\r\n";

fn client_of(wire: &mut Wire) -> String {
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let text = answer.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("x-forwarded-for: "));
    line.unwrap().to_owned()
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let backend = Backend::echo();
    let router = behind(speaking(), Limits::default(), backend.address);
    let mut v6 = vec![0; 36];
    (v6[0], v6[1], v6[15]) = (0x20, 1, 9);
    for (header, client) in [
        (of_a_client(), "1.2.3.4"),
        (header(0x21, 0x21, &v6), "2001::9"),
        // The balancer itself, which looks whether we live; and clients of which it knows no address.
        (header(0x20, 0x00, b""), "127.0.0.1"),
        (header(0x21, 0x00, b""), "127.0.0.1"),
        (header(0x21, 0x31, &[1; 216]), "127.0.0.1"),
    ] {
        let mut wire = connect(PROXY, router.public_addr());
        wire.send([&header, ASK].concat());
        assert_eq!(client_of(&mut wire), client);
        wire.send(ASK);
        assert_eq!(client_of(&mut wire), client, "of all requests");
    }
    // In pieces, as it may come.
    let mut wire = connect(PROXY, router.public_addr());
    for byte in of_a_client() {
        wire.send([byte]);
    }
    wire.send(ASK);
    assert_eq!(client_of(&mut wire), "1.2.3.4");
}

#[test]
fn without_its_header_a_proxy_is_closed_and_a_stranger_with_one_is_refused() {
    let backend = Backend::echo();
    let limits = Limits {
        head: Duration::from_secs(1),
        ..Limits::default()
    };
    let router = behind(speaking(), limits, backend.address);
    let began = Instant::now();
    for bytes in [
        ASK,
        b"PROXY TCP4 1.2.3.4 127.0.0.1 99 80\r\nGET /api/t/a HTTP/1.1\r\nhost: x\r\n\r\n",
        &header(0x21, 0x12, &[0; 12]),
        &header(0x22, 0x11, &[0; 12]),
        &header(0x21, 0x11, &[0; 5000]),
        // These wait for the rest.
        &of_a_client()[..7],
        &of_a_client()[..20],
        b"",
    ] {
        let mut wire = connect(PROXY, router.public_addr());
        wire.send(bytes);
        assert!(wire.is_closed(), "{bytes:?}");
    }
    println!("all are closed within {:?}", began.elapsed());
    assert_eq!(backend.requests(), 0);
    let mut stranger = connect(STRANGER, router.public_addr());
    stranger.send([&of_a_client(), ASK].concat());
    assert_eq!(stranger.answer().status(), 400);
    let mut stranger = connect(STRANGER, router.public_addr());
    stranger.send(ASK);
    assert_eq!(client_of(&mut stranger), "127.0.0.2");
    // The services of this server come without.
    let mut local = connect(PROXY, router.local_addr());
    local.send(ASK);
    assert_eq!(local.answer().status(), 200);
}

#[test]
fn the_limit_of_an_address_is_that_of_the_client_in_the_header() {
    let backend = Backend::echo();
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let router = behind(speaking(), limits, backend.address);
    let mut open = Vec::new();
    for status in [200, 200, 503] {
        let mut wire = connect(PROXY, router.public_addr());
        wire.send([&of_a_client(), ASK].concat());
        assert_eq!(wire.answer().status(), status);
        open.push(wire);
    }
    let mut other = connect(PROXY, router.public_addr());
    other.send([&header(0x21, 0x11, &[9; 12]), ASK].concat());
    assert_eq!(other.answer().status(), 200);
}

#[test]
fn under_tls_the_header_comes_before_the_handshake() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let mut config = config(tls(&[authority.sign("a", names(&["localhost"]))]));
    config.proxies = speaking();
    let router = start(config, backend.address);
    let secure = Secure::new(&authority);
    let without = secure.connect(router.secure_addr().unwrap(), "localhost");
    assert!(without.is_err());
    let balancer = ReverseProxy::balancer(router.secure_addr().unwrap());
    let Ok(balancer) = balancer.map_err(skipped) else {
        return;
    };
    let seen = secure.get(balancer.address(), "/api/t/a").unwrap().text();
    assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
}

#[test]
fn haproxy_says_whose_bytes_it_passes_on() {
    let backend = Backend::echo();
    let router = behind(speaking(), Limits::default(), backend.address);
    let Ok(balancer) = ReverseProxy::balancer(router.public_addr()).map_err(skipped) else {
        return;
    };
    let through = |address: SocketAddr| {
        let mut wire = connect(STRANGER, address);
        wire.send(ASK);
        client_of(&mut wire)
    };
    for _ in 0..5 {
        assert_eq!(through(balancer.address()), "127.0.0.2");
        // It goes on while the balancer looks whether the router lives.
        crate::raw::pause(Duration::from_millis(150));
    }
}
