//! Which layers can come together for one app.
//!
//! Each kind of condition splits apps into finitely many classes: the three platforms; the places
//! between and at the bounds of version ranges; for market, locale and store the names that layers
//! mention, and all others; for cohorts, which of them. A class decides which layers hold as far as
//! this kind is concerned, and a set of layers is reachable when it is what a class of each kind
//! leaves. Kinds are taken as independent of each other: that may count sets that no app has, but
//! never leaves one out.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use semver::Version;

use crate::api::parameters::PLATFORMS;
use crate::configuration::layer::{Layer, Names, When, is_of};
use crate::configuration::set::LayerSet;

/// All sets of layers that an app may get, or `None` when there are more than `limit`.
pub(crate) fn reachable(layers: &[Layer], limit: usize) -> Option<BTreeSet<LayerSet>> {
    let all: LayerSet = (0..layers.len()).collect();
    let mut sets = BTreeSet::from([all]);
    for classes in kinds(layers, limit)? {
        let pairs = sets
            .iter()
            .flat_map(|set| classes.iter().map(|class| set.and(*class)));
        let mut met = BTreeSet::new();
        for set in pairs {
            met.insert(set);
            if met.len() > limit {
                return None;
            }
        }
        sets = met;
    }
    Some(sets)
}

/// The classes of each kind of condition.
fn kinds(layers: &[Layer], limit: usize) -> Option<[BTreeSet<LayerSet>; 6]> {
    Some([
        platforms(layers),
        versions(layers),
        named(layers, |when| &when.market, str::eq_ignore_ascii_case),
        named(layers, |when| &when.locale, is_of),
        named(layers, |when| &when.store, |name, own| name == own),
        cohorts(layers, limit)?,
    ])
}

/// The layers that `holds` lets through.
fn class(layers: &[Layer], holds: impl Fn(&When) -> bool) -> LayerSet {
    let places = layers.iter().enumerate();
    places
        .filter(|(_, layer)| holds(&layer.when))
        .map(|(place, _)| place)
        .collect()
}

/// An app always says one of the platforms.
fn platforms(layers: &[Layer]) -> BTreeSet<LayerSet> {
    let one = |platform: &&str| {
        class(layers, |when| {
            let names = when.platform.as_ref();
            names.is_none_or(|names| names.iter().any(|name| name == *platform))
        })
    };
    PLATFORMS.iter().map(one).collect()
}

/// Below the lowest bound, at it, between it and the next, and so on.
fn versions(layers: &[Layer]) -> BTreeSet<LayerSet> {
    let ranges = layers
        .iter()
        .filter_map(|layer| layer.when.version.as_ref());
    let mut bounds: Vec<&Version> = ranges.flat_map(|range| range.bounds()).collect();
    bounds.sort_by(|one, other| one.cmp_precedence(other));
    bounds.dedup_by(|one, other| one.cmp_precedence(other).is_eq());
    let compare = |place: usize, bound: &Version| -> Ordering {
        let found = bounds.binary_search_by(|known| known.cmp_precedence(bound));
        place.cmp(&(2 * found.unwrap_or(0) + 1))
    };
    let one = |place: usize| {
        class(layers, |when| {
            let range = when.version.as_ref();
            range.is_none_or(|range| range.holds_where(|bound| compare(place, bound)))
        })
    };
    (0..=2 * bounds.len()).map(one).collect()
}

/// Each name that layers mention, and one that none does.
fn named<'a>(
    layers: &'a [Layer],
    of: impl Fn(&'a When) -> &'a Option<Names> + Copy,
    is: impl Fn(&str, &str) -> bool,
) -> BTreeSet<LayerSet> {
    let one = |own: Option<&str>| {
        let places = layers.iter().enumerate().filter(|(_, layer)| {
            let names = of(&layer.when).as_ref();
            names.is_none_or(|names| own.is_some_and(|own| names.iter().any(|name| is(name, own))))
        });
        places.map(|(place, _)| place).collect()
    };
    let names = mentioned(layers, of).into_iter().map(Some);
    names.chain([None]).map(one).collect()
}

