use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::{InvalidName, ServiceId};

/// The longest path that is parsed as an endpoint, in bytes.
const MAX_PATH: usize = 2048;

/// What a caller addresses: `/{tier}/{service}/{path…}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The service that is addressed.
    pub service: ServiceId,
    /// The rest of the path, without a leading slash; may be empty.
    pub path: Arc<str>,
}

impl Endpoint {
    /// The method that the path names, when it has the form of one.
    pub fn method(&self) -> Option<MethodPath> {
        self.path.parse().ok()
    }
}

impl FromStr for Endpoint {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refuse = |rule| InvalidName::new("endpoint", text, rule);
        if text.len() > MAX_PATH {
            return Err(refuse("it has at most 2048 bytes"));
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'))
        {
            return Err(refuse(
                "it has visible ASCII characters only, without '?' and '#'",
            ));
        }
        let form = "it is written /TIER/SERVICE/PATH, as /api/mobile/v1/init";
        let rest = text.strip_prefix('/').ok_or_else(|| refuse(form))?;
        let mut parts = rest.splitn(3, '/');
        let (tier, name) = (
            parts.next().unwrap_or(""),
            parts.next().ok_or_else(|| refuse(form))?,
        );
        let service = ServiceId::new(tier.parse()?, name.parse()?);
        Ok(Self {
            service,
            path: parts.next().unwrap_or("").into(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.service, self.path)
    }
}

/// A Protobuf method as it stands in a path: `package.Service/Method`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodPath(Arc<str>);

impl MethodPath {
    /// The path, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `package.Service`.
    pub fn service(&self) -> &str {
        self.0.split_once('/').map_or("", |(service, _)| service)
    }
}

impl FromStr for MethodPath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let identifier = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let valid = text.len() <= 512
            && text.split_once('/').is_some_and(|(service, method)| {
                service.split('.').all(identifier) && identifier(method)
            });
        if !valid {
            let rule = "it is written package.Service/Method, of at most 512 characters";
            return Err(InvalidName::new("method", text, rule));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for MethodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endpoints_split_into_service_and_path() {
        let endpoint: Endpoint = "/api/mobile/v1/init".parse().unwrap();
        assert_eq!(endpoint.service.to_string(), "api/mobile");
        assert_eq!(&*endpoint.path, "v1/init");
        assert_eq!(&*"/service/greeter".parse::<Endpoint>().unwrap().path, "");
        assert_eq!(
            "/service/greeter/greet.v1.Greet/Hello"
                .parse::<Endpoint>()
                .unwrap()
                .method(),
            Some("greet.v1.Greet/Hello".parse().unwrap())
        );
    }

    #[test]
    fn broken_endpoints_say_what_is_wrong() {
        for (text, part) in [
            ("", "/TIER/SERVICE/PATH"),
            ("/", "/TIER/SERVICE/PATH"),
            ("/api", "/TIER/SERVICE/PATH"),
            ("api/mobile/", "/TIER/SERVICE/PATH"),
            ("/data/mobile/", "not a tier"),
            ("/api/Mobile/", "not a service name"),
            ("/api/mobile/a b", "visible ASCII"),
            ("/api/mobile/a?b", "visible ASCII"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn methods_have_a_service_and_a_name() {
        let path: MethodPath = "hydrant.v1.Registry/Register".parse().unwrap();
        assert_eq!(path.service(), "hydrant.v1.Registry");
        for bad in [
            "",
            "a",
            "a/",
            "/b",
            "a.b/c/d",
            "a..b/c",
            "1a/b",
            "a/b c",
            "v1/init.json",
        ] {
            assert!(bad.parse::<MethodPath>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = text.parse::<Endpoint>();
            let _ = text.parse::<MethodPath>();
        }

        #[test]
        fn what_parses_prints_itself(tier in 0usize..3, name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", path in "[!-~&&[^?#]]{0,60}") {
            let text = format!("/{}/{name}/{path}", crate::Tier::ALL[tier]);
            let endpoint: Endpoint = text.parse().unwrap();
            prop_assert_eq!(endpoint.to_string(), text);
        }
    }
}
