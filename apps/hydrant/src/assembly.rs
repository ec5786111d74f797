//! Puts the parts together: the one place that names engines.

pub(crate) mod engines;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_contracts::{Code, Error, ServerName, ServiceId, Version, ZoneName};
use hydrant_node::{FleetConfig, Inheritance, Node, NodeConfig, Retired, ServiceSpec, StartError};
use hydrant_ports::ErrorKind;
use hydrant_runtime::with_causes;
use rustls::pki_types::UnixTime;

use crate::cli::Builtin;
use crate::config::{File, Fleet, Storage, Telemetry, Tls};
use crate::data::{Held, NotRestarted, RunningNode};
use crate::failure::{Failure, Result, system, wrong};
use crate::fleet::credentials::Credentials;
use engines::{CoordinationEngine, Opened, StateEngine};

/// How long each built-in service may take to stop.
const BUILTIN_STOP: Duration = Duration::from_secs(2);

/// The services that own tables and objects, each with its folder on a server that is alone.
const STORAGE_OWNERS: [(&str, &str); 2] = [
    ("service/mobile", "mobile"),
    ("service/submissions", "submissions"),
];

/// How many processes `up` starts of each service that carries requests.
const BUILTIN_INSTANCES: u32 = 2;

/// What a node needs to know: the configuration file, the command line and the defaults together.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) server: ServerName,
    pub(crate) zone: ZoneName,
    pub(crate) data: PathBuf,
    pub(crate) public: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) workers: Option<usize>,
    pub(crate) limits: hydrant_router::Limits,
    pub(crate) grace: Option<Duration>,
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) fleet: Option<Fleet>,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: hydrant_router::Proxies,
    pub(crate) coordination: CoordinationEngine,
    pub(crate) state: StateEngine,
    pub(crate) storage: Storage,
    pub(crate) telemetry: Telemetry,
}

impl Settings {
    /// What the file says, on these addresses and this data folder.
    pub(crate) fn new(file: File, data: PathBuf, public: SocketAddr, local: SocketAddr) -> Self {
        let mut limits = hydrant_router::Limits::default();
        file.node.bound(&mut limits);
        Self {
            data,
            limits,
            public,
            local,
            workers: file.node.workers(),
            grace: file.node.grace(),
            services: file.specs(),
            server: file.node.server.unwrap_or_else(host_name),
            zone: file.node.zone,
            fleet: file.fleet,
            tls: file.tls,
            proxies: file.proxies,
            coordination: file.coordination,
            state: file.state,
            storage: file.storage,
            telemetry: file.telemetry,
        }
    }
}

/// A node with its engines, and the data folder that it holds.
pub(crate) struct Running {
    node: Node,
    opened: Opened,
    held: Held,
    plan: Plan,
    not_restarted: Option<NotRestarted>,
}

/// All that a node is started from, also a second time.
#[derive(Clone)]
struct Plan {
    config: NodeConfig,
    coordination: CoordinationEngine,
    state: StateEngine,
}

/// What a node needs to start. Nothing has been started yet that would have to be stopped.
pub(crate) struct Prepared {
    held: Held,
    opened: Opened,
    plan: Plan,
}

impl Prepared {
    /// Takes the data folder and opens the engines, which may take a while; `builtin` tells whether
    /// the built-in services are wanted.
    pub(crate) async fn new(settings: Settings, builtin: bool) -> Result<Self> {
        let held = Held::take(&settings.data)?;
        let plan = Plan::new(settings, held.path(), builtin)?;
        Self::of(held, plan).await
    }

    async fn of(held: Held, plan: Plan) -> Result<Self> {
        let (coordination, state) = (plan.coordination.clone(), plan.state.clone());
        let opened = Opened::open(coordination, state, held.path()).await?;
        Ok(Self { held, opened, plan })
    }

