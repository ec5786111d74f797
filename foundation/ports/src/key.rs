use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest key, in bytes.
const MAX_KEY: usize = 512;

/// A key: parts of visible characters, parted by `/`, with neither an empty part nor a slash at
/// either end, at most 512 bytes. Every engine can carry it as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A text that is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a key: it has parts of visible ASCII characters parted by '/', none of them empty, '.' or '..', and at most 512 bytes"
)]
pub struct InvalidKey(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let part_is_valid = |part: &str| {
            !matches!(part, "" | "." | "..") && part.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if text.len() > MAX_KEY || !text.split('/').all(part_is_valid) {
            return Err(InvalidKey(
                text.chars().take(80).flat_map(char::escape_debug).collect(),
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The beginning of keys; empty means all. It need not end at a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` begins with it.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }
}

impl FromStr for Prefix {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // What a key could begin with: a key, or one with its last slash.
        let key = text.strip_suffix('/').unwrap_or(text);
        key.parse::<Key>()?;
        if text.len() > MAX_KEY {
            return Err(InvalidKey(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_parts() {
        for good in ["a", "instances/api/mobile/mobile-1", "a.b/c_d/~"] {
            assert_eq!(good.parse::<Key>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            ".",
            "a b",
            "a\nb",
            &"a".repeat(513),
        ] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_need_not_end_at_a_slash() {
        let prefix: Prefix = "instances/ap".parse().unwrap();
        assert!(prefix.contains(&"instances/api/x".parse().unwrap()));
        assert!(
            "".parse::<Prefix>()
                .unwrap()
                .contains(&"x".parse().unwrap())
        );
        assert!("a/".parse::<Prefix>().is_ok());
        assert!("a//".parse::<Prefix>().is_err());
    }
}
