//! Where each value of a configuration comes from.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::configuration::merge::merge;

/// The values of a document by their places: JSON pointers to what is no object, or an empty one.
pub(crate) type Places = BTreeMap<String, Value>;

/// What there is to say of one place of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explained {
    /// The value, and the layer that set it; without a value, the layer that took it away. A layer
    /// is told by its place among those that were merged.
    pub(crate) won: Said,
    /// What lower layers had said, the lowest first.
    pub(crate) lost: Vec<Said>,
}

/// What one layer made of a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) layer: usize,
    pub(crate) value: Option<Value>,
}

/// Merges layers, the lowest first, and tells for each place what decided it. The places with a
/// value are exactly those of what is merged.
pub(crate) fn explain<'a>(
    layers: impl IntoIterator<Item = &'a Value>,
) -> BTreeMap<String, Explained> {
    let mut story: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    let mut merged = Value::Object(Map::new());
    let mut before = Places::new();
    for (layer, patch) in layers.into_iter().enumerate() {
        merge(&mut merged, patch);
        let after = places(&merged);
        for (pointer, value) in said(&before, &after, &places(patch)) {
            let said = Said { layer, value };
            story.entry(pointer).or_default().push(said);
        }
        before = after;
    }
    story.into_iter().filter_map(told).collect()
}

fn told((pointer, mut lost): (String, Vec<Said>)) -> Option<(String, Explained)> {
    let won = lost.pop()?;
    Some((pointer, Explained { won, lost }))
}

/// What a layer made of the places that it touched: it set what it names, changed or not, and what
/// is new; it took away what is not there any more.
fn said(before: &Places, after: &Places, patch: &Places) -> Vec<(String, Option<Value>)> {
    let set = after.iter().filter(|(pointer, value)| {
        patch.contains_key(*pointer) || before.get(*pointer) != Some(*value)
    });
    let removed = before
        .keys()
        .filter(|pointer| !after.contains_key(*pointer));
    set.map(|(pointer, value)| (pointer.clone(), Some(value.clone())))
        .chain(removed.map(|pointer| (pointer.clone(), None)))
        .collect()
}

/// The places of a document, without its root.
pub(crate) fn places(document: &Value) -> Places {
    let mut places = Places::new();
    collect(document, &mut String::new(), &mut places);
    places
}

fn collect(value: &Value, pointer: &mut String, places: &mut Places) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let length = pointer.len();
                push_key(pointer, key);
                collect(value, pointer, places);
                pointer.truncate(length);
            }
        }
        _ if pointer.is_empty() => {}
        _ => {
            places.insert(pointer.clone(), value.clone());
        }
    }
}

/// Adds a key to a JSON pointer.
pub(crate) fn push_key(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::configuration::merge::merge_all;
    use crate::configuration::merge::tests::any_object;

    #[test]
    fn the_layer_of_each_value_is_named_and_who_lost() {
        let layers = [
            json!({"timeout": 5, "theme": {"dark": false, "size": 1}, "beta": true}),
            json!({"timeout": 8, "theme": {"size": 2}}),
            json!({"timeout": 8, "beta": null, "theme": "plain"}),
        ];
        let explained = explain(&layers);
        let said = |layer, value: Value| Said {
            layer,
            value: Some(value).filter(|value| !value.is_null()),
        };
        assert_eq!(
            explained["/timeout"],
            Explained {
                won: said(2, json!(8)),
                lost: vec![said(0, json!(5)), said(1, json!(8))],
            }
        );
        assert_eq!(explained["/beta"].won, said(2, Value::Null), "removed");
        assert_eq!(explained["/beta"].lost, [said(0, json!(true))]);
        assert_eq!(explained["/theme"].won, said(2, json!("plain")));
        assert_eq!(explained["/theme/size"].won, said(2, Value::Null));
        assert_eq!(
            explained["/theme/size"].lost,
            [said(0, json!(1)), said(1, json!(2))]
        );
        assert_eq!(explained.len(), 5);
    }

    #[test]
    fn an_object_that_lost_all_its_keys_is_a_value_of_who_emptied_it() {
        let explained = explain(&[json!({"a": {"b": 1}}), json!({"a": {"b": null}})]);
        assert_eq!(explained["/a"].won.layer, 1);
        assert_eq!(explained["/a"].won.value, Some(json!({})));
    }

    proptest! {
        #[test]
        fn what_is_explained_is_what_is_merged(
            layers in proptest::collection::vec(any_object(), 0..5),
        ) {
            let merged = places(&merge_all(&layers));
            let explained = explain(&layers);
            let values: Places = explained
                .iter()
                .filter_map(|(pointer, one)| Some((pointer.clone(), one.won.value.clone()?)))
                .collect();
            prop_assert_eq!(&values, &merged);
            for (pointer, one) in &explained {
                let layers = one.lost.iter().map(|said| said.layer).chain([one.won.layer]);
                prop_assert!(layers.is_sorted_by(|lower, higher| lower < higher), "{}", pointer);
            }
        }

        #[test]
        fn a_value_stands_in_the_layer_that_is_named(
            layers in proptest::collection::vec(any_object(), 1..5),
        ) {
            for (pointer, one) in explain(&layers) {
                let Some(value) = &one.won.value else { continue };
                let own = layers[one.won.layer].pointer(&pointer);
                let was_emptied = value == &json!({});
                prop_assert!(was_emptied || own == Some(value), "{}", pointer);
                let above = &layers[one.won.layer + 1..];
                let is_silent = |layer: &Value| {
                    was_emptied || layer.pointer(&pointer).is_none_or(Value::is_object)
                };
                prop_assert!(above.iter().all(is_silent));
            }
        }
    }
}
