use std::net::SocketAddr;

use connectrpc::IdempotencyLevel;
use serde::{Deserialize, Serialize};

use crate::endpoint::MethodPath;
use crate::name::{InstanceId, InvalidName, ServiceId, Version};
use crate::proto;

/// The most methods, and the most prefixes, that one instance may register.
const MAX_ENDPOINTS: usize = 1000;
/// The most paths that one instance may call safe: requests are compared with each of them.
const MAX_REPEATABLE_PATHS: usize = 50;

/// A running process of a service, as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique in the fleet and over time.
    pub id: InstanceId,
    /// The service that it is an instance of.
    pub service: ServiceId,
    /// The version that it runs.
    pub version: Version,
    /// The server on which it runs.
    pub server: String,
    /// Where it answers HTTP/1.1, on the loopback of its server.
    pub address: SocketAddr,
    /// It answers HTTP/2 with prior knowledge on the same port.
    pub http2: bool,
    /// The Protobuf methods that it answers, at `/{package.Service}/{Method}`.
    pub methods: Vec<Method>,
    /// The path prefixes that it answers.
    pub prefixes: Vec<PathPrefix>,
    /// Whether it gets requests.
    pub state: InstanceState,
    /// What people should know of its state; may be empty.
    pub detail: String,
    /// When it reached its state, in milliseconds since 1970.
    pub since_unix_ms: i64,
    /// Its process id on its server; 0 when unknown.
    pub pid: u32,
    /// The paths of its prefixes where a repeat is safe, whatever the HTTP method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeatable_paths: Vec<RepeatablePath>,
}

/// Whether an instance gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Registered, not yet answering.
    Starting,
    /// Gets requests.
    Ready,
    /// Gets no new requests; the ones it has are finished.
    Draining,
    /// Its process keeps dying, or does not answer.
    Failing,
}

impl InstanceState {
    /// The state as people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            InstanceState::Starting => "starting",
            InstanceState::Ready => "ready",
            InstanceState::Draining => "draining",
            InstanceState::Failing => "failing",
        }
    }
}

/// A Protobuf method that an instance answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Method {
    /// `package.Service/Method`.
    #[serde(with = "method_path")]
    pub path: MethodPath,
    /// The option `NO_SIDE_EFFECTS` or `IDEMPOTENT`: a repeat is safe.
    pub idempotent: bool,
}

impl Method {
    /// A method as its `.proto` file declares it.
    pub fn declared(path: MethodPath, level: IdempotencyLevel) -> Self {
        let idempotent = matches!(
            level,
            IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent
        );
        Self { path, idempotent }
    }
}

/// A prefix of paths that a web server answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathPrefix {
    /// Below `/{tier}/{service}/`, and ending in `/`.
    pub prefix: String,
    /// How many bytes of the path are cut off before the instance sees it. What is left begins
    /// with `/`.
    pub strip: usize,
}

impl PathPrefix {
    /// A prefix of `service`, cut off up to its last slash when `strip` is set.
    pub fn new(service: &ServiceId, prefix: &str, strip: bool) -> Result<Self, InvalidName> {
        let cut = if strip {
            prefix.len().saturating_sub(1)
        } else {
            0
        };
        Self {
            prefix: prefix.into(),
            strip: cut,
        }
        .checked(service)
    }

    fn checked(self, service: &ServiceId) -> Result<Self, InvalidName> {
        let refuse = |rule| InvalidName::new("route", &self.prefix, rule);
        check_path(service, &self.prefix).map_err(refuse)?;
        if !self.prefix.ends_with('/') {
            return Err(refuse("it ends in '/'"));
        }
        if self.prefix.as_bytes().get(self.strip) != Some(&b'/') {
            return Err(refuse("what is cut off ends before a slash"));
        }
        Ok(self)
    }
}

/// A path where every request is safe to repeat, whatever its HTTP method. It changes where no
/// request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepeatablePath(String);

impl RepeatablePath {
    /// A path of `service`; one that ends in `/` stands for everything below it.
    pub fn new(service: &ServiceId, path: &str) -> Result<Self, InvalidName> {
        let refuse = |rule| InvalidName::new("repeatable path", path, rule);
        check_path(service, path).map_err(refuse)?;
        Ok(Self(path.into()))
    }

