//! `sem_ver`: versions compared by semver.org, read as leniently as flagd's evaluators do.

use std::cmp::Ordering;

use semver::Version;

use super::budget::{Budget, Stop};
use super::node::Node;
use super::value::Val;

/// The comparison of two versions.
#[derive(Clone, Debug)]
pub(crate) struct SemVer {
    pub(crate) left: Node,
    pub(crate) test: Operand<Option<Test>>,
    pub(crate) right: Operand<Option<Version>>,
}

/// What is known when the expression is compiled, or is not.
#[derive(Clone, Debug)]
pub(crate) enum Operand<T> {
    Known(T),
    Computed(Node),
}

/// How two versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    SameMajor,
    SameMinor,
}

impl Test {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "^" => Self::SameMajor,
            "~" => Self::SameMinor,
            _ => return None,
        })
    }

    pub(crate) fn holds(self, left: &Version, right: &Version) -> bool {
        // Build metadata does not count.
        let order = left.cmp_precedence(right);
        match self {
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
            Self::SameMajor => left.major == right.major,
            Self::SameMinor => left.major == right.major && left.minor == right.minor,
        }
    }
}

/// Reads a version: `1.2.3-rc.1`, with a `v` in front, or short as `1` and `1.2`.
pub(crate) fn version(value: &Val<'_>, budget: &Budget) -> Result<Option<Version>, Stop> {
    Ok(parse(&value.to_text(budget)?))
}

/// The largest number that all evaluators have.
const MAX_NUMBER: u64 = (1 << 53) - 1;

pub(crate) fn parse(text: &str) -> Option<Version> {
    if text.len() > 256 {
        return None;
    }
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let version = Version::parse(text).ok().or_else(|| short(text))?;
    let numbers = [version.major, version.minor, version.patch];
    numbers
        .iter()
        .all(|number| *number <= MAX_NUMBER)
        .then_some(version)
}

/// `1` and `1.2`.
fn short(text: &str) -> Option<Version> {
    let mut numbers = text.split('.');
    let (major, minor) = (
        part(numbers.next()?)?,
        numbers.next().map_or(Some(0), part)?,
    );
    numbers
        .next()
        .is_none()
        .then(|| Version::new(major, minor, 0))
}

fn part(text: &str) -> Option<u64> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_leniently_but_not_wildly() {
        for (text, version) in [
            ("1.2.3", "1.2.3"),
            ("v1.2.3", "1.2.3"),
            ("V1.2.3-rc.1+b", "1.2.3-rc.1+b"),
            ("1", "1.0.0"),
            ("v1.2", "1.2.0"),
            ("0", "0.0.0"),
        ] {
            assert_eq!(
                parse(text).map(|it| it.to_string()).as_deref(),
                Some(version)
            );
        }
        for text in [
            "",
            "v",
            "vv1.0.0",
            "1.2.3.4",
            "01",
            "1.02",
            "1.",
            ".1",
            "a",
            "1-x",
            "9007199254740992",
            "+1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pre_release_comes_before_its_release_and_build_metadata_does_not_count() {
        let holds = |left, test, right| {
            Test::parse(test)
                .unwrap()
                .holds(&parse(left).unwrap(), &parse(right).unwrap())
        };
        assert!(holds("2.0.0-alpha", "<", "2.0.0"));
        assert!(holds("1.0.0+one", "=", "1.0.0+two"));
        assert!(holds("3.9.1", "^", "3.0.0") && !holds("3.9.1", "~", "3.0.0"));
        assert!(
            holds("0.2.0", "^", "0.1.0"),
            "flagd compares the major number alone"
        );
    }
}
