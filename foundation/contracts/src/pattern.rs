use std::convert::Infallible;
use std::str::FromStr;

use crate::name::ServiceId;

/// Which services or instances a person means: `mobile`, `api/*`, `mobile-*`, empty for all.
///
/// `*` stands for any run of characters. A pattern without a slash is compared with the service's
/// name and the instance's id, one with a slash with `tier/service`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether the pattern means this service, or this instance of it.
    pub fn matches(&self, service: &ServiceId, instance: &str) -> bool {
        self.matches_service(service) || (!self.0.contains('/') && glob(&self.0, instance))
    }

    /// Whether the pattern means this service.
    pub fn matches_service(&self, service: &ServiceId) -> bool {
        if self.0.is_empty() {
            true
        } else if self.0.contains('/') {
            glob(&self.0, &service.to_string())
        } else {
            glob(&self.0, service.name.as_str())
        }
    }
}

impl FromStr for Pattern {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

/// Compares with `*` as the only special character, in time linear in the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
        let service: ServiceId = "api/mobile".parse().unwrap();
        for (pattern, expected) in [
            ("", true),
            ("*", true),
            ("mobile", true),
            ("mob*", true),
            ("*bile", true),
            ("m*b*e", true),
            ("api/*", true),
            ("*/mobile", true),
            ("api/mobile", true),
            ("mobile-7f*", true),
            ("mobile-7f3a", true),
            ("mobil", false),
            ("service/*", false),
            ("api", false),
            ("mobile-8*", false),
            ("mobile*mobile", false),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(
                parsed.matches(&service, "mobile-7f3a"),
                expected,
                "{pattern}"
            );
        }
    }
}
