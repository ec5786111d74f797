//! Many services with many instances, registered by a generator.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hydrant_contracts::proto::{ExplainRequest, Header, NodeClient};
use hydrant_contracts::{
    Instance, InstanceState, PathPrefix, Server, ServiceId, Tier, Version, ZoneName,
};
use hydrant_harness::node::Node;
use hydrant_ports::coordination::{Coordination, Session};
use hydrant_ports::{Change, Expect, Key};
use hydrant_sdk::{Config, Hydrant, Transport};
use hydrant_zookeeper::ZookeeperCoordination;
use tokio::task::JoinSet;

use super::engines::Engines;
use crate::harness::{is_soak, pause};

const SESSION: Duration = Duration::from_secs(10);
/// On how many servers the instances are said to be.
const SERVERS: usize = 10;
const INSTANCES: usize = 10;
/// How many registrations of one session are on their way.
const AT_ONCE: usize = 16;
/// How long a write is tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing is asked of a node while its idleness is measured.
const IDLE: Duration = Duration::from_secs(5);

#[test]
fn a_node_holds_many_services_and_hears_of_each_change() {
    let services = if is_soak() { 1000 } else { 200 };
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let runtime = hydrant_harness::runtime();
    let begun = Instant::now();
    let generator = runtime.block_on(Generator::start(&engines, services));
    println!(
        "{} instances registered in {:?}",
        services * INSTANCES,
        begun.elapsed()
    );

    let fleet = engines.fleet(SESSION);
    let mut nodes = Vec::new();
    for server in ["one", "two", "three"] {
        let begun = Instant::now();
        let node = fleet.server(server, "a", "").start();
        let hydrant = hydrant(&node);
        node.wait("the table is full", |_| {
            let found = runtime.block_on(hydrant.discover("")).ok()?;
            (found.len() == services * INSTANCES).then_some(())
        });
        let (took, memory) = (begun.elapsed(), memory_of(node.pid()));
        println!(
            "{server}: full table after {took:?}, {} MB ({BUILD})",
            memory >> 20
        );
        assert!(took < 5 * Duration::from_secs(5), "{took:?}");
        assert!(memory < 200 << 20, "{memory} bytes");
        nodes.push((node, hydrant));
    }
    let nodes: Vec<(Node, Hydrant)> = nodes;
    pause(Duration::from_secs(1));
    let before: Vec<Duration> = nodes.iter().map(|(node, _)| cpu_of(node.pid())).collect();
    pause(IDLE);
    for ((node, _), before) in nodes.iter().zip(before) {
        let share = (cpu_of(node.pid()) - before).as_secs_f64() / IDLE.as_secs_f64();
        println!(
            "an idle node uses {:.2} % of a CPU ({BUILD})",
            100.0 * share
        );
        assert!(share < 0.05, "{share}");
    }
    let rounds = if is_soak() { 200 } else { 40 };
    let token = nodes[0].0.json(&["token", "api/looker"])["token"].clone();
    let lookers: Vec<Looker> = nodes
        .iter()
        .map(|(node, _)| Looker::new(node, token.as_str().unwrap()))
        .collect();
    let mut figures = Figures::default();
    for round in 0..rounds {
        runtime.block_on(generator.change_one(round, &lookers, &mut figures));
    }
    figures.print();
}

const BUILD: &str = if cfg!(debug_assertions) {
    "debug build"
} else {
    "release build"
};

/// Sessions that register instances as nodes do, and nothing behind them.
struct Generator {
    engine: Arc<ZookeeperCoordination>,
    /// Another one, which only watches.
    watcher: Arc<ZookeeperCoordination>,
    sessions: Vec<Arc<dyn Session>>,
    services: usize,
}

impl Generator {
    async fn start(engines: &Engines, services: usize) -> Self {
        let connect = || async {
            let config = hydrant_zookeeper::Config::new(engines.zookeeper.addresses());
            ZookeeperCoordination::connect(config)
                .await
                .expect("ZooKeeper is there")
        };
        let mut generator = Self {
            engine: connect().await,
            watcher: connect().await,
            sessions: Vec::new(),
            services,
        };
        let mut writers = JoinSet::new();
        for server in 0..SERVERS {
            let name = name_of(server);
            let session = generator.engine.open_session(&name, SESSION).await;
            let session: Arc<dyn Session> = session.expect("a session").into();
            put(&*session, &format!("servers/{name}"), &server_of(server)).await;
            for part in 0..AT_ONCE {
                let session = session.clone();
                writers.spawn(async move {
                    let own = (0..services).filter(|service| service % AT_ONCE == part);
                    for service in own {
                        let instance = instance_of(service, server, InstanceState::Ready);
                        put(&*session, &key_of(&instance), &instance).await;
                    }
                });
            }
            generator.sessions.push(session);
        }
        writers.join_all().await;
        generator
    }

