//! The configuration file: what a node listens on, where it keeps its data, which fleet it is part
//! of, which engines stand behind its ports, which services it supervises. docs/configuration.md is
//! its reference.

mod fleet;
mod proxies;
mod service;
mod storage;
mod telemetry;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hydrant_contracts::{ServerName, ZoneName};
use hydrant_node::ServiceSpec;
use hydrant_runtime::Duration;
use hydrant_runtime::config::ConfigError;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::assembly::engines::{CoordinationEngine, StateEngine};
pub(crate) use fleet::Fleet;
use service::Service;
pub(crate) use storage::{Storage, own_objects, own_records};
pub(crate) use telemetry::Telemetry;
pub(crate) use tls::Tls;

/// The most services that one file may have.
const MAX_SERVICES: usize = 1000;

/// The most a grace or stop time may be.
const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// A configuration file, read and checked. Its paths are relative to the folder in which
/// `hydrant` was started.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// The node itself.
    pub(crate) node: Node,
    /// How it belongs to others, when there are others.
    pub(crate) fleet: Option<Fleet>,
    /// How TLS is spoken with the outside, when it is.
    pub(crate) tls: Option<Tls>,
    /// Who stands in front of the node.
    pub(crate) proxies: hydrant_router::Proxies,
    /// What stands behind the port of coordination.
    pub(crate) coordination: CoordinationEngine,
    /// What stands behind the port of state.
    pub(crate) state: StateEngine,
    /// Where `service/mobile` keeps its tables and images.
    pub(crate) storage: Storage,
    /// What lines tell and never tell, and where they and metrics go to.
    pub(crate) telemetry: Telemetry,
    services: Vec<Service>,
}

/// What of a file has its form from here; the tables of the engines have theirs from the engines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    #[serde(default)]
    node: Node,
    fleet: Option<Spanned<Fleet>>,
    tls: Option<Spanned<Tls>>,
    proxies: Option<proxies::Table>,
    records: Option<storage::Records>,
    objects: Option<storage::Objects>,
    telemetry: Option<telemetry::Table>,
    #[serde(default, rename = "service")]
    services: Vec<Service>,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// The name of this server; its host name when it is not given.
    pub(crate) server: Option<ServerName>,
    /// Where this server stands.
    #[serde(default)]
    pub(crate) zone: ZoneName,
    /// The data folder.
    pub(crate) data: Option<PathBuf>,
    /// Where the outside reaches the tier api.
    pub(crate) public: Option<Listen>,
    /// Where the services of this server reach the node.
    pub(crate) local: Option<Listen>,
    /// How long services live without a node.
    grace: Option<Spanned<Duration>>,
    /// How many threads carry traffic; one per core when it is not given.
    workers: Option<Spanned<usize>>,
    /// The connections that one client address, and one caller, may have to each of these threads.
    connections_per_address: Option<NonZeroUsize>,
    connections_per_caller: Option<NonZeroUsize>,
}

impl Node {
    /// How long services live without a node, when the file says it.
    pub(crate) fn grace(&self) -> Option<std::time::Duration> {
        self.grace.as_ref().map(|grace| grace.get_ref().get())
    }

    /// Sets what the file says of the router's bounds.
    pub(crate) fn bound(&self, limits: &mut hydrant_router::Limits) {
        for (bound, said) in [
            (
                &mut limits.connections_per_address,
                self.connections_per_address,
            ),
            (
                &mut limits.connections_per_caller,
                self.connections_per_caller,
            ),
        ] {
            *bound = said.map_or(*bound, NonZeroUsize::get);
        }
    }

    /// How many threads carry traffic, when the file says it.
    pub(crate) fn workers(&self) -> Option<usize> {
        self.workers.as_ref().map(|workers| *workers.get_ref())
    }
}

/// A mistake: where it stands in the file, as a byte of its text, and what is wrong.
pub(crate) type Mistake = (usize, String);

