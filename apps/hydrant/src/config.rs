//! The configuration file: what a node listens on, where it keeps its data, which services it
//! supervises. docs/configuration.md is its reference.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hydrant_contracts::{PathPrefix, ServerName, ServiceId, ServiceName, Tier, Version};
use hydrant_node::{Limits, MAX_INSTANCES, ServiceSpec};
use hydrant_runtime::config::{self, ConfigError};
use hydrant_runtime::{ByteSize, Duration};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// The most services that one file may have.
const MAX_SERVICES: usize = 1000;

/// The most a grace or stop time may be.
const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// A configuration file, read and checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The node itself.
    #[serde(default)]
    pub(crate) node: Node,
    #[serde(default, rename = "service")]
    services: Vec<Service>,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// The name of this server; its host name when it is not given.
    pub(crate) server: Option<ServerName>,
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
}

impl Node {
    /// How long services live without a node, when the file says it.
    pub(crate) fn grace(&self) -> Option<std::time::Duration> {
        self.grace.as_ref().map(|grace| grace.get_ref().get())
    }

    /// How many threads carry traffic, when the file says it.
    pub(crate) fn workers(&self) -> Option<usize> {
        self.workers.as_ref().map(|workers| *workers.get_ref())
    }
}

/// `[[service]]`: a service whose processes the node starts and keeps running.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: Spanned<ServiceName>,
    tier: Tier,
    version: Version,
    command: Spanned<Vec<String>>,
    #[serde(default)]
    sdk: bool,
    #[serde(default = "one")]
    instances: Spanned<u32>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, String>,
    directory: Option<PathBuf>,
    route: Option<Spanned<String>>,
    #[serde(default)]
    routes: Vec<Spanned<String>>,
    keep_prefix: Option<Spanned<bool>>,
    health: Option<Spanned<String>>,
    stop_timeout: Option<Spanned<Duration>>,
    #[serde(default)]
    limits: ServiceLimits,
}

/// `[service.limits]`: of each process.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceLimits {
    memory: Option<ByteSize>,
    open_files: Option<u64>,
    cpu: Option<CpuShare>,
}

fn one() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

/// A mistake: where it stands in the file, and what is wrong.
type Mistake = (usize, String);

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
        let file: Self = config::parse(path, text)?;
        file.check()
            .map_err(|(at, message)| ConfigError::at(path, text, at, message))?;
        Ok(file)
    }

    fn check(&self) -> Result<(), Mistake> {
        self.node.check()?;
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
                return Err((service.name.span().start, message));
            }
        }
        Ok(())
    }

    /// The services, as the supervisor takes them.
    pub(crate) fn specs(&self) -> Vec<ServiceSpec> {
        self.services.iter().map(Service::spec).collect()
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

impl Service {
    fn id(&self) -> ServiceId {
        ServiceId::new(self.tier, self.name.get_ref().clone())
    }

    fn routes(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.route.iter().chain(&self.routes)
    }

    fn keep_prefix(&self) -> bool {
        self.keep_prefix
            .as_ref()
            .is_some_and(|keep| *keep.get_ref())
    }

    fn check(&self) -> Result<(), Mistake> {
        let (command, instances) = (self.command.get_ref(), *self.instances.get_ref());
        if command.first().is_none_or(String::is_empty) || command.iter().any(|a| a.contains('\0'))
        {
            let message =
                "`command` is the program and its arguments, as [\"python3\", \"app.py\"]";
            return Err((self.command.span().start, message.into()));
        }
        if instances > MAX_INSTANCES {
            let message = format!("`instances` is at most {MAX_INSTANCES}");
            return Err((self.instances.span().start, message));
        }
        if let Some(wait) = &self.stop_timeout {
            check_wait("stop_timeout", wait)?;
        }
        self.check_env()?;
        self.check_web()
    }

    fn check_env(&self) -> Result<(), Mistake> {
        for name in self.env.keys() {
            let text = name.get_ref();
            let at = name.span().start;
            if text.is_empty() || text.contains(['=', '\0']) {
                return Err((
                    at,
                    "this can't be the name of an environment variable".into(),
                ));
            }
            if text == "PORT" || text.starts_with("HYDRANT_") && text != "HYDRANT_LOG" {
                return Err((at, format!("`{text}` is set by the node; take it out")));
            }
        }
        Ok(())
    }

    /// Checks what only a plain web server has.
    fn check_web(&self) -> Result<(), Mistake> {
        let only_web = (self.routes().map(|route| route.span().start))
            .chain(self.health.iter().map(|health| health.span().start))
            .chain(self.keep_prefix.iter().map(|keep| keep.span().start));
        if let Some(at) = only_web.min().filter(|_| self.sdk) {
            let message = "a service with `sdk = true` tells its routes and its health itself; take \
                           this line out";
            return Err((at, message.into()));
        }
        for route in self.routes() {
            PathPrefix::new(&self.id(), route.get_ref(), !self.keep_prefix())
                .map_err(|error| (route.span().start, error.to_string()))?;
        }
        match &self.health {
            Some(path) if !is_path(path.get_ref()) => {
                let message = "`health` is a path of the web server itself, as \"/healthz\"";
                Err((path.span().start, message.into()))
            }
            _ => Ok(()),
        }
    }

    fn spec(&self) -> ServiceSpec {
        let command = self.command.get_ref().clone();
        let usual = ServiceSpec::new(self.id(), self.version.clone(), command);
        let stop_timeout = self.stop_timeout.as_ref().map(|wait| wait.get_ref().get());
        let env = self
            .env
            .iter()
            .map(|(name, value)| (name.get_ref().clone(), value.clone()));
        ServiceSpec {
            sdk: self.sdk,
            instances: *self.instances.get_ref(),
            env: env.collect(),
            directory: self.directory.clone(),
            limits: Limits {
                memory: self.limits.memory.map(ByteSize::get),
                open_files: self.limits.open_files,
                cpu: self.limits.cpu.map(CpuShare::cores),
            },
            routes: self.routes().map(|route| route.get_ref().clone()).collect(),
            keep_prefix: self.keep_prefix(),
            health: self.health.as_ref().map(|path| path.get_ref().clone()),
            stop_timeout: stop_timeout.unwrap_or(usual.stop_timeout),
            ..usual
        }
    }
}

fn check_wait(name: &str, wait: &Spanned<Duration>) -> Result<(), Mistake> {
    if wait.get_ref().get() > MAX_WAIT {
        return Err((wait.span().start, format!("`{name}` is at most 1h")));
    }
    Ok(())
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
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

/// How much of the CPU a process may use, as a percentage of one core: `50%`, `200%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuShare {
    percent: u32,
}

impl CpuShare {
    fn cores(self) -> f64 {
        f64::from(self.percent) / 100.0
    }
}

impl<'de> Deserialize<'de> for CpuShare {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(from)?;
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let number = text
            .strip_suffix('%')
            .and_then(|number| number.trim_end().parse().ok());
        match number {
            Some(percent @ 1..=100_000) => Ok(Self { percent }),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is not a share of the CPU: write a percentage of one core, as 50% or 200%"
            ))),
        }
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
    fn each_mistake_has_its_place_and_its_mend() {
        let service = "[[service]]\nname = \"a\"\ntier = \"api\"\nversion = \"1.0.0\"\n";
        let with = |rest: &str| format!("{service}command = [\"x\"]\n{rest}");
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
