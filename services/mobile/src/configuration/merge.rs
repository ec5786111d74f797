//! JSON merge patch, RFC 7396.

use serde_json::{Map, Value};

/// Changes `target` as `patch` says: an object is merged key by key, `null` removes a key, and
/// anything else takes the place of what was there.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// All patches, one after the other, on an empty object.
pub(crate) fn merge_all<'a>(patches: impl IntoIterator<Item = &'a Value>) -> Value {
    let mut merged = Value::Object(Map::new());
    for patch in patches {
        merge(&mut merged, patch);
    }
    merged
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON, small.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0i64..9).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d~/]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// An object, as a layer has.
    pub(crate) fn any_object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d~/]", any_json(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    fn merged(target: &Value, patch: &Value) -> Value {
        let mut target = target.clone();
        merge(&mut target, patch);
        target
    }

    /// Whether an object somewhere has a key with the value `null`.
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.values().any(|value| value.is_null() || has_null(value)),
            _ => false,
        }
    }

    #[test]
    fn it_does_what_the_standards_examples_say() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            assert_eq!(merged(&target, &patch), expected, "{target} + {patch}");
        }
    }

    proptest! {
        #[test]
        fn the_same_patch_again_changes_nothing(target in any_json(), patch in any_json()) {
            let once = merged(&target, &patch);
            prop_assert_eq!(merged(&once, &patch), once);
        }

        #[test]
        fn an_empty_object_leaves_an_object_as_it_is(target in any_object()) {
            prop_assert_eq!(merged(&target, &json!({})), target);
        }

        #[test]
        fn nothing_is_removed_from_what_has_no_nulls(
            target in any_object(), patches in proptest::collection::vec(any_object(), 0..4),
        ) {
            let on_empty = merge_all(std::iter::once(&target).chain(&patches));
            prop_assert!(!has_null(&on_empty), "{on_empty}");
        }

        #[test]
        fn the_last_one_wins(target in any_object(), key in "[a-d]", value in 0i64..99) {
            let patch = json!({ &key: value });
            prop_assert_eq!(&merged(&target, &patch)[&key], &json!(value));
            let without = merged(&target, &json!({ &key: null }));
            prop_assert!(without.get(&key).is_none());
        }
    }
}