impl File {
    /// Reads and checks a file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::Unreadable {
            path: path.into(),
            reason,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::read(folder, text).map_err(|(at, message)| ConfigError::at(path, text, at, message))
    }

    fn read(folder: &Path, text: &str) -> Result<Self, Mistake> {
        let mut document = DeTable::parse(text).map_err(mistake)?;
        let coordination = Table::take(&mut document, "coordination")?;
        let state = Table::take(&mut document, "state")?;
        let own = Own::deserialize(toml::Deserializer::from(document)).map_err(mistake)?;
        own.check()?;
        let places = [&coordination, &state].map(|table| table.as_ref().map(Table::engine_at));
        let coordination = CoordinationEngine::read(coordination, folder)?;
        let state = StateEngine::read(state, folder)?;
        let shared = [coordination.is_shared(), state.is_shared()];
        fleet::check_engines(own.fleet.as_ref(), shared, places)?;
        let storage = Storage::read(own.records, own.objects, own.fleet.is_some())?;
        let mut file = Self {
            node: own.node,
            fleet: own.fleet.map(Spanned::into_inner),
            tls: own.tls.map(Spanned::into_inner),
            proxies: proxies::read(own.proxies)?,
            coordination,
            state,
            storage,
            telemetry: Telemetry::read(own.telemetry)?,
            services: own.services,
        };
        file.start_paths_at(folder);
        Ok(file)
    }

    /// Paths that are relative in the file begin where it lies.
    fn start_paths_at(&mut self, folder: &Path) {
        let paths = (self.node.data.iter_mut())
            .chain(self.fleet.iter_mut().map(|fleet| &mut fleet.credentials))
            .chain(self.services.iter_mut().filter_map(Service::directory_mut));
        for path in paths {
            *path = folder.join(&*path);
        }
        if let Some(tls) = &mut self.tls {
            tls.start_paths_at(folder);
        }
        self.storage.start_paths_at(folder);
        self.telemetry.start_paths_at(folder);
    }

    /// The services, as the supervisor takes them.
    pub(crate) fn specs(&self) -> Vec<ServiceSpec> {
        self.services.iter().map(Service::spec).collect()
    }
}

impl Own {
    fn check(&self) -> Result<(), Mistake> {
        self.node.check()?;
        if let Some(fleet) = &self.fleet {
            fleet.get_ref().check()?;
        }
        if let Some(tls) = &self.tls {
            tls.get_ref().check(tls.span().start)?;
        }
        if self.services.len() > MAX_SERVICES {
            return Err((0, format!("a file has at most {MAX_SERVICES} services")));
        }
        let mut seen = BTreeMap::new();
        for service in &self.services {
            service.check()?;
            if seen.insert(service.id(), ()).is_some() {
                let message = format!(
                    "the service `{}` stands here twice; give one of them another name or tier",
                    service.id()
                );
                return Err((service.name_at(), message));
            }
        }
        Ok(())
    }
}

impl Node {
    fn check(&self) -> Result<(), Mistake> {
        if let Some(grace) = &self.grace {
            check_wait("grace", grace)?;
        }
        match &self.workers {
            Some(workers) if !(1..=256).contains(workers.get_ref()) => {
                Err((workers.span().start, "`workers` is 1 to 256".into()))
            }
            _ => Ok(()),
        }
    }
}

/// The table of an engine, `[coordination]` or `[state]`.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    engine: Spanned<String>,
    settings: Spanned<DeTable<'a>>,
}

impl<'a> Table<'a> {
    fn take(document: &mut Spanned<DeTable<'a>>, name: &str) -> Result<Option<Self>, Mistake> {
        let Some(value) = document.get_mut().remove(name) else {
            return Ok(None);
        };
        let span = value.span();
        let DeValue::Table(mut settings) = value.into_inner() else {
            return Err((span.start, format!("`{name}` is a table: write [{name}]")));
        };
        let engine = settings.remove("engine").ok_or_else(|| {
            let message = format!("[{name}] does not say its `engine`");
            (span.start, message)
        })?;
        Ok(Some(Self {
            engine: engine_name(engine)?,
            settings: Spanned::new(span, settings),
        }))
    }