    /// Whether a request's path, without its query, is meant.
    pub fn covers(&self, path: &[u8]) -> bool {
        match self.0.ends_with('/') {
            true => path.starts_with(self.0.as_bytes()),
            false => path == self.0.as_bytes(),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that a path stays below its service; else says the rule.
fn check_path(service: &ServiceId, path: &str) -> Result<(), &'static str> {
    let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
    if !path.starts_with(&format!("/{service}/")) {
        return Err("it begins with /TIER/SERVICE/ of its own service");
    }
    if !path.bytes().all(visible) {
        return Err("it has visible ASCII characters, no '?', '#' or backslash");
    }
    let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if path.len() > 1024 || path.contains("//") || has_dots {
        return Err("it has at most 1024 bytes, and no '//', '/./' and '/../'");
    }
    Ok(())
}

impl From<&Instance> for proto::Instance {
    fn from(instance: &Instance) -> Self {
        let method = |method: &Method| proto::Method {
            path: method.path.to_string(),
            idempotent: method.idempotent,
            ..Default::default()
        };
        let prefix = |prefix: &PathPrefix| proto::PathPrefix {
            prefix: prefix.prefix.clone(),
            strip: prefix.strip as u32,
            ..Default::default()
        };
        let repeatable_path = |path: &RepeatablePath| path.0.clone();
        proto::Instance {
            id: instance.id.to_string(),
            tier: proto::Tier::from(instance.service.tier).into(),
            service: instance.service.name.to_string(),
            version: instance.version.to_string(),
            server: instance.server.clone(),
            address: instance.address.to_string(),
            http2: instance.http2,
            methods: instance.methods.iter().map(method).collect(),
            prefixes: instance.prefixes.iter().map(prefix).collect(),
            state: proto::InstanceState::from(instance.state).into(),
            detail: instance.detail.clone(),
            since_unix_ms: instance.since_unix_ms,
            pid: instance.pid,
            repeatable_paths: instance
                .repeatable_paths
                .iter()
                .map(repeatable_path)
                .collect(),
            ..Default::default()
        }
    }
}

impl TryFrom<&proto::Instance> for Instance {
    type Error = InvalidName;

    fn try_from(wire: &proto::Instance) -> Result<Self, InvalidName> {
        let tier = wire.tier.as_known().unwrap_or_default();
        let service = ServiceId::new(tier.try_into()?, wire.service.parse()?);
        if wire.methods.len().max(wire.prefixes.len()) > MAX_ENDPOINTS {
            let rule = "it has at most 1000 methods and 1000 prefixes";
            return Err(InvalidName::new("instance", &wire.id, rule));
        }
        if wire.repeatable_paths.len() > MAX_REPEATABLE_PATHS {
            let rule = "at most 50 of its paths are safe to repeat";
            return Err(InvalidName::new("instance", &wire.id, rule));
        }
        let methods = wire.methods.iter().map(|method| {
            Ok(Method {
                path: method.path.parse()?,
                idempotent: method.idempotent,
            })
        });
        let prefixes = wire.prefixes.iter().map(|prefix| {
            PathPrefix {
                prefix: prefix.prefix.clone(),
                strip: prefix.strip as usize,
            }
            .checked(&service)
        });
        let repeatable_path = |path: &String| RepeatablePath::new(&service, path);
        Ok(Self {
            id: wire.id.parse()?,
            version: wire.version.parse()?,
            server: wire.server.clone(),
            address: wire
                .address
                .parse()
                .map_err(|_| InvalidName::new("address", &wire.address, "it is written IP:PORT"))?,
            http2: wire.http2,
            methods: methods.collect::<Result<_, InvalidName>>()?,
            prefixes: prefixes.collect::<Result<_, InvalidName>>()?,
            state: wire.state.as_known().unwrap_or_default().try_into()?,
            detail: wire.detail.chars().take(500).collect(),
            since_unix_ms: wire.since_unix_ms,
            pid: wire.pid,
            repeatable_paths: wire
                .repeatable_paths
                .iter()
                .map(repeatable_path)
                .collect::<Result<_, _>>()?,
            service,
        })
    }
}

impl From<InstanceState> for proto::InstanceState {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Starting => proto::InstanceState::INSTANCE_STATE_STARTING,
            InstanceState::Ready => proto::InstanceState::INSTANCE_STATE_READY,
            InstanceState::Draining => proto::InstanceState::INSTANCE_STATE_DRAINING,
            InstanceState::Failing => proto::InstanceState::INSTANCE_STATE_FAILING,
        }
    }
}

