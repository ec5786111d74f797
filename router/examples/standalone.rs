//! A router with a fixed table, for measurements: `standalone PORT BACKEND_PORT…` serves
//! `/api/bench/` from the given ports of the loopback, with one worker.

use std::net::{Ipv4Addr, SocketAddr};

use hydrant_contracts::{Instance, InstanceState, InvalidName, PathPrefix, ServiceId, TokenKey};
use hydrant_router::{Config, Limits, Router, Table};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .map(|port| port.parse())
        .collect::<Result<_, _>>()?;
    let (listen, backends) = ports
        .split_first()
        .filter(|(_, backends)| !backends.is_empty())
        .ok_or("usage: standalone PORT BACKEND_PORT…")?;
    let router = Router::start(Config {
        public: address(*listen),
        local: address(0),
        peer: None,
        workers: 1,
        key: TokenKey::new(&[0; 32]),
        limits: Limits::default(),
        expected: Vec::new(),
    })?;
    let instances: Vec<Instance> = backends
        .iter()
        .enumerate()
        .map(|(index, port)| instance(index, *port))
        .collect::<Result<_, _>>()?;
    router.publish(&Table::of_one_server(&instances));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(hydrant_runtime::termination_signal())?;
    Ok(())
}

fn instance(index: usize, port: u16) -> Result<Instance, InvalidName> {
    let service: ServiceId = "api/bench".parse()?;
    Ok(Instance {
        id: format!("bench-{index}").parse()?,
        version: "1.0.0".parse()?,
        server: "local".into(),
        address: address(port),
        http2: false,
        methods: Vec::new(),
        prefixes: vec![PathPrefix::new(&service, "/api/bench/", false)?],
        state: InstanceState::Ready,
        detail: String::new(),
        since_unix_ms: 0,
        pid: 0,
        repeatable_paths: Vec::new(),
        service,
    })
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
