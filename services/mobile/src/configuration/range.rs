//! Ranges of app versions, as `>=7.2.0 <8.0.0`.

use std::cmp::Ordering;

use semver::{BuildMetadata, Version};

/// The most comparisons in one range.
const MAX_COMPARISONS: usize = 8;

/// Versions for which every comparison holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range(Vec<Comparison>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    bound: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// Longer ones first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 5] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
];

impl Range {
    /// Reads comparisons with spaces between them; `7.2` stands for `7.2.0`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let comparisons = text
            .split_ascii_whitespace()
            .map(Comparison::parse)
            .collect::<Result<Vec<_>, _>>()?;
        match comparisons.len() {
            0 => Err("a version range is not empty".into()),
            1..=MAX_COMPARISONS => Ok(Self(comparisons)),
            _ => Err(format!(
                "a version range has at most {MAX_COMPARISONS} comparisons"
            )),
        }
    }

    /// Whether a version is in it. Pre-releases stand where semantic versions order them:
    /// `8.0.0-beta` is below `8.0.0`.
    pub(crate) fn contains(&self, version: &Version) -> bool {
        self.holds_where(|bound| version.cmp_precedence(bound))
    }

    /// Whether it holds at a place that compares so with each of its bounds.
    pub(crate) fn holds_where(&self, compare: impl Fn(&Version) -> Ordering) -> bool {
        let holds = |one: &Comparison| one.operator.holds(compare(&one.bound));
        self.0.iter().all(holds)
    }

    /// The versions at which it may begin or end.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = &Version> {
        self.0.iter().map(|comparison| &comparison.bound)
    }
}

impl Comparison {
    fn parse(text: &str) -> Result<Self, String> {
        let known = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)));
        let (operator, version) = known.unwrap_or((Operator::Equal, text));
        let bound = padded(version)
            .ok_or_else(|| format!("`{}` is no comparison with a version", text.escape_debug()))?;
        Ok(Self { operator, bound })
    }
}

/// A version whose minor number and patch may be missing.
fn padded(text: &str) -> Option<Version> {
    let padded = match text.bytes().filter(|byte| *byte == b'.').count() {
        0 => format!("{text}.0.0"),
        1 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    let mut version = Version::parse(&padded).ok()?;
    version.build = BuildMetadata::EMPTY;
    Some(version)
}

impl Operator {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Equal => ordering.is_eq(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Greater => ordering.is_gt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(range: &str, version: &str) -> bool {
        let range = Range::parse(range).unwrap();
        range.contains(&version.parse().unwrap())
    }

    #[test]
    fn a_range_holds_where_all_its_comparisons_do() {
        for (range, version, expected) in [
            (">=7.2.0 <8.0.0", "7.2.0", true),
            (">=7.2.0 <8.0.0", "7.99.3", true),
            (">=7.2.0 <8.0.0", "8.0.0", false),
            (">=7.2.0 <8.0.0", "8.0.0-beta", true),
            (">=7.2.0", "7.2.0-rc.1", false),
            (">=7.2  <8", "7.2.0", true),
            ("7.2.1", "7.2.1", true),
            ("=7.2.1", "7.2.1+build.5", true),
            (">7.2.1", "7.2.1", false),
            ("<=7.2.1", "7.2.1", true),
        ] {
            assert_eq!(has(range, version), expected, "{version} in {range}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "", "  ", ">=", "seven", ">= 7.2.0", ">=7.2.x", "~7.2", "7..2",
        ] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
        assert!(Range::parse(&">1.0.0 ".repeat(9)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[<>=0-9a-z. +-]{0,30}") {
            let _ = Range::parse(&text);
        }
    }
}
