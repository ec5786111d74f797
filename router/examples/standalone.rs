//! A router with a fixed table, for measurements, with one worker:
//! `standalone PORT SERVICE=[h2:]PORT,… [others=SERVICESxPREFIXESxINSTANCES]`, as in
//! `standalone 8080 api/bench=9001,9002 api/unary=h2:9003 others=1000x10x100`.
//!
//! It carries what a node's router carries: rules, counters, limits, ejection, a log of some requests. The others are services that
//! nobody asks, to make the table large.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hydrant_contracts::rules::{self, RuleSet, Signature};
use hydrant_contracts::{Instance, InstanceState, PathPrefix, ServiceId, TokenKey};
use hydrant_router::{Config, Limits, Router, Table, Tap};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The share of all requests that has a line in the access log.
const LOGGED: f64 = 0.01;

const USAGE: &str = "standalone PORT SERVICE=[h2:]PORT,… [others=SERVICESxPREFIXESxINSTANCES]";

/// Two rules that each request of the service is compared with in vain, and one that decides.
const RULES: &str = r#"
[[rule]]
name = "testers"
service = "api/bench"
priority = 3
match = { headers = { "x-tester" = "yes" } }
weights = { "1.0.0" = 100 }

[[rule]]
name = "old-app"
service = "api/bench"
priority = 2
match = { path = "/api/bench/old/" }
weights = { "1.0.0" = 100 }

[[rule]]
name = "all"
service = "api/bench"
weights = { "1.0.0" = 100 }
"#;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or(USAGE)?.parse()?;
    let mut instances = Vec::new();
    for argument in arguments {
        match argument.split_once('=').ok_or(USAGE)? {
            ("others", sizes) => instances.extend(others(sizes)?),
            (service, ports) => instances.extend(backends(&service.parse()?, ports)?),
        }
    }
    let router = Router::start(Config {
        public: address(listen),
        secure: None,
        local: address(0),
        peer: None,
        workers: 1,
        key: TokenKey::new(&[0; 32]),
        limits: Limits::default(),
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    })?;
    let mut table = Table::of_one_server(&instances);
    table.rules = Arc::new(rules()?);
    router.publish(&table);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    router.taps().sample(LOGGED);
    let tap = router.taps().sampled();
    runtime.block_on(async {
        tokio::select! {
            ended = hydrant_runtime::termination_signal() => ended.map(|_| ()),
            logged = log(tap) => logged,
        }
    })?;
    Ok(())
}

/// Writes a line for each request of the share.
async fn log(mut tap: Tap) -> io::Result<()> {
    let mut output = io::stdout();
    while let Some(heard) = tap.next().await {
        writeln!(output, "{heard:?}")?;
    }
    Ok(())
}

fn rules() -> Result<RuleSet> {
    let by = Signature {
        author: "bench".into(),
        reason: "measured".into(),
        changed_unix_ms: 0,
    };
    let (rules, _) = RuleSet::default().apply(rules::parse(RULES)?, false, &by)?;
    Ok(rules)
}

fn backends(service: &ServiceId, ports: &str) -> Result<Vec<Instance>> {
    let http2 = ports.starts_with("h2:");
    let ports = ports.trim_start_matches("h2:").split(',');
    let prefix = PathPrefix::new(service, &format!("/{service}/"), false)?;
    ports
        .map(|port| {
            let one = instance(service, port.parse()?, vec![prefix.clone()]);
            one.map(|one| Instance { http2, ..one })
        })
        .collect()
}

/// Services of several prefixes and instances each.
fn others(sizes: &str) -> Result<Vec<Instance>> {
    let sizes: Vec<u32> = sizes
        .split('x')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let [services, prefixes, instances] = sizes[..] else {
        return Err(USAGE.into());
    };
    let mut all = Vec::new();
    for number in 0..services {
        let service: ServiceId = format!("api/other-{number}").parse()?;
        let own = |at| PathPrefix::new(&service, &format!("/{service}/{at}/"), false);
        let own: Vec<_> = (0..prefixes)
            .map(own)
            .collect::<std::result::Result<_, _>>()?;
        for _ in 0..instances {
            all.push(instance(&service, 9, own.clone())?);
        }
    }
    Ok(all)
}

fn instance(service: &ServiceId, port: u16, prefixes: Vec<PathPrefix>) -> Result<Instance> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(Instance {
        id: format!("bench-{number}").parse()?,
        version: "1.0.0".parse()?,
        server: "local".into(),
        address: address(port),
        http2: false,
        methods: Vec::new(),
        prefixes,
        state: InstanceState::Ready,
        detail: String::new(),
        since_unix_ms: 0,
        pid: 0,
        repeatable_paths: Vec::new(),
        service: service.clone(),
    })
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
