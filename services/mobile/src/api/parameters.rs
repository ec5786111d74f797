//! What an app says of itself, in the query of a GET or the JSON of a POST.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use hydrant_flags::Context;
use hydrant_sdk::{Code, Error, Version};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The platforms that an app may have.
pub(crate) const PLATFORMS: [&str; 3] = ["android", "ios", "web"];

/// The most attributes that are taken.
const MAX_ATTRIBUTES: usize = 100;
/// The longest name of an attribute or a slot, in bytes.
const MAX_NAME: usize = 100;
/// The longest text of an attribute in a query, in bytes.
const MAX_TEXT: usize = 2048;
/// The most slots that are asked for at once.
const MAX_SLOTS: usize = 50;

/// What an app says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) platform: &'static str,
    pub(crate) version: Version,
    pub(crate) locale: String,
    /// The slots whose content it wants, in its order.
    pub(crate) slots: Vec<String>,
    /// How long it waits.
    pub(crate) deadline: Option<Duration>,
    /// All that it says, the above (but slots and deadline) among it: what rules look at.
    attributes: Map<String, Value>,
}

/// The JSON of a POST.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    context: Map<String, Value>,
    #[serde(default)]
    slots: Vec<String>,
    deadline_ms: Option<u64>,
}

impl Parameters {
    /// Reads `?platform=ios&version=7.2.1&locale=en-US&slots=home,offers&deadlineMs=200`, and
    /// whatever else there is as attributes.
    pub(crate) fn from_query(uri: &Uri) -> Result<Self, Error> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) = pairs.map_err(|error| refuse(error.body_text()))?;
        let (mut slots, mut deadline, mut attributes) = (Vec::new(), None, Map::new());
        let mut seen = Vec::with_capacity(pairs.len());
        for (name, text) in pairs {
            if seen.contains(&name) {
                let message = format!("the parameter `{}` is there twice", name.escape_debug());
                return Err(refuse(message));
            }
            match name.as_str() {
                "slots" => {
                    slots = text
                        .split(',')
                        .filter(|slot| !slot.is_empty())
                        .map(str::to_owned)
                        .collect()
                }
                "deadlineMs" => deadline = Some(milliseconds(&text)?),
                _ if text.len() > MAX_TEXT => return Err(too_long(&name)),
                _ => drop(attributes.insert(name.clone(), text.into())),
            }
            seen.push(name);
        }
        Self::check(attributes, slots, deadline)
    }

    /// Reads `{"context": {"platform": "ios", …}, "slots": ["home"], "deadlineMs": 200}`.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self, Error> {
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not what is needed: {error}");
            Error::new(Code::InvalidArgument, "bad_request", message).mend(
                r#"send {"context": {"platform": "ios", "version": "7.2.1", "locale": "en-US"}, "slots": []}"#,
            )
        })?;
        Self::check(body.context, body.slots, body.deadline_ms)
    }

    fn check(
        attributes: Map<String, Value>,
        slots: Vec<String>,
        deadline_ms: Option<u64>,
    ) -> Result<Self, Error> {
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(refuse(format!(
                "there are more than {MAX_ATTRIBUTES} attributes"
            )));
        }
        if let Some(name) = attributes.keys().find(|name| name.len() > MAX_NAME) {
            return Err(too_long(name));
        }
        if slots.len() > MAX_SLOTS || slots.iter().any(|slot| slot.len() > MAX_NAME) {
            let message =
                format!("`slots` are at most {MAX_SLOTS} names, each of at most {MAX_NAME} bytes");
            return Err(refuse(message));
        }
        for name in ["market", "store", "targetingKey"] {
            if attributes.get(name).is_some_and(|value| !value.is_string()) {
                return Err(refuse(format!("`{name}` is a text")));
            }
        }
        Ok(Self {
            platform: platform(required(&attributes, "platform")?)?,
            version: version(required(&attributes, "version")?)?,
            locale: locale(required(&attributes, "locale")?)?.to_owned(),
            slots,
            deadline: deadline_ms.map(Duration::from_millis),
            attributes,
        })
    }

    /// What rules look at.
    pub(crate) fn context(&self, now_unix: i64) -> Context<'_> {
        Context {
            targeting_key: self.attributes.get("targetingKey").and_then(Value::as_str),
            attributes: &self.attributes,
            now_unix,
        }
    }
}

fn required<'a>(attributes: &'a Map<String, Value>, name: &str) -> Result<&'a str, Error> {
    let value = attributes.get(name);
    let value = value.ok_or_else(|| refuse(format!("the parameter `{name}` is missing")))?;
    value
        .as_str()
        .ok_or_else(|| refuse(format!("`{name}` is a text")))
}

fn platform(text: &str) -> Result<&'static str, Error> {
    PLATFORMS
        .into_iter()
        .find(|known| *known == text)
        .ok_or_else(|| refuse(format!("`platform` is one of {}", PLATFORMS.join(", "))))
}

fn version(text: &str) -> Result<Version, Error> {
    text.parse()
        .map_err(|_| refuse("`version` is a semantic version, as 7.2.1".into()))
}