/// Who asks may be in any of the cohorts, or in several: each adds the layers that name it.
fn cohorts(layers: &[Layer], limit: usize) -> Option<BTreeSet<LayerSet>> {
    let mut classes = BTreeSet::from([class(layers, |when| when.cohort.is_none())]);
    for cohort in mentioned(layers, |when| &when.cohort) {
        let of_it = class(layers, |when| {
            let names = when.cohort.as_ref();
            names.is_some_and(|names| names.iter().any(|name| name == cohort))
        });
        let inside: Vec<LayerSet> = classes.iter().map(|class| class.or(of_it)).collect();
        classes.extend(inside);
        if classes.len() > limit {
            return None;
        }
    }
    Some(classes)
}

fn mentioned<'a>(
    layers: &'a [Layer],
    of: impl Fn(&'a When) -> &'a Option<Names>,
) -> BTreeSet<&'a str> {
    let names = layers.iter().filter_map(|layer| of(&layer.when).as_ref());
    names.flat_map(Names::iter).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::configuration::layer::Subject;
    use crate::documents::Kind;

    fn layers(whens: &[serde_json::Value]) -> Vec<Layer> {
        let one = |(place, when): (usize, &serde_json::Value)| {
            let text = json!({ "when": when, "values": {} }).to_string();
            Layer::parse(Kind::Config, &format!("l{place}"), &text).unwrap()
        };
        whens.iter().enumerate().map(one).collect()
    }

    #[test]
    fn layers_that_exclude_each_other_never_come_together() {
        let layers = layers(&[
            json!({}),
            json!({"platform": "ios"}),
            json!({"platform": "android"}),
            json!({"version": "<7.0.0"}),
            json!({"version": ">=7.0.0"}),
            json!({"locale": "de"}),
            json!({"locale": "de-AT"}),
        ]);
        let sets = reachable(&layers, 1000).unwrap();
        assert_eq!(sets.len(), 3 * 2 * 3);
        for set in &sets {
            assert!(set.contains(0));
            assert!(!(set.contains(1) && set.contains(2)));
            assert!(set.contains(3) != set.contains(4));
            assert!(set.contains(5) || !set.contains(6), "de-AT is of de");
        }
    }

    #[test]
    fn too_many_are_not_counted() {
        let cohorts: Vec<_> = (0..12)
            .map(|n| json!({"cohort": format!("c{n}")}))
            .collect();
        assert_eq!(reachable(&layers(&cohorts), 4096).unwrap().len(), 4096);
        assert!(reachable(&layers(&cohorts), 4095).is_none());
    }

    /// Conditions of a layer, drawn from few names so that they meet.
    pub(crate) fn any_when() -> impl Strategy<Value = serde_json::Value> {
        let maybe = |pattern: &'static str| proptest::option::weighted(0.3, pattern);
        let version = proptest::option::weighted(0.4, "(>=|<|=|>|<=)[12]\\.[01]\\.0");
        let cohort = proptest::option::weighted(0.4, proptest::collection::vec("[x-z]", 1..3));
        (
            maybe("ios|android"),
            version,
            maybe("de|at"),
            maybe("de|de-AT|en"),
            maybe("s[12]"),
            cohort,
        )
            .prop_map(|(platform, version, market, locale, store, cohort)| {
                let all = json!({
                    "platform": platform, "version": version, "market": market,
                    "locale": locale, "store": store, "cohort": cohort,
                });
                let mut all = all.as_object().unwrap().clone();
                all.retain(|_, value| !value.is_null());
                all.into()
            })
    }

    proptest! {
        #[test]
        fn what_an_app_gets_is_always_among_them(
            whens in proptest::collection::vec(any_when(), 0..8),
            platform in "ios|android|web",
            version in "[0-3]\\.[0-2]\\.[01](-rc)?",
            market in proptest::option::of("de|at|ch"),
            locale in "de|de-AT|de-CH|en-US|fr",
            store in proptest::option::of("s[123]"),
            cohorts in proptest::collection::btree_set("[x-z]", 0..3),
        ) {
            let layers = layers(&whens);
            let version = version.parse().unwrap();
            let subject = Subject {
                platform: Some(&platform),
                version: Some(&version),
                market: market.as_deref(),
                locale: Some(&locale),
                store: store.as_deref(),
            };
            let in_cohort = |when: &When| when.cohort.as_ref().is_none_or(|names| {
                names.iter().any(|name| cohorts.contains(name))
            });
            let own = class(&layers, |when| when.holds(&subject) && in_cohort(when));
            prop_assert!(reachable(&layers, 100_000).unwrap().contains(&own));
        }
    }
}
