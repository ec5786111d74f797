//! What differs between two texts of a document, place by place.

use serde_json::Value;

use crate::proto;
use crate::service::store::Changed;

/// The most places of one document that are told.
const MAX_CHANGES: usize = 500;
/// The longest value that is told, in bytes of JSON.
const MAX_VALUE: usize = 4096;

/// What differs at one place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At {
    /// A JSON pointer.
    pub(crate) pointer: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// All places at which two values differ, from top to bottom. Objects and arrays that stand on both
/// sides are looked into.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<At> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(
    pointer: &mut String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<At>,
) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (name, value) in old {
                inside(pointer, &escape(name), Some(value), new.get(name), found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                inside(pointer, &escape(name), None, Some(value), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                inside(pointer, &at.to_string(), old.get(at), new.get(at), found);
            }
        }
        _ if before == after => {}
        _ => found.push(At {
            pointer: pointer.clone(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn inside(
    pointer: &mut String,
    token: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<At>,
) {
    let end = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    compare(pointer, before, after, found);
    pointer.truncate(end);
}

/// A name as it stands in a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What differs in one document, as it is told: values that are long, and places that are many, are
/// left out.
pub(crate) fn told(changed: &Changed) -> proto::Difference {
    let (what, places) = match (&changed.before, &changed.after) {
        (None, Some(_)) => ("added", Vec::new()),
        (Some(_), None) => ("removed", Vec::new()),
        (Some(before), Some(after)) => ("changed", differences_of(before, after)),
        (None, None) => ("changed", Vec::new()),
    };
    let left_out = places.len().saturating_sub(MAX_CHANGES);
    proto::Difference {
        id: proto::DocumentId::from(&changed.id).into(),
        what: what.into(),
        changes: places.iter().take(MAX_CHANGES).map(told_at).collect(),
        left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        ..Default::default()
    }
}

fn differences_of(before: &str, after: &str) -> Vec<At> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    differences(&read(before), &read(after))
}

fn told_at(at: &At) -> proto::ValueChange {
    let values = [&at.before, &at.after].map(|value| value.as_ref().map(Value::to_string));
    let is_long =
        |value: &Option<String>| value.as_ref().is_some_and(|text| text.len() > MAX_VALUE);
    let shortened = values.iter().any(is_long);
    let [before, after] = values.map(|value| value.map(shorten));
    proto::ValueChange {
        pointer: at.pointer.clone(),
        before,
        after,
        shortened,
        ..Default::default()
    }
}

fn shorten(text: String) -> String {
    if text.len() <= MAX_VALUE {
        return text;
    }
    Value::from(format!("({} bytes of JSON)", text.len())).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_told_from_top_to_bottom() {
        let before = json!({"a": 1, "b": {"x/y": [1, 2, 3]}, "c": null});
        let after = json!({"a": 1, "b": {"x/y": [1, 5]}, "d~": true});
        let found: Vec<_> = differences(&before, &after)
            .into_iter()
            .map(|at| (at.pointer, at.before, at.after))
            .collect();
        let expected = [
            ("/b/x~1y/1", Some(json!(2)), Some(json!(5))),
            ("/b/x~1y/2", Some(json!(3)), None),
            ("/c", Some(json!(null)), None),
            ("/d~0", None, Some(json!(true))),
        ];
        let expected = expected.map(|(at, before, after)| (at.to_owned(), before, after));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_long_is_not_told() {
        let at = At {
            pointer: "/x".into(),
            before: Some(json!("x".repeat(MAX_VALUE))),
            after: Some(json!(1)),
        };
        let told = told_at(&at);
        assert!(told.shortened);
        assert_eq!(told.before.as_deref(), Some("\"(4098 bytes of JSON)\""));
        assert_eq!(told.after.as_deref(), Some("1"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[ab~/]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab~/]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Does what a list of differences says.
    fn applied(mut value: Value, differences: &[At]) -> Value {
        for at in differences.iter().rev() {
            let Some((parent, token)) = at.pointer.rsplit_once('/') else {
                return at.after.clone().unwrap();
            };
            let token = token.replace("~1", "/").replace("~0", "~");
            match (value.pointer_mut(parent).unwrap(), &at.after) {
                (Value::Object(map), Some(after)) => drop(map.insert(token, after.clone())),
                (Value::Object(map), None) => drop(map.remove(&token)),
                (Value::Array(list), None) => drop(list.remove(token.parse().unwrap())),
                (Value::Array(list), Some(after)) => {
                    let at = token.parse::<usize>().unwrap();
                    match at < list.len() {
                        true => list[at] = after.clone(),
                        // From the end to the beginning: what is not there yet makes room.
                        false => {
                            list.resize(at + 1, Value::Null);
                            list[at] = after.clone();
                        }
                    }
                }
                (other, _) => panic!("{other} has no {token}"),
            }
        }
        value
    }

    proptest! {
        #[test]
        fn what_differs_makes_the_one_of_the_other(before in value(), after in value()) {
            let found = differences(&before, &after);
            prop_assert_eq!(found.is_empty(), before == after);
            prop_assert_eq!(applied(before, &found), after);
        }
    }
}