/// A language tag as `en` or `en-US` (BCP 47, without checking that it is registered).
fn locale(text: &str) -> Result<&str, Error> {
    let mut parts = text.split('-');
    let language = parts.next().unwrap_or("");
    let valid = (2..=3).contains(&language.len())
        && language.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.len() <= 35
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    if !valid {
        return Err(refuse("`locale` is a language tag, as en or en-US".into()));
    }
    Ok(text)
}

fn milliseconds(text: &str) -> Result<u64, Error> {
    text.parse()
        .map_err(|_| refuse("`deadlineMs` is a whole number of milliseconds".into()))
}

fn too_long(name: &str) -> Error {
    let shown: String = name.chars().take(40).collect();
    refuse(format!(
        "the attribute `{}` is too long: a name has at most {MAX_NAME} bytes, a text {MAX_TEXT}",
        shown.escape_debug()
    ))
    .mend("send it as POST, or leave it out")
}

/// A request that the app has to make otherwise.
pub(crate) fn refuse(message: String) -> Error {
    Error::new(Code::InvalidArgument, "bad_request", message)
        .mend("ask as ?platform=ios&version=7.2.1&locale=en-US")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Result<Parameters, Error> {
        Parameters::from_query(&format!("/v1/init?{text}").parse().unwrap())
    }

    fn body(value: &Value) -> Result<Parameters, Error> {
        Parameters::from_body(value.to_string().as_bytes())
    }

    const GOOD: &str = "platform=ios&version=7.2.1&locale=zh-Hant-TW";

    #[test]
    fn good_parameters_are_taken() {
        let parameters = query(&format!(
            "{GOOD}&slots=home,offers&deadlineMs=20&targetingKey=a%20b&plan=gold"
        ));
        let parameters = parameters.unwrap();
        assert_eq!(parameters.platform, "ios");
        assert_eq!(parameters.slots, ["home", "offers"]);
        assert_eq!(parameters.deadline, Some(Duration::from_millis(20)));
        let context = parameters.context(7);
        assert_eq!(context.targeting_key, Some("a b"));
        assert_eq!(
            json!(context.attributes),
            json!({
                "platform": "ios", "version": "7.2.1", "locale": "zh-Hant-TW",
                "targetingKey": "a b", "plan": "gold",
            })
        );
        let same = body(&json!({
            "context": context.attributes, "slots": ["home", "offers"], "deadlineMs": 20,
        }));
        assert_eq!(same.unwrap(), parameters);
    }

    #[test]
    fn a_bad_parameter_is_named() {
        for (text, part) in [
            ("", "`platform` is missing"),
            (
                "platform=symbian&version=7.2.1&locale=en",
                "`platform` is one of",
            ),
            (
                "platform=ios&version=7.2&locale=en",
                "`version` is a semantic",
            ),
            (
                "platform=ios&version=7.2.1&locale=e",
                "`locale` is a language",
            ),
            (
                "platform=ios&version=7.2.1&locale=en_US",
                "`locale` is a language",
            ),
            (
                "platform=ios&version=7.2.1&locale=en-",
                "`locale` is a language",
            ),
            (
                "platform=ios&version=7.2.1&locale=en-%3Cb%3E",
                "`locale` is a language",
            ),
            (
                "platform=ios&platform=ios&version=1.0.0&locale=en",
                "`platform` is there twice",
            ),
            (
                "platform=ios&version=1.0.0&locale=en&deadlineMs=soon",
                "`deadlineMs`",
            ),
        ] {
            let error = query(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.http_status(), 400);
        }
    }

    #[test]
    fn a_bad_body_is_told_what_is_wrong() {
        let good = json!({"platform": "ios", "version": "7.2.1", "locale": "en"});
        for (value, part) in [
            (json!([]), "not what is needed"),
            (json!({}), "context"),
            (json!({"context": good, "slot": []}), "slot"),
            (json!({"context": {"platform": 7}}), "`platform` is a text"),
            (
                json!({"context": {"platform": "ios", "targetingKey": 7}}),
                "`targetingKey` is a text",
            ),
            (json!({"context": good, "slots": vec!["a"; 51]}), "`slots`"),
        ] {
            let error = body(&value).unwrap_err();
            assert!(error.message.contains(part), "{value}: {error}");
        }
        assert!(Parameters::from_body(b"{\"context\"").is_err());
        assert!(Parameters::from_body(&b"[".repeat(60_000)).is_err());
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let many: String = (0..101).map(|n| format!("&a{n}=1")).collect();
        assert!(query(&format!("{GOOD}{many}")).is_err());
        assert!(query(&format!("{GOOD}&a={}", "x".repeat(2049))).is_err());
        assert!(query(&format!("{GOOD}&{}=1", "x".repeat(101))).is_err());
    }

    proptest! {
        #[test]
        fn any_query_and_any_body_are_read_without_panic(text in "[a-z=&%0-9,\\[{\":}]{0,60}") {
            let _ = query(&text.replace(['{', '}', '"'], ""));
            let _ = Parameters::from_body(text.as_bytes());
        }
    }
}
