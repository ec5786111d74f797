//! A layer: values, and for whom they are.

use std::fmt;

use hydrant_flags::Mistake;
use semver::Version;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::parameters::PLATFORMS;
use crate::configuration::range::Range;
use crate::configuration::{parse, read};
use crate::documents::Kind;

/// The most names in one condition.
const MAX_NAMES: usize = 100;

/// Values for those for whom every condition holds.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The document, as `config/ios`.
    pub(crate) document: String,
    pub(crate) name: String,
    pub(crate) when: When,
    /// A merge patch: an object whose nulls remove.
    pub(crate) values: Value,
}

/// Conditions; of several names in one, any will do.
#[derive(Clone, Debug, Default)]
pub(crate) struct When {
    pub(crate) platform: Option<Names>,
    pub(crate) version: Option<Range>,
    pub(crate) market: Option<Names>,
    pub(crate) locale: Option<Names>,
    pub(crate) store: Option<Names>,
    pub(crate) cohort: Option<Names>,
    /// The same as it was written: JSON.
    pub(crate) written: Value,
}

/// One name or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names(Vec<String>);

/// What conditions are about, beside cohorts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) platform: Option<&'a str>,
    pub(crate) version: Option<&'a Version>,
    pub(crate) market: Option<&'a str>,
    pub(crate) locale: Option<&'a str>,
    pub(crate) store: Option<&'a str>,
}

/// The document, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    when: WhenText,
    values: serde_json::Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenText {
    platform: Option<Names>,
    version: Option<String>,
    market: Option<Names>,
    locale: Option<Names>,
    store: Option<Names>,
    cohort: Option<Names>,
}

impl Layer {
    /// Reads a document of a kind that has layers, as `config/{name}`.
    pub(crate) fn parse(kind: Kind, name: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let written = parse(text)?.get("when").cloned();
        let text: Text = read(kind, name, text)?;
        let written = written.unwrap_or_else(|| Value::Object(Default::default()));
        Ok(Self {
            document: format!("{kind}/{name}"),
            name: name.to_owned(),
            when: When::check(text.when, written).map_err(|mistake| vec![mistake])?,
            values: Value::Object(text.values),
        })
    }

    /// Where it stands in the order of merging, the lowest first: the level of its highest
    /// condition, how many conditions it has, how closely it names a locale, and its name.
    pub(crate) fn order(&self) -> (Level, usize, usize, &str) {
        let when = &self.when;
        let subtags = when.locale.as_ref().map_or(0, Names::most_subtags);
        (when.level(), when.count(), subtags, &self.name)
    }
}

/// The levels of layers; a higher one is merged later, and so wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Base,
    Platform,
    Version,
    Market,
    Store,
    Cohort,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Platform => "platform",
            Self::Version => "version",
            Self::Market => "market",
            Self::Store => "store",
            Self::Cohort => "cohort",
        }
    }
}

impl When {
    fn check(text: WhenText, written: Value) -> Result<Self, Mistake> {
        let names = |names: &Option<Names>, key: &str| match names {
            Some(names) => names.check(key),
            None => Ok(()),
        };
        names(&text.platform, "platform")?;
        names(&text.market, "market")?;
        names(&text.locale, "locale")?;
        names(&text.store, "store")?;
        names(&text.cohort, "cohort")?;
        if let Some(platform) = &text.platform {
            known_platforms(platform)?;
        }
        let range = text.version.as_deref().map(Range::parse).transpose();
        let version = range.map_err(|error| {
            Mistake::at("/when/version", error).mend("write it as \">=7.2.0 <8.0.0\"")
        })?;
        Ok(Self {
            platform: text.platform,
            version,
            market: text.market,
            locale: text.locale,
            store: text.store,
            cohort: text.cohort,
            written,
        })
    }

    pub(crate) fn level(&self) -> Level {
        let has = [
            (self.cohort.is_some(), Level::Cohort),
            (self.store.is_some(), Level::Store),
            (
                self.market.is_some() || self.locale.is_some(),
                Level::Market,
            ),
            (self.version.is_some(), Level::Version),
            (self.platform.is_some(), Level::Platform),
        ];
        let highest = has.into_iter().find(|(is_there, _)| *is_there);
        highest.map_or(Level::Base, |(_, level)| level)
    }

    /// Whether it has no conditions.
    pub(crate) fn is_for_all(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        let names = [
            &self.platform,
            &self.market,
            &self.locale,
            &self.store,
            &self.cohort,
        ];
        names.into_iter().flatten().count() + usize::from(self.version.is_some())
    }

    /// Whether all conditions but that of a cohort hold. What is not known holds for none.
    pub(crate) fn holds(&self, subject: &Subject<'_>) -> bool {
        let same = |names: &Option<Names>, own: Option<&str>| match names {
            Some(names) => own.is_some_and(|own| names.has(own)),
            None => true,
        };
        same(&self.platform, subject.platform)
            && same(&self.store, subject.store)
            && holds_for(&self.market, subject.market, str::eq_ignore_ascii_case)
            && holds_for(&self.locale, subject.locale, is_of)
            && self.version.as_ref().is_none_or(|range| {
                subject
                    .version
                    .is_some_and(|version| range.contains(version))
            })
    }
}

fn holds_for(names: &Option<Names>, own: Option<&str>, is: impl Fn(&str, &str) -> bool) -> bool {
    match names {
        Some(names) => own.is_some_and(|own| names.iter().any(|name| is(name, own))),
        None => true,
    }
}

