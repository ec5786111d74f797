//! The menu: the calls that an app makes, versioned as the configuration is: layers over what is
//! built in.

use hydrant_flags::{Context, Mistake};
use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::configuration::Configuration;
use crate::configuration::layer::{Layer, When};
use crate::configuration::schema::Schema;
use crate::documents::Kind;

const CALLS: &str = include_str!("menu.json");
const SCHEMA: &str = include_str!("menu.schema.json");

/// The menus of one revision.
#[derive(Debug)]
pub(crate) struct Menu(Configuration);

impl Menu {
    /// Compiles the documents `menu/…`.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let schema = Schema::built_in(&json(SCHEMA));
        Configuration::compile_layers(bundle, Kind::Menu, vec![built_in()], schema).map(Self)
    }

    /// The menu of who asks, as JSON: their own platform, version and locale in its URLs.
    pub(crate) fn json_for(&self, context: &Context<'_>) -> String {
        let merged = self.0.merged_for(context);
        let text = |name: &str| context.attributes.get(name).and_then(Value::as_str);
        let names = ["platform", "version", "locale"];
        names
            .into_iter()
            .fold(merged.json.to_string(), |menu, name| {
                let value = in_query(text(name).unwrap_or_default());
                menu.replace(&format!("{{{name}}}"), &value)
            })
    }
}

/// A text as a value of a query, which it can't leave.
fn in_query(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut value, byte| {
        match byte {
            b'-' | b'.' | b'_' | b'~' => value.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => value.push(char::from(byte)),
            _ => drop(write!(value, "%{byte:02X}")),
        }
        value
    })
}

impl Default for Menu {
    fn default() -> Self {
        Self::compile(&Bundle::default()).unwrap_or_else(|_| Self(Configuration::default()))
    }
}

/// What there is before anybody changes it: the lowest layer, for all.
fn built_in() -> Layer {
    Layer {
        document: String::new(),
        name: "built in".into(),
        when: When::default(),
        values: json(CALLS),
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::Object(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn menu(documents: &[(&str, Value)]) -> Result<Menu, Vec<Mistake>> {
        let mut bundle = Bundle::default();
        let all = bundle.documents.entry(Kind::Menu).or_default();
        let texts = documents
            .iter()
            .map(|(name, body)| ((*name).to_owned(), body.to_string()));
        all.extend(texts);
        Menu::compile(&bundle)
    }

    fn calls(menu: &Menu, version: &str) -> Value {
        let attributes = json!({"platform": "ios", "version": version, "locale": "en-US"});
        let context = Context {
            targeting_key: None,
            attributes: attributes.as_object().unwrap(),
            now_unix: 0,
        };
        let menu: Value = serde_json::from_str(&menu.json_for(&context)).unwrap();
        menu["calls"].clone()
    }

    #[test]
    fn what_is_built_in_names_the_app_in_its_urls() {
        let calls = calls(&Menu::default(), "7.2.1+b");
        assert_eq!(
            calls["init"]["url"],
            "/api/mobile/v1/init?platform=ios&version=7.2.1%2Bb&locale=en-US"
        );
        assert_eq!(calls.as_object().unwrap().len(), 4);
    }

    #[test]
    fn a_version_has_its_own_calls() {
        let old = json!({
            "when": {"version": "<7.0.0"},
            "values": {"calls": {"changes": null, "init": {"cacheSeconds": 60}}},
        });
        let menu = menu(&[("old", old)]).unwrap();
        assert!(calls(&menu, "7.0.0")["changes"].is_object());
        let old = calls(&menu, "6.9.0");
        assert!(old.get("changes").is_none());
        assert_eq!(old["init"]["cacheSeconds"], 60);
        assert_eq!(old["init"]["method"], "GET");
    }

    #[test]
    fn a_call_that_lacks_something_is_refused() {
        let half = json!({"values": {"calls": {"stores": {"url": "/api/stores/v1/near"}}}});
        let mistakes = menu(&[("stores", half)]).unwrap_err();
        assert_eq!(mistakes[0].document, "menu/stores");
        assert_eq!(mistakes[0].pointer, "/values/calls/stores");
        let wrong = json!({"values": {"calls": {"init": {"url": "javascript:alert(1)"}}}});
        assert!(menu(&[("wrong", wrong)]).is_err());
    }
}