    /// Starts the node.
    pub(crate) async fn start(self) -> Result<Running> {
        let running = self.start_after(Inheritance::default()).await?;
        running.open()?;
        Ok(running)
    }

    /// Starts the node in the place of another one. It accepts nothing before it is opened.
    pub(crate) async fn start_after(self, before: Inheritance) -> Result<Running> {
        let Self { held, opened, plan } = self;
        let config = plan.config.clone();
        match Node::prepare(config, opened.engines(), before).await {
            Ok(node) => Ok(Running {
                node,
                opened,
                held,
                plan,
                not_restarted: None,
            }),
            Err(error) => {
                opened.close().await;
                Err(start_failure(&error))
            }
        }
    }
}

impl Plan {
    fn new(settings: Settings, data: &Path, builtin: bool) -> Result<Self> {
        let (config, coordination, state) = node_config(settings, data, builtin)?;
        Ok(Self {
            config,
            coordination,
            state,
        })
    }
}

impl Running {
    /// Where the node listens.
    pub(crate) fn addresses(&self) -> RunningNode {
        RunningNode {
            pid: std::process::id(),
            public: self.node.public_addr(),
            tls: self.node.secure_addr(),
            local: self.node.local_addr(),
            peer: self.node.peer_addr(),
            server: self.plan.config.server.clone(),
            zone: self.plan.config.zone.clone(),
            not_restarted: self.not_restarted.clone(),
        }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        self.held.path()
    }

    /// The node itself.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Accepts from now on, and tells the command line so.
    pub(crate) fn open(&self) -> Result<()> {
        self.node.open();
        self.announce()
    }

    fn announce(&self) -> Result<()> {
        self.held.announce(&self.addresses())
    }

    /// Notes that no new process could take the place of this one.
    pub(crate) fn was_not_restarted(&mut self, why: String) {
        let times = self.not_restarted.take().map_or(0, |before| before.times) + 1;
        self.not_restarted = Some(NotRestarted { times, why });
        // Whoever looks for it will see what it was before.
        let _ = self.announce();
    }

    /// Leaves the data folder and the services to another process, and routes on meanwhile.
    pub(crate) async fn retire(self) -> Former {
        let Self {
            node,
            mut opened,
            held,
            plan,
            not_restarted,
        } = self;
        let retired = node.retire(plan.coordination.is_shared()).await;
        opened.close_files().await;
        held.leave();
        Former {
            retired,
            opened,
            plan,
            not_restarted,
        }
    }

    /// Drains and stops the services, then the node, then the engines.
    pub(crate) async fn stop(self) {
        self.node.shutdown().await;
        self.opened.close().await;
    }
}

/// A node that has given its server over.
pub(crate) struct Former {
    retired: Retired,
    opened: Opened,
    plan: Plan,
    not_restarted: Option<NotRestarted>,
}

impl Former {
    /// What is left of the node.
    pub(crate) fn node(&self) -> &Retired {
        &self.retired
    }

    /// Starts the node again, in this process.
    pub(crate) async fn start_again(&self) -> Result<Running> {
        let held = Held::take(&self.plan.config.data)?;
        let prepared = Prepared::of(held, self.plan.clone()).await?;
        let before = self.retired.inheritance();
        let before = before.map_err(|error| system("cannot use the sockets", &error, ""))?;
        let mut running = prepared.start_after(before).await?;
        running.not_restarted = self.not_restarted.clone();
        Ok(running)
    }

    /// Lets what is under way end, at most for `drain`.
    pub(crate) async fn end(self, drain: Duration) {
        self.retired.end(drain).await;
        self.opened.close().await;
    }
}