/// Whether a locale is `range`, or one of its kind: `de-AT` is of `de` (RFC 4647, basic filtering).
pub(crate) fn is_of(range: &str, locale: &str) -> bool {
    let Some((begin, rest)) = locale.split_at_checked(range.len()) else {
        return false;
    };
    begin.eq_ignore_ascii_case(range) && (rest.is_empty() || rest.starts_with('-'))
}

fn known_platforms(names: &Names) -> Result<(), Mistake> {
    match names.iter().find(|name| !PLATFORMS.contains(name)) {
        Some(name) => Err(Mistake::at(
            "/when/platform",
            format!("there is no platform `{}`", name.escape_debug()),
        )
        .mend(format!("name one of {}", PLATFORMS.join(", ")))),
        None => Ok(()),
    }
}

impl Names {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    fn check(&self, key: &str) -> Result<(), Mistake> {
        let wrong = |what: &str| Err(Mistake::at(format!("/when/{key}"), what));
        match self.0.len() {
            0 => wrong("the list is empty, so the layer would be for nobody"),
            1..=MAX_NAMES if self.0.iter().any(String::is_empty) => wrong("a name is empty"),
            1..=MAX_NAMES => Ok(()),
            _ => wrong(&format!("the list has more than {MAX_NAMES} names")),
        }
    }

    fn most_subtags(&self) -> usize {
        let subtags = |name: &String| name.split('-').count();
        self.0.iter().map(subtags).max().unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Names, E> {
        Ok(Names(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = sequence.next_element()? {
            names.push(name);
        }
        Ok(Names(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, when: &str) -> Layer {
        Layer::parse(
            Kind::Config,
            name,
            &format!(r#"{{"when": {when}, "values": {{}}}}"#),
        )
        .unwrap()
    }

    #[test]
    fn layers_are_ordered_by_level_then_conditions_then_locale_then_name() {
        let expected = [
            ("a", "{}"),
            ("z", "{}"),
            ("ios", r#"{"platform": "ios"}"#),
            ("old", r#"{"version": "<7"}"#),
            ("a-old-ios", r#"{"platform": "ios", "version": "<7"}"#),
            ("z-de", r#"{"locale": "de"}"#),
            ("germany", r#"{"market": "de"}"#),
            ("a-de-at", r#"{"locale": "de-AT"}"#),
            ("a-both", r#"{"locale": "de", "market": "at"}"#),
            ("store", r#"{"store": "12"}"#),
            ("cohort", r#"{"cohort": "staff"}"#),
        ]
        .map(|(name, when)| layer(name, when));
        let mut layers = expected.clone();
        layers.reverse();
        layers.sort_by(|one, other| one.order().cmp(&other.order()));
        let names = |layers: &[Layer]| -> Vec<String> {
            layers.iter().map(|layer| layer.name.clone()).collect()
        };
        // By its locale `germany` has no subtag, so it stands before `z-de`.
        let mut expected = names(&expected);
        expected.swap(5, 6);
        assert_eq!(names(&layers), expected);
    }

    #[test]
    fn a_condition_holds_for_what_it_names_and_not_for_what_is_unknown() {
        let version: Version = "7.2.1".parse().unwrap();
        let subject = Subject {
            platform: Some("ios"),
            version: Some(&version),
            market: Some("AT"),
            locale: Some("de-AT"),
            store: Some("s12"),
        };
        for (when, expected) in [
            ("{}", true),
            (r#"{"platform": "ios"}"#, true),
            (r#"{"platform": ["android", "ios"]}"#, true),
            (r#"{"platform": "android"}"#, false),
            (r#"{"market": "at"}"#, true),
            (r#"{"locale": "de"}"#, true),
            (r#"{"locale": "DE-at"}"#, true),
            (r#"{"locale": "de-A"}"#, false),
            (r#"{"locale": "de-AT-1996"}"#, false),
            (r#"{"store": "S12"}"#, false),
            (r#"{"version": ">=7.2 <8", "store": "s12"}"#, true),
            (r#"{"version": ">=8", "store": "s12"}"#, false),
        ] {
            let layer = layer("a", when);
            assert_eq!(layer.when.holds(&subject), expected, "{when}");
            let unknown = layer.when.holds(&Subject::default());
            assert_eq!(unknown, when == "{}", "{when}");
        }
    }

    #[test]
    fn mistakes_in_a_layer_are_pointed_at() {
        for (text, pointer) in [
            (
                r#"{"when": {"platform": "symbian"}, "values": {}}"#,
                "/when/platform",
            ),
            (
                r#"{"when": {"version": "new"}, "values": {}}"#,
                "/when/version",
            ),
            (r#"{"when": {"market": []}, "values": {}}"#, "/when/market"),
            (r#"{"when": {"store": [""]}, "values": {}}"#, "/when/store"),
        ] {
            assert_eq!(
                Layer::parse(Kind::Config, "a", text).unwrap_err()[0].pointer,
                pointer,
                "{text}"
            );
        }
        for text in [
            r#"{"values": []}"#,
            "{}",
            r#"{"when": {"plattform": "ios"}, "values": {}}"#,
            "{\n\"values\": {}, \"value\": 1}",
            r#"{"when": {"platform": 7}, "values": {}}"#,
        ] {
            assert!(
                Layer::parse(Kind::Config, "a", text).unwrap_err()[0].line > 0,
                "{text}"
            );
        }
    }
}