    /// The name of the engine.
    pub(crate) fn engine(&self) -> &str {
        self.engine.get_ref()
    }

    /// Where the engine is named.
    pub(crate) fn engine_at(&self) -> usize {
        self.engine.span().start
    }

    /// What stands beside the name, in the form that the engine gives it.
    pub(crate) fn settings<T: Deserialize<'a>>(self) -> Result<T, Mistake> {
        T::deserialize(toml::Deserializer::from(self.settings)).map_err(mistake)
    }
}

fn engine_name(value: Spanned<DeValue<'_>>) -> Result<Spanned<String>, Mistake> {
    let span = value.span();
    match value.into_inner() {
        DeValue::String(name) => Ok(Spanned::new(span, name.into_owned())),
        _ => Err((span.start, "`engine` is a name, in quotes".into())),
    }
}

fn mistake(error: toml::de::Error) -> Mistake {
    let at = error.span().map_or(0, |span| span.start);
    (at, error.message().replace('\n', " "))
}

fn check_wait(name: &str, wait: &Spanned<Duration>) -> Result<(), Mistake> {
    if wait.get_ref().get() > MAX_WAIT {
        return Err((wait.span().start, format!("`{name}` is at most 1h")));
    }
    Ok(())
}

/// An address to listen on, as `127.0.0.1:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let text = text.escape_debug();
            format!("`{text}` is not an address: write an IP address and a port, as 127.0.0.1:8080")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(Path::new("h.toml"), text).map_err(|error| error.to_string())
    }

    const FILES: &str = r#"
[node]
server = "one"
data = "/var/lib/hydrant"
public = "0.0.0.0:80"
local = "127.0.0.1:8081"
grace = "10s"
workers = 4