impl TryFrom<proto::InstanceState> for InstanceState {
    type Error = InvalidName;

    fn try_from(state: proto::InstanceState) -> Result<Self, InvalidName> {
        match state {
            proto::InstanceState::INSTANCE_STATE_STARTING => Ok(InstanceState::Starting),
            proto::InstanceState::INSTANCE_STATE_READY => Ok(InstanceState::Ready),
            proto::InstanceState::INSTANCE_STATE_DRAINING => Ok(InstanceState::Draining),
            proto::InstanceState::INSTANCE_STATE_FAILING => Ok(InstanceState::Failing),
            proto::InstanceState::INSTANCE_STATE_UNSPECIFIED => {
                let rule = "it is one of starting, ready, draining and failing";
                Err(InvalidName::new("instance state", "", rule))
            }
        }
    }
}

mod method_path {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::endpoint::MethodPath;

    pub(super) fn serialize<S: Serializer>(path: &MethodPath, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(path.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MethodPath, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let service: ServiceId = "api/files".parse().unwrap();
        Instance {
            id: "files-1".parse().unwrap(),
            version: "1.2.3".parse().unwrap(),
            server: "one".into(),
            address: "127.0.0.1:4000".parse().unwrap(),
            http2: true,
            methods: vec![Method {
                path: "files.v1.Files/Get".parse().unwrap(),
                idempotent: true,
            }],
            prefixes: vec![PathPrefix::new(&service, "/api/files/raw/", true).unwrap()],
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: 1,
            pid: 2,
            repeatable_paths: vec![RepeatablePath::new(&service, "/api/files/search").unwrap()],
            service,
        }
    }

    #[test]
    fn instances_survive_the_wire_and_the_store() {
        let instance = instance();
        assert_eq!(
            Instance::try_from(&proto::Instance::from(&instance)).unwrap(),
            instance
        );
        let json = serde_json::to_string(&instance).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), instance);
    }

    #[test]
    fn what_an_older_node_stored_calls_no_path_safe() {
        let mut json = serde_json::to_value(instance()).unwrap();
        json.as_object_mut().unwrap().remove("repeatable_paths");
        let instance: Instance = serde_json::from_value(json).unwrap();
        assert!(instance.repeatable_paths.is_empty());
    }

    #[test]
    fn a_repeatable_path_is_itself_or_all_below_it() {
        let service: ServiceId = "api/files".parse().unwrap();
        let covers = |safe, path: &str| {
            let safe = RepeatablePath::new(&service, safe).unwrap();
            safe.covers(path.as_bytes())
        };
        assert!(covers("/api/files/search", "/api/files/search"));
        assert!(!covers("/api/files/search", "/api/files/search/"));
        assert!(!covers("/api/files/search", "/api/files/searches"));
        assert!(covers("/api/files/search/", "/api/files/search/a/b"));
        assert!(!covers("/api/files/search/", "/api/files/search"));
        assert!(covers("/api/files/", "/api/files/a"));
        for bad in [
            "",
            "/",
            "/api/",
            "/api/other/a",
            "/api/files/../x",
            "/api/files/a?b",
        ] {
            assert!(RepeatablePath::new(&service, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_stays_below_its_service() {
        let service: ServiceId = "api/files".parse().unwrap();
        let cut = |prefix, strip| PathPrefix::new(&service, prefix, strip).map(|p| p.strip);
        assert_eq!(cut("/api/files/", true), Ok(10));
        assert_eq!(cut("/api/files/v1/", true), Ok(13));
        assert_eq!(cut("/api/files/v1/", false), Ok(0));
        for bad in [
            "/",
            "/api/",
            "/api/other/",
            "/api/files",
            "/api/files/../x/",
            "/api/files/a b/",
        ] {
            assert!(cut(bad, true).is_err(), "{bad}");
        }
    }
}
