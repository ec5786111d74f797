//! The page about definitions: what it shows is true.

use hydrant_flags::{Context, Definitions, Reason};
use serde_json::{Map, Value, json};

const PAGE: &str = include_str!("../../../../docs/flag-definitions.md");

fn example() -> &'static str {
    let start = PAGE.find("```json\n").expect("the page has an example") + 8;
    let length = PAGE[start..].find("```").expect("the example ends");
    &PAGE[start..start + length]
}

#[test]
fn the_example_of_the_page_is_a_definition() {
    let definitions = Definitions::compile([("shop", example())]).unwrap();
    assert!(definitions.get("new-checkout").unwrap().is_public());
}

#[test]
fn the_mistake_of_the_page_is_told_like_that() {
    let text = example().replace(r#"{ "$ref": "staff" }, "on""#, r#"{ "=": [1, 1] }, "on""#);
    let mistakes = Definitions::compile([("shop", text.as_str())]).unwrap_err();
    let said = mistakes[0].to_string();
    assert!(
        said.ends_with("at /flags/new-checkout/targeting/if/0/=: there is no operator `=`"),
        "{said}"
    );
}

/// What a rule says: the name of a variant, nothing, or an error.
fn said(rule: &Value) -> String {
    let names = ["true", "false", "anull", "1"].map(|name| (name.to_owned(), json!(name)));
    let flag = json!({"state": "ENABLED", "variants": Map::from_iter(names), "targeting": rule});
    let (definitions, _) =
        Definitions::lenient("set", &json!({"flags": {"flag": flag}}).to_string());
    let attributes = Map::from_iter([("items".to_owned(), json!([1]))]);
    let context = Context {
        targeting_key: Some("u"),
        attributes: &attributes,
        now_unix: 0,
    };
    match definitions.get("flag").unwrap().evaluate(&context) {
        Ok(evaluation) if evaluation.reason == Reason::Default => "nothing".to_owned(),
        Ok(evaluation) => evaluation.variant.unwrap_or_default().to_owned(),
        Err(_) => "error".to_owned(),
    }
}

#[test]
fn rules_give_what_the_page_says() {
    let share = json!({"fractional": [["1", 1]]});
    for (rule, expected) in [
        (json!({"==": [{"var": "gone"}, 0]}), "true"),
        (json!({"==": [{"var": "gone"}, false]}), "true"),
        (json!({"==": [{"var": "gone"}, ""]}), "false"),
        (json!({"cat": ["a", {"var": "gone"}]}), "anull"),
        (json!({"/": [1, {"var": "gone"}]}), "error"),
        (share.clone(), "1"),
        (
            json!({"==": ["1", {"map": [{"var": "items"}, share]}]}),
            "false",
        ),
        (json!({"sem_ver": ["1.9.0", "^", "1.0.0"]}), "true"),
        (json!({"sem_ver": ["1.9.0", "~", "1.0.0"]}), "false"),
    ] {
        assert_eq!(said(&rule), expected, "{rule}");
    }
}
