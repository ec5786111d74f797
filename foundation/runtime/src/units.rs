use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A quantity that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: write {example}")]
pub struct InvalidUnit {
    text: String,
    kind: &'static str,
    example: &'static str,
}

/// A time with its unit, as `500ms`, `30s`, `5m`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Duration(std::time::Duration);

impl Duration {
    /// A time of `duration`.
    pub const fn new(duration: std::time::Duration) -> Self {
        Self(duration)
    }

    /// The time as the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        parse(text, UNITS)
            .map(|ms| Self(std::time::Duration::from_millis(ms)))
            .ok_or_else(|| InvalidUnit {
                text: text.into(),
                kind: "duration",
                example: "a whole number and one of ms, s, m, h, as 500ms or 30s",
            })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (number, unit) = match ms {
            0 => (0, "s"),
            _ if ms.is_multiple_of(3_600_000) => (ms / 3_600_000, "h"),
            _ if ms.is_multiple_of(60_000) => (ms / 60_000, "m"),
            _ if ms.is_multiple_of(1000) => (ms / 1000, "s"),
            _ => (ms, "ms"),
        };
        f.pad(&format!("{number}{unit}"))
    }
}

/// A size in bytes with its unit, as `64KB`, `512MB`, `1GB`: powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of `bytes`.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        const UNITS: &[(&str, u64)] = &[
            ("KB", 1 << 10),
            ("MB", 1 << 20),
            ("GB", 1 << 30),
            ("TB", 1 << 40),
            ("B", 1),
        ];
        parse(text, UNITS).map(Self).ok_or_else(|| InvalidUnit {
            text: text.into(),
            kind: "size",
            example: "a whole number and one of B, KB, MB, GB, as 512MB",
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB"), (0, "B")];
        let fits = |shift: u32| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift);
        let (shift, unit) = units
            .into_iter()
            .find(|(shift, _)| fits(*shift))
            .unwrap_or((0, "B"));
        f.pad(&format!("{}{unit}", self.0 >> shift))
    }
}

/// A whole number followed by one of `units`; longer units come before those they end in.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))?;
    let digits_only = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits_only
        .then(|| number.parse::<u64>().ok()?.checked_mul(factor))
        .flatten()
}

/// Takes a bare number too, so that one without a unit is refused with the mend.
struct Quantity;

impl Visitor<'_> for Quantity {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with a unit, in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidUnit;

            fn try_from(text: String) -> Result<Self, InvalidUnit> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = from.deserialize_any(Quantity)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_text!(Duration);
as_text!(ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_need_a_unit() {
        for text in ["500ms", "30s", "5m", "2h"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        for text in ["1B", "64KB", "512MB", "3GB", "1TB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 sec",
            "99999999999999999999s",
        ] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(
            "30".parse::<Duration>().unwrap_err().to_string(),
            "`30` is not a duration: write a whole number and one of ms, s, m, h, as 500ms or 30s"
        );
    }
}