fn node_config(
    settings: Settings,
    data: &Path,
    builtin: bool,
) -> Result<(NodeConfig, CoordinationEngine, StateEngine)> {
    let fleet = settings.fleet.as_ref();
    let fleet = fleet.map(|fleet| fleet_config(fleet, &settings.server));
    let session = settings.fleet.as_ref().and_then(Fleet::session);
    let mut config = NodeConfig::new(settings.server, data);
    config.zone = settings.zone;
    config.fleet = fleet.transpose()?;
    config.session = session.unwrap_or(config.session);
    config.public = settings.public;
    config.secure = settings.tls.as_ref().map(Tls::config);
    config.proxies = settings.proxies;
    config.local = settings.local;
    config.workers = settings.workers.unwrap_or(config.workers);
    config.limits = settings.limits;
    config.grace = settings.grace.unwrap_or(config.grace);
    config.services = settings.services;
    if builtin {
        let own = builtin_services(&config.program, data)?;
        refuse_doubles(&own, &config.services)?;
        config.services.extend(own);
    }
    for (owner, folder) in STORAGE_OWNERS {
        let folder = data.join(folder);
        let storage = settings
            .storage
            .environment(&folder, config.fleet.is_some());
        hand_over(&mut config.services, owner, &storage);
    }
    for service in &mut config.services {
        service.env.extend(settings.telemetry.environment());
    }
    config.exports = settings.telemetry.exports().clone();
    config.access_log = settings.telemetry.access_log();
    Ok((config, settings.coordination, settings.state))
}

/// Where tables and objects are, and the files with what opens them, is told to a service that owns
/// some, and to no other.
fn hand_over(services: &mut [ServiceSpec], owner: &str, storage: &[(String, String)]) {
    for service in services {
        if service.id.to_string() == owner {
            service.env.extend(storage.iter().cloned());
        }
    }
}

/// How the node lives with others, with what proves it to them.
fn fleet_config(fleet: &Fleet, server: &ServerName) -> Result<FleetConfig> {
    let credentials = Credentials::new(&fleet.credentials, server);
    let tls = match fleet.tls() {
        false => None,
        true => {
            credentials.proof(UnixTime::now())?;
            Some(hydrant_router::PeerTls {
                server: server.clone(),
                ca: fleet.credentials.join("ca.pem"),
                certificate: fleet.credentials.join("node.pem"),
                key: fleet.credentials.join("node.key"),
            })
        }
    };
    Ok(FleetConfig {
        peer: fleet.peer(),
        advertise: fleet.advertise(),
        tls,
        key: credentials.token_key()?,
    })
}

/// The services that come with the binary, as processes of `program`.
fn builtin_services(program: &Path, data: &Path) -> Result<Vec<ServiceSpec>> {
    let unwritable = |error| {
        wrong(
            "data_unusable",
            format!("cannot write the demo into {}: {error}", data.display()),
            "make the folder writable, or name another with --data DIR",
        )
    };
    let sources = hydrant_mobile::install_demo(&data.join("demo")).map_err(unwritable)?;
    let forms = hydrant_submissions::install_demo(&data.join("demo")).map_err(unwritable)?;
    let mut service = builtin(
        program,
        "service/mobile",
        Builtin::ServiceMobile,
        BUILTIN_INSTANCES,
    );
    let variable = hydrant_mobile::SOURCES.to_owned();
    service
        .env
        .insert(variable, sources.to_string_lossy().into_owned());
    service
        .env
        .insert(hydrant_mobile::DEMO.to_owned(), "1".to_owned());
    let mut services = vec![
        builtin(program, "api/demo-upstream", Builtin::DemoUpstream, 1),
        builtin(program, "api/demo-consumer", Builtin::DemoConsumer, 1),
        service,
        builtin(program, "api/mobile", Builtin::ApiMobile, BUILTIN_INSTANCES),
    ];
    services.extend(submissions(program, &forms));
    Ok(services)
}