    /// Changes one instance, and measures how long it takes until a watcher of ZooKeeper has heard
    /// of it, and until each node would route by it.
    async fn change_one(&self, round: usize, lookers: &[Looker], figures: &mut Figures) {
        let (service, server) = (round * 7 % self.services, round % SERVERS);
        let instance = instance_of(service, server, InstanceState::Draining);
        let below = format!("instances/service/{}/", instance.service.name);
        let mut watch = self
            .watcher
            .watch(&below.parse().unwrap())
            .await
            .expect("a watch");
        watch.next().await.expect("what is there");
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for looker in lookers {
            let (looker, instance) = (looker.clone(), instance.clone());
            tasks.spawn(async move {
                looker.until_excluded(&instance).await;
                begun.elapsed()
            });
        }
        let heard = tokio::spawn(async move {
            while !matches!(watch.next().await, Some(Change::Put(_)) | None) {}
            begun.elapsed()
        });
        put(&*self.sessions[server], &key_of(&instance), &instance).await;
        figures.written.push(begun.elapsed());
        figures.heard.push(heard.await.unwrap());
        let routed = tasks.join_all().await;
        figures
            .routed
            .push(routed.into_iter().max().expect("three nodes"));
        let back = instance_of(service, server, InstanceState::Ready);
        put(&*self.sessions[server], &key_of(&back), &back).await;
    }
}

/// As nodes do, it tries again while ZooKeeper is slow.
async fn put(session: &dyn Session, key: &str, value: &impl serde::Serialize) {
    let key: Key = key.parse().expect("a key");
    let value = Bytes::from(serde_json::to_vec(value).expect("JSON"));
    let end = Instant::now() + PATIENCE;
    loop {
        let put = session.put_ephemeral(&key, value.clone(), Expect::Any);
        match put.await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < end, "it is not registered: {error}"),
        }
    }
}

fn name_of(server: usize) -> String {
    format!("made-up-{server}")
}

fn server_of(server: usize) -> Server {
    Server {
        name: name_of(server).parse().unwrap(),
        zone: ZoneName::default(),
        // Nobody is there.
        peer: Some(([127, 0, 0, 1], 9).into()),
        version: version(),
        since_unix_ms: 0,
        pid: 1,
    }
}

fn version() -> Version {
    "1.0.0".parse().unwrap()
}

fn instance_of(service: usize, server: usize, state: InstanceState) -> Instance {
    let id = ServiceId::new(Tier::Service, format!("made-{service}").parse().unwrap());
    let prefix = PathPrefix::new(&id, &format!("/{id}/"), true).unwrap();
    Instance {
        id: format!("made-{service}-{server}").parse().unwrap(),
        service: id,
        version: version(),
        server: name_of(server),
        address: ([127, 0, 0, 1], 9).into(),
        http2: true,
        methods: Vec::new(),
        prefixes: vec![prefix],
        state,
        detail: String::new(),
        since_unix_ms: 0,
        pid: 1,
        repeatable_paths: Vec::new(),
    }
}

fn key_of(instance: &Instance) -> String {
    format!("instances/{}/{}", instance.service, instance.id)
}

fn hydrant(node: &Node) -> Hydrant {
    let token = node.json(&["token", "api/looker"])["token"].clone();
    let config = Config::new(&format!("http://{}", node.local()), token.as_str()).unwrap();
    Hydrant::new(config).unwrap()
}

/// Asks a node's router how it would decide.
#[derive(Clone)]
struct Looker {
    client: NodeClient<Transport>,
    token: String,
}

impl Looker {
    fn new(node: &Node, token: &str) -> Self {
        let client = hydrant(node).client("service/node", NodeClient::new);
        Self {
            client: client.unwrap(),
            token: token.to_owned(),
        }
    }

    async fn until_excluded(&self, instance: &Instance) {
        let request = ExplainRequest {
            method: "GET".into(),
            path: format!("/{}/x", instance.service),
            headers: vec![Header {
                name: "hydrant-token".into(),
                value: self.token.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self
                .client
                .explain(request.clone())
                .await
                .expect("an answer");
            let answer = answer.into_owned();
            let mut candidates = answer.candidates.iter();
            let own = candidates.find(|one| one.instance == instance.id.as_str());
            // One that gets no requests is shown with the reason, or not at all.
            if own.is_none_or(|own| own.excluded.contains("drain")) {
                return;
            }
            assert!(
                Instant::now() < end,
                "never heard of the change: {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// From the begin of a write.
#[derive(Default)]
struct Figures {
    written: Vec<Duration>,
    heard: Vec<Duration>,
    routed: Vec<Duration>,
}

impl Figures {
    fn print(&mut self) {
        for (what, times) in [
            ("written", &mut self.written),
            ("heard by a watcher of ZooKeeper", &mut self.heard),
            (
                "in the routing snapshot of all three nodes",
                &mut self.routed,
            ),
        ] {
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            println!("a change is {what} after {median:?} at the median, {most:?} at most");
        }
        let median = self.routed[self.routed.len() / 2];
        assert!(median < 5 * Duration::from_millis(50), "{median:?}");
    }
}

/// What a process has in memory, in bytes.
fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap()
        * 1024
}

/// How long the threads of a process have run.
fn cpu_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
