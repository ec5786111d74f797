use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::NODE_SERVICE;
use crate::tier::Tier;

/// A name that breaks the rule of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {} {kind}: {rule}", article(kind))]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

impl InvalidName {
    pub(crate) fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        // The text came from outside: bound it, and escape what could forge a line of a log.
        let text = text.chars().take(80).flat_map(char::escape_debug).collect();
        Self { kind, text, rule }
    }
}

/// Implements what a validated string needs to stand in paths, JSON and tables.
macro_rules! validated_string {
    ($name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName::new($kind, text, $rule))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

pub(crate) use validated_string;

/// The name of a service, unique within its tier: a DNS label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

validated_string!(
    ServiceName,
    "service name",
    "it has 1 to 63 of the characters a-z, 0-9 and '-', and begins and ends with a letter or digit",
    is_dns_label
);

/// One process of a service: unique in the fleet and over time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

validated_string!(
    InstanceId,
    "instance id",
    "it has 1 to 100 of the characters a-z, 0-9 and '-', and begins and ends with a letter or digit",
    |text| text.len() <= 100 && has_label_form(text)
);

/// The name of a server of the fleet: a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(Arc<str>);

validated_string!(
    ServerName,
    "server name",
    "it is a host name in lower case: at most 63 of the characters a-z, 0-9, '-' and '.'",
    |text| text.len() <= 63 && text.split('.').all(is_dns_label)
);

/// The zone in which a server stands: what may fail together, as a rack or a data centre.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(Arc<str>);

validated_string!(
    ZoneName,
    "zone name",
    "it has 1 to 63 of the characters a-z, 0-9 and '-', and begins and ends with a letter or digit",
    is_dns_label
);

impl Default for ZoneName {
    /// The zone of servers that name none.
    fn default() -> Self {
        Self("default".into())
    }
}

impl InstanceId {
    /// A new id: the service's name, a dash and 10 random characters.
    pub fn generate(service: &ServiceName) -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let random = uuid::Uuid::new_v4().into_bytes();
        let suffix = random[..10]
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        let id: String = service
            .as_str()
            .chars()
            .chain(['-'])
            .chain(suffix)
            .collect();
        Self(id.into())
    }
}

/// A service as it is addressed: `{tier}/{service}`. Also the namespace of its state, its
/// elections and its locks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId {
    /// The tier in which it stands.
    pub tier: Tier,
    /// Its name, unique within the tier.
    pub name: ServiceName,
}

impl ServiceId {
    /// The service `name` of `tier`.
    pub fn new(tier: Tier, name: ServiceName) -> Self {
        Self { tier, name }
    }

    /// The node's own API, which every node answers itself.
    pub fn is_node(&self) -> bool {
        self.tier == Tier::Service && self.name.as_str() == NODE_SERVICE
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.tier, self.name))
    }
}

impl FromStr for ServiceId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (tier, name) = text.split_once('/').ok_or_else(|| {
            InvalidName::new("service", text, "it is written TIER/NAME, as api/mobile")
        })?;
        Ok(Self {
            tier: tier.parse()?,
            name: name.parse()?,
        })
    }
}

impl TryFrom<String> for ServiceId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> String {
        id.to_string()
    }
}

/// A semantic version, as `1.4.2` or `2.0.0-rc.1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(semver::Version);

impl TryFrom<String> for Version {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl FromStr for Version {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "it is a semantic version, as 1.4.2 or 2.0.0-rc.1, of at most 64 characters";
        if text.len() > 64 {
            return Err(InvalidName::new("version", text, rule));
        }
        semver::Version::parse(text)
            .map(Self)
            .map_err(|_| InvalidName::new("version", text, rule))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

pub(crate) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && has_label_form(text)
}

fn has_label_form(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_dns_labels() {
        for good in ["a", "mobile", "demo-upstream", "v2", &"a".repeat(63)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Mobile",
            "a.b",
            "a/b",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_cannot_forge_a_log_line() {
        let error = "x\nERROR all is lost".parse::<ServiceName>().unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn generated_ids_parse_and_differ() {
        let service: ServiceName = "mobile".parse().unwrap();
        let (one, two) = (
            InstanceId::generate(&service),
            InstanceId::generate(&service),
        );
        assert_ne!(one, two);
        assert_eq!(one.as_str().parse::<InstanceId>().unwrap(), one);
        assert!(one.as_str().starts_with("mobile-"));
    }

    #[test]
    fn service_ids_round_trip() {
        let id: ServiceId = "api/mobile".parse().unwrap();
        assert_eq!((id.tier, id.name.as_str()), (Tier::Api, "mobile"));
        assert_eq!(id.to_string(), "api/mobile");
        assert!(
            "mobile"
                .parse::<ServiceId>()
                .unwrap_err()
                .to_string()
                .contains("TIER/NAME")
        );
    }

    #[test]
    fn versions_are_semantic() {
        assert_eq!(
            "1.2.3-rc.1+b5".parse::<Version>().unwrap().to_string(),
            "1.2.3-rc.1+b5"
        );
        assert!("1.2".parse::<Version>().is_err());
        assert!("1.10.0".parse::<Version>().unwrap() > "1.9.0".parse::<Version>().unwrap());
    }
}
