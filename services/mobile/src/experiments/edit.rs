//! Changes members of a document, and leaves the rest of its text as people wrote it.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an object in their order, each as its text.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// The text of a JSON object in which these members have these values, or are not there. The others
/// keep their order and their text.
///
/// # Errors
///
/// If the text is no JSON object.
pub fn set_members(
    text: &str,
    changes: &[(&str, Option<Value>)],
) -> Result<String, serde_json::Error> {
    let Members(old) = serde_json::from_str(text)?;
    let changed = |name: &str| changes.iter().find(|(changed, _)| *changed == name);
    let mut lines = Vec::new();
    for (name, value) in &old {
        match changed(name) {
            None => lines.push(line(name, value.get())),
            Some((_, Some(value))) => lines.push(line(name, &value.to_string())),
            Some((_, None)) => {}
        }
    }
    for (name, value) in changes {
        if let (Some(value), false) = (value, old.iter().any(|(old, _)| old == name)) {
            lines.push(line(name, &value.to_string()));
        }
    }
    match lines.is_empty() {
        true => Ok("{}".into()),
        false => Ok(format!("{{\n{}\n}}", lines.join(",\n"))),
    }
}

fn line(name: &str, value: &str) -> String {
    format!("  {}: {value}", Value::from(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rest_stays_as_it_was_written() {
        let text = "{\"z\": 1,   \"a\": {\n  \"b\": [1,\n 2]},\n\"state\":\"draft\"}";
        let running = set_members(text, &[("state", Some(json!("running")))]).unwrap();
        let expected =
            "{\n  \"z\": 1,\n  \"a\": {\n  \"b\": [1,\n 2]},\n  \"state\": \"running\"\n}";
        assert_eq!(running, expected);
        let again = set_members(&running, &[("state", Some(json!("running")))]).unwrap();
        assert_eq!(again, running);
        let other = set_members(text, &[("a", None), ("new", Some(json!({"x": 1})))]).unwrap();
        assert_eq!(
            other,
            "{\n  \"z\": 1,\n  \"state\": \"draft\",\n  \"new\": {\"x\":1}\n}"
        );
        assert_eq!(set_members("{\"a\": 1}", &[("a", None)]).unwrap(), "{}");
        assert!(set_members("[1]", &[]).is_err());
    }
}
