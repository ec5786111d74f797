//! `[[service]]` of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hydrant_contracts::{PathPrefix, RepeatablePath, ServiceId, ServiceName, Tier, Version};
use hydrant_node::{Limits, MAX_INSTANCES, ServiceSpec};
use hydrant_runtime::{ByteSize, Duration};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{Mistake, check_wait};

/// `[[service]]`: a service whose processes the node starts and keeps running.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
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
    #[serde(default)]
    safe_to_repeat: Vec<Spanned<String>>,
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

impl Service {
    pub(super) fn id(&self) -> ServiceId {
        ServiceId::new(self.tier, self.name.get_ref().clone())
    }

    /// Where its name stands.
    pub(super) fn name_at(&self) -> usize {
        self.name.span().start
    }

    /// Where it runs, when the file says it.
    pub(super) fn directory_mut(&mut self) -> Option<&mut PathBuf> {
        self.directory.as_mut()
    }

    fn routes(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.route.iter().chain(&self.routes)
    }

    fn keep_prefix(&self) -> bool {
        self.keep_prefix
            .as_ref()
            .is_some_and(|keep| *keep.get_ref())
    }

    pub(super) fn check(&self) -> Result<(), Mistake> {
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
            let of_services = [
                "HYDRANT_LOG",
                hydrant_mobile::SOURCES,
                hydrant_submissions::FORMS,
            ];
            if text == "PORT"
                || text.starts_with("HYDRANT_") && !of_services.contains(&text.as_str())
            {
                return Err((at, format!("`{text}` is set by the node; take it out")));
            }
        }
        Ok(())
    }

    /// Checks what only a plain web server has.
    fn check_web(&self) -> Result<(), Mistake> {
        let only_web = (self.routes().map(|route| route.span().start))
            .chain(self.health.iter().map(|health| health.span().start))
            .chain(self.safe_to_repeat.iter().map(|path| path.span().start))
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
        for path in &self.safe_to_repeat {
            RepeatablePath::new(&self.id(), path.get_ref())
                .map_err(|error| (path.span().start, error.to_string()))?;
        }
        match &self.health {
            Some(path) if !is_path(path.get_ref()) => {
                let message = "`health` is a path of the web server itself, as \"/healthz\"";
                Err((path.span().start, message.into()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn spec(&self) -> ServiceSpec {
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
            routes: texts(self.routes()),
            keep_prefix: self.keep_prefix(),
            safe_to_repeat: texts(&self.safe_to_repeat),
            health: self.health.as_ref().map(|path| path.get_ref().clone()),
            stop_timeout: stop_timeout.unwrap_or(usual.stop_timeout),
            ..usual
        }
    }
}

fn texts<'a>(all: impl IntoIterator<Item = &'a Spanned<String>>) -> Vec<String> {
    let text = |one: &Spanned<String>| one.get_ref().clone();
    all.into_iter().map(text).collect()
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
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