[[service]]
name = "files"
tier = "api"
version = "1.2.0"
command = ["python3", "-m", "http.server"]
instances = 3
env = { LANG = "C" }
route = "/api/files/"
safe_to_repeat = ["/api/files/search"]
health = "/"
stop_timeout = "2s"
[service.limits]
memory = "256MB"
open_files = 1024
cpu = "50%"
"#;

    #[test]
    fn all_settings_reach_the_supervisor() {
        let file = parse(FILES).unwrap();
        assert_eq!(file.node.public, Some("0.0.0.0:80".parse().unwrap()));
        assert_eq!(file.node.grace(), Some(std::time::Duration::from_secs(10)));
        assert_eq!(file.node.workers(), Some(4));
        let spec = &file.specs()[0];
        assert_eq!(spec.id.to_string(), "api/files");
        assert_eq!(
            (spec.instances, spec.sdk, spec.keep_prefix),
            (3, false, false)
        );
        assert_eq!(spec.routes, ["/api/files/"]);
        assert_eq!(spec.safe_to_repeat, ["/api/files/search"]);
        assert_eq!(spec.env["LANG"], "C");
        assert_eq!(spec.limits.memory, Some(256 << 20));
        assert_eq!(spec.limits.open_files, Some(1024));
        assert_eq!(spec.limits.cpu, Some(0.5));
        assert_eq!(spec.stop_timeout, std::time::Duration::from_secs(2));
    }

    #[test]
    fn an_empty_file_is_a_good_one() {
        assert!(parse("").unwrap().specs().is_empty());
    }

    #[test]
    fn the_reference_shows_files_that_can_be_read() {
        let page = include_str!("../../../docs/configuration.md");
        let blocks: Vec<&str> = page
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        let [
            node,
            tls,
            proxies,
            fleet,
            zookeeper,
            redis,
            storage,
            telemetry,
        ] = blocks[..]
        else {
            panic!("{} blocks", blocks.len());
        };
        assert!(parse(node).unwrap().fleet.is_none());
        let tls = parse(tls).unwrap().tls.unwrap().config();
        assert_eq!(tls.tls.certificates.len(), 2);
        assert_eq!(tls.plain, hydrant_router::Plain::Redirect(Some(443)));
        let proxies = parse(proxies).unwrap().proxies;
        assert_ne!(proxies, hydrant_router::Proxies::default());
        let fleet = fleet.split("[coordination]").next().unwrap();
        let file = parse(&format!("{fleet}{zookeeper}{redis}{storage}{telemetry}")).unwrap();
        assert!(file.fleet.unwrap().tls());
        assert!(file.coordination.is_shared() && file.state.is_shared());
        assert!(file.storage.records().is_some());
        assert!(file.telemetry.exports().splunk.is_some());
    }

    #[test]
    fn relative_paths_begin_where_the_file_lies() {
        let path = Path::new("/etc/hydrant/h.toml");
        let text = FILES
            .replace("/var/lib/hydrant", "data")
            .replace("route =", "directory = \"www\"\nroute =");
        let file = File::parse(path, &text).unwrap();
        assert_eq!(
            file.node.data.as_deref(),
            Some(Path::new("/etc/hydrant/data"))
        );
        let directory = file.specs()[0].directory.clone();
        assert_eq!(directory.as_deref(), Some(Path::new("/etc/hydrant/www")));
        let absolute = File::parse(path, FILES).unwrap();
        assert_eq!(
            absolute.node.data.as_deref(),
            Some(Path::new("/var/lib/hydrant"))
        );
    }

    #[test]
    fn each_mistake_has_its_place_and_its_mend() {
        let service = "[[service]]\nname = \"a\"\ntier = \"api\"\nversion = \"1.0.0\"\n";
        let with = |rest: &str| format!("{service}command = [\"x\"]\n{rest}");
        let fleet =
            |rest: &str| format!("[fleet]\npeer = \"127.0.0.1:9\"\ncredentials = \"x\"\n{rest}\n");
        let tls = |rest: &str| format!("[tls]\nlisten = \"127.0.0.1:0\"\n{rest}\n");
        for (text, place, part) in [
            (
                "[node]\nsever = \"a\"".into(),
                "2:1",
                "unknown field `sever`",
            ),
            ("[node]\ngrace = \"30\"".into(), "2:9", "as 500ms or 30s"),
            ("[node]\ngrace = 30".into(), "2:9", "as 500ms or 30s"),
            ("[node]\ngrace = \"2h\"".into(), "2:9", "at most 1h"),
            (
                "[node]\npublic = \"8080\"".into(),
                "2:10",
                "as 127.0.0.1:8080",
            ),
            ("[node]\nworkers = 0".into(), "2:11", "1 to 256"),
            (tls(""), "1:1", "add a [[tls.certificate]]"),
            (
                tls("client = \"required\"\n[[tls.certificate]]\ncertificate = \"a\"\nkey = \"b\""),
                "3:10",
                "add client_ca",
            ),
            (
                tls("client_ca = \"c\"\n[[tls.certificate]]\ncertificate = \"a\"\nkey = \"b\""),
                "3:13",
                "add client =",
            ),
            (
                tls("redirect_port = 1\n[[tls.certificate]]\ncertificate = \"a\"\nkey = \"b\""),
                "3:17",
                "plain = \"redirect\"",
            ),
            (tls("minimum = \"1.1\""), "3:11", "`1.2` or `1.3`"),
            (
                tls("[[tls.certificate]]\nkey = \"b\""),
                "3:1",
                "missing field `certificate`",
            ),
            ("[node\n".into(), "1:6", ""),
            (
                "[[service]]\nname = \"A b\"".into(),
                "2:8",
                "not a service name",
            ),
            (
                "[[service]]\nname = \"a\"\ntier = \"x\"".into(),
                "3:8",
                "unknown variant `x`",
            ),
            (service.into(), "1:1", "missing field `command`"),
            (
                format!("{service}command = []"),
                "5:11",
                "the program and its arguments",
            ),
            (with("instances = 5000"), "6:13", "at most 1000"),
            (with("route = \"/api/b/\""), "6:9", "/TIER/SERVICE/"),
            (with("health = \"healthz\""), "6:10", "\"/healthz\""),
            (
                with("sdk = true\nroute = \"/api/a/\""),
                "7:9",
                "take this line out",
            ),
            (
                with("[service.env]\nPORT = \"80\""),
                "7:1",
                "set by the node",
            ),
            (with("[service.limits]\nmemory = 512"), "7:10", "as 512MB"),
            (with("[service.limits]\ncpu = 0.5"), "7:7", "as 50% or 200%"),
            (
                with("[service.limits]\nmemroy = \"1MB\""),
                "7:1",
                "unknown field `memroy`",
            ),
            (format!("{}{}", with(""), with("")), "7:8", "twice"),
            ("state = 1".into(), "1:9", "write [state]"),
            ("[state]".into(), "1:1", "does not say its `engine`"),
            ("[state]\nengine = 1".into(), "2:10", "in quotes"),
            (
                "[state]\nengine = \"zookeeper\"".into(),
                "2:10",
                "embedded or redis",
            ),
            (
                "[coordination]\nengine = \"embedded\"\nservers = []".into(),
                "3:1",
                "unknown field `servers`",
            ),
            (
                "[coordination]\nengine = \"zookeeper\"".into(),
                "1:1",
                "missing field `servers`",
            ),
            (
                "[coordination]\nengine = \"zookeeper\"\nservers = [\"x\"]".into(),
                "2:10",
                "as 127.0.0.1:2181",
            ),
            (
                "[coordination]\nengine = \"zookeeper\"\nservers = [\"x:1\"]\nconnect_timeout = 5"
                    .into(),
                "4:19",
                "as 500ms or 30s",
            ),
            (
                "[coordination]\nengine = \"zookeeper\"\nservers = [\"x:1\"]".into(),
                "2:10",
                "add [fleet]",
            ),
            (
                "[state]\nengine = \"redis\"\nservers = [\"x\"]".into(),
                "2:10",
                "as 127.0.0.1:6379",
            ),
            (
                "[state]\nengine = \"redis\"\nservers = [\"x:1\"]\n[state.tls]\nsa = \"x\"".into(),
                "5:1",
                "unknown field `sa`",
            ),
            (
                "[state]\nengine = \"redis\"\nservers = [\"x:1\"]".into(),
                "2:10",
                "add [fleet]",
            ),
            ("[node]\nzone = \"A\"".into(), "2:8", "not a zone name"),
            (
                "[fleet]\npeer = \"127.0.0.1:1\"".into(),
                "1:1",
                "`credentials`",
            ),
            (
                fleet(""),
                "1:1",
                "add [coordination] with engine = \"zookeeper\"",
            ),
            (
                format!("{}[coordination]\nengine = \"embedded\"\n", fleet("")),
                "6:10",
                "take [fleet] out",
            ),
            (
                fleet("advertise = \"0.0.0.0:9\""),
                "4:13",
                "as 10.0.0.1:9081",
            ),
            (
                fleet("advertise = \"10.0.0.1:0\""),
                "4:13",
                "as 10.0.0.1:9081",
            ),
            (
                fleet("tls = false").replace("127.0.0.1", "10.0.0.1"),
                "4:7",
                "on the loopback only",
            ),
            (
                fleet("").replace("127.0.0.1", "0.0.0.0"),
                "2:8",
                "as advertise = \"10.0.0.1:9081\"",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.starts_with(&format!("h.toml:{place}: ")),
                "{text}: {error}"
            );
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