/// The services of submissions, with the forms of this file.
fn submissions(program: &Path, forms: &Path) -> Vec<ServiceSpec> {
    let forms = forms.to_string_lossy();
    let services = [
        ("service/submissions", Builtin::ServiceSubmissions),
        ("api/submissions", Builtin::ApiSubmissions),
        ("orchestration/delivery", Builtin::Delivery),
    ];
    let with_forms = |(id, name)| {
        let mut service = builtin(program, id, name, BUILTIN_INSTANCES);
        let variable = hydrant_submissions::FORMS.to_owned();
        service.env.insert(variable, forms.clone().into_owned());
        service
    };
    services.map(with_forms).into()
}

fn builtin(program: &Path, id: &str, name: Builtin, instances: u32) -> ServiceSpec {
    use clap::ValueEnum as _;
    let id: ServiceId = id.parse().expect("the names of our own services are good");
    let version: Version = env!("CARGO_PKG_VERSION")
        .parse()
        .expect("our own version is good");
    let name = name
        .to_possible_value()
        .expect("each has a name")
        .get_name()
        .to_owned();
    let program = program.to_string_lossy().into_owned();
    let mut spec = ServiceSpec::new(id, version, vec![program, "builtin".into(), name]);
    spec.sdk = true;
    spec.instances = instances;
    spec.stop_timeout = BUILTIN_STOP;
    spec
}

fn refuse_doubles(own: &[ServiceSpec], given: &[ServiceSpec]) -> Result<()> {
    match given
        .iter()
        .find(|service| own.iter().any(|one| one.id == service.id))
    {
        None => Ok(()),
        Some(double) => Err(wrong(
            "duplicate_service",
            format!(
                "the service {} of the configuration file comes with `hydrant up`",
                double.id
            ),
            "give it another name, or start without the built-in services: `hydrant node --config FILE`",
        )),
    }
}

/// Why the node does not start, with the mend.
fn start_failure(error: &StartError) -> Failure {
    match error {
        StartError::Router(hydrant_router::StartError::InUse { which, address }) => wrong(
            "address_in_use",
            format!("the {which} address {address} is in use by another process"),
            format!("stop that one, or choose another address: {}", place(which)),
        ),
        StartError::Router(hydrant_router::StartError::Listen { which, .. }) => wrong(
            "address_unusable",
            with_causes(error),
            format!("choose another address: {}", place(which)),
        ),
        StartError::Engine { port, source } if source.kind == ErrorKind::Unavailable => {
            let mend = format!("start it, or mend [{port}] in the configuration file");
            Error::new(Code::Unavailable, "engine_unavailable", with_causes(error))
                .mend(mend)
                .into()
        }
        _ => wrong("node_cannot_start", with_causes(error), ""),
    }
}

/// Where the address of a listener is said.
fn place(which: &str) -> String {
    match which {
        "peer" => "`peer` in [fleet]".into(),
        "tls" => "`listen` in [tls]".into(),
        which => format!("`{which}` in [node], or --{which} ADDR with `hydrant up`"),
    }
}

/// The name of this server when none is given: its host name, or `localhost` when that can't be
/// one.
pub(crate) fn host_name() -> ServerName {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.map(|name| name.trim().to_ascii_lowercase());
    name.and_then(|name| name.parse().ok())
        .unwrap_or_else(|| "localhost".parse().expect("the name is good"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owners_of_tables_learn_where_they_are() {
        let temp = tempfile::tempdir().unwrap();
        let mut services = builtin_services(Path::new("/bin/hydrant"), temp.path()).unwrap();
        let storage = Storage::default().environment(temp.path(), false);
        for (owner, _) in STORAGE_OWNERS {
            hand_over(&mut services, owner, &storage);
        }
        let knows = |service: &ServiceSpec| {
            let mut names = service.env.keys();
            names.any(|name| {
                name.starts_with("HYDRANT_RECORDS") || name.starts_with("HYDRANT_OBJECTS")
            })
        };
        let knowing = services.iter().filter(|service| knows(service));
        let knowing: Vec<_> = knowing.map(|service| service.id.to_string()).collect();
        assert_eq!(knowing, ["service/mobile", "service/submissions"]);
    }
}
