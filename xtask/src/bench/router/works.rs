//! What is measured.

use super::load::Load;
use super::peers::Kind;

/// One table of the page.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Work(&'static Work),
    Latency,
    Memory,
}

impl Part {
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::Work(work) => work.id,
            Self::Latency => "latency",
            Self::Memory => "memory",
        }
    }
}

/// One kind of work: what each request costs in CPU time.
pub(super) struct Work {
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) load: Load,
    /// Connections that are there beside it, and do nothing.
    pub(super) idle: usize,
    /// Who does it; all are compared with the first.
    pub(super) peers: &'static [Kind],
}

/// Who can be a proxy of all protocols.
pub(super) const PROXIES: [Kind; 4] = [Kind::Hydrant, Kind::Nginx, Kind::Haproxy, Kind::Envoy];
/// The relay has one kind of backend, and understands nothing.
pub(super) const PLAIN: [Kind; 5] = [
    Kind::Hydrant,
    Kind::Nginx,
    Kind::Haproxy,
    Kind::Envoy,
    Kind::Relay,
];

const SMALL: Load = Load::get("small", 64);

/// W6 is kept for TLS 1.3 on kept connections.
pub(super) static WORKS: [Work; 10] = [
    work("W1", "GET 200 B, 64 connections", SMALL, &PLAIN),
    work(
        "W2",
        "GET 100 KB, 16 connections",
        Load::get("large", 16),
        &PLAIN,
    ),
    work(
        "W3",
        "POST 10 KB, 64 connections",
        Load::script("post", 64, "post.lua"),
        &PLAIN,
    ),
    work(
        "W4",
        "GET 200 B, 1,000 connections",
        Load::get("small", 1000),
        &PLAIN,
    ),
    work(
        "W5",
        "GET 200 B, a new connection for each, 64 at the same time",
        Load::script("small", 64, "close.lua"),
        &PLAIN,
    ),
    work(
        "W7",
        "GET 200 B over HTTP/2, 16 connections with 8 streams each, HTTP/1.1 to the backends",
        Load::Http2 {
            path: "bench/small",
            body: None,
        },
        &PROXIES,
    ),
    work(
        "W8",
        "gRPC unary, 16 connections with 8 streams each, HTTP/2 to the backend",
        Load::Http2 {
            path: "unary/bench.Bench/Ask",
            body: Some("unary"),
        },
        &PROXIES,
    ),
    Work {
        idle: 10_000,
        ..work(
            "W9",
            "as W1, beside 10,000 idle connections",
            SMALL,
            &PROXIES,
        )
    },
    work(
        "W10",
        "as W1, with 10,000 endpoints and 100,000 instances in the table",
        SMALL,
        &[Kind::LargeTable, Kind::Hydrant],
    ),
    work(
        "W11",
        "WebSocket echo of 100 B, 64 connections",
        Load::Echo { connections: 64 },
        &PROXIES,
    ),
];

const fn work(id: &'static str, what: &'static str, load: Load, peers: &'static [Kind]) -> Work {
    Work {
        id,
        what,
        load,
        idle: 0,
        peers,
    }
}
