//! What fuzzers call: any bytes in, and no panic out.

use serde_json::{Map, Value, json};

use crate::{Context, Definitions, locate};

/// All operators there are.
pub const OPERATORS: [&str; 39] = [
    "var",
    "missing",
    "missing_some",
    "if",
    "?:",
    "==",
    "===",
    "!=",
    "!==",
    "!",
    "!!",
    "or",
    "and",
    "<",
    "<=",
    ">",
    ">=",
    "max",
    "min",
    "+",
    "-",
    "*",
    "/",
    "%",
    "map",
    "filter",
    "reduce",
    "all",
    "none",
    "some",
    "merge",
    "in",
    "cat",
    "substr",
    "fractional",
    "sem_ver",
    "starts_with",
    "ends_with",
    "$ref",
];

/// A flag set: whatever it is, it compiles or all its mistakes have their places.
pub fn definition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (definitions, _) = Definitions::lenient("set", text);
    definitions
        .iter()
        .for_each(|flag| evaluate(&definitions, flag.key(), &Map::new()));
    if let Err(mistakes) = Definitions::compile([("set", text)]) {
        for mistake in mistakes.iter().filter(|mistake| mistake.line > 0) {
            assert!(
                mistake.line as usize <= text.lines().count() + 1,
                "{mistake}"
            );
        }
    }
}

/// A rule, a zero byte, and a context.
pub fn evaluation(bytes: &[u8]) {
    let Some((rule, context)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let (Ok(rule), Ok(Value::Object(context))) =
        (serde_json::from_str(rule), serde_json::from_str(context))
    else {
        return;
    };
    rule_with(&rule, &context);
}

/// Both forms of `fractional`, as an evaluator itself and by reference.
fn rule_with(rule: &Value, context: &Map<String, Value>) {
    for form in ["v2", "v3"] {
        let flag = json!({"state": "ENABLED", "variants": {"on": 1}, "targeting": rule});
        let other = json!({"state": "ENABLED", "variants": {"on": 1}, "targeting": {"!": {"$ref": "rule"}}});
        let set = json!({
            "flags": {"flag": flag, "other": other},
            "$evaluators": {"rule": rule},
            "metadata": {"fractional": form},
        });
        let text = set.to_string();
        let (definitions, mistakes) = Definitions::lenient("set", &text);
        evaluate(&definitions, "flag", context);
        evaluate(&definitions, "other", context);
        for mistake in mistakes {
            assert!(
                mistake.line == 1 && locate(&text, "").is_some(),
                "{mistake}"
            );
        }
    }
}

fn evaluate(definitions: &Definitions, key: &str, attributes: &Map<String, Value>) {
    let context = Context {
        targeting_key: attributes.get("targetingKey").and_then(Value::as_str),
        attributes,
        now_unix: 1_795_000_000,
    };
    if let Some(flag) = definitions.get(key) {
        let _ = flag.evaluate(&context);
    }
}

#[cfg(test)]
mod tests {
    use hydrant_harness::is_soak;
    use proptest::prelude::*;

    use super::*;

    /// How often each is tried: for seconds, or for minutes.
    fn tries() -> ProptestConfig {
        ProptestConfig::with_cases(if is_soak() { 200_000 } else { 1000 })
    }

    const TEXTS: [&str; 10] = [
        "",
        "a",
        "a.b",
        "current",
        "accumulator",
        "é😀",
        "1.2.3",
        "<=",
        "rule",
        "$flagd.flagKey",
    ];

    /// Expressions of any shape, with operators that exist.
    fn expression() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-4..5).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 48, 4, |inner| {
            let operator = prop::sample::select(&OPERATORS[..]);
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                1 => (operator.clone(), inner.clone()).prop_map(|(name, value)| json!({ name: value })),
                4 => (operator, prop::collection::vec(inner, 0..4)).prop_map(|(name, values)| json!({ name: values })),
            ]
        })
    }

    proptest! {
        #![proptest_config(tries())]

        #[test]
        fn no_rule_makes_it_panic(rule in expression(), a in expression(), items in prop::collection::vec(expression(), 0..4)) {
            let context = json!({"a": a, "items": items, "targetingKey": "u"});
            rule_with(&rule, context.as_object().unwrap());
        }

        #[test]
        fn no_text_makes_it_panic(text in "(\\{|\\}|\\[|\\]|,|:|\"flags\"|\"state\"|\"ENABLED\"|\"variants\"|\"targeting\"|\"var\"|\"é\"|1|null| |\n){0,40}") {
            definition(text.as_bytes());
        }
    }

    /// What a rule over `items` of a context says, and it ends soon.
    fn over_items(rule: Value, items: usize) -> Result<String, String> {
        let variants = json!({"true": true, "false": false});
        let flag = json!({"state": "ENABLED", "variants": variants, "targeting": rule});
        let text = json!({"flags": {"flag": flag}}).to_string();
        let definitions = Definitions::compile([("set", text.as_str())]).unwrap();
        let attributes =
            Map::from_iter([("items".to_owned(), Value::Array(vec![json!("item"); items]))]);
        let context = Context {
            targeting_key: None,
            attributes: &attributes,
            now_unix: 0,
        };
        let evaluation = definitions.get("flag").unwrap().evaluate(&context);
        evaluation
            .map(|it| it.variant.unwrap_or_default().to_owned())
            .map_err(|error| error.to_string())
    }

    fn reduced(step: &Value, start: &Value) -> Value {
        json!({"==": [1, {"reduce": [{"var": "items"}, step, start]}]})
    }

    #[test]
    fn no_definition_keeps_a_processor_busy() {
        let accumulator = json!({"var": "accumulator"});
        let doubled = [
            (json!({"cat": [accumulator, accumulator]}), json!("x")),
            (json!({"merge": [accumulator, accumulator]}), json!(["x"])),
            (
                json!({"in": [{"cat": [[accumulator, accumulator]]}, "x"]}),
                json!("x"),
            ),
        ];
        for (step, start) in &doubled[..2] {
            let said = over_items(reduced(step, start), 60).unwrap_err();
            assert!(said.contains("it takes more than 10000 steps"), "{said}");
        }
        assert_eq!(
            over_items(reduced(&doubled[2].0, &doubled[2].1), 60).unwrap(),
            "false"
        );
        let nested = json!([accumulator]);
        let said = over_items(reduced(&nested, &json!(1)), 200).unwrap_err();
        assert!(said.contains("it nests lists too deep"), "{said}");
        let shared = json!([accumulator, accumulator]);
        let joined = json!({"cat": [{"reduce": [{"var": "items"}, shared, 1]}]});
        let said = over_items(json!({"==": [joined, "x"]}), 50).unwrap_err();
        assert!(said.contains("it takes more than 10000 steps"), "{said}");
        let inner = json!({"some": [{"var": "items"}, {"==": [{"var": ""}, "no"]}]});
        let loops = json!({"some": [{"map": [{"var": "items"}, 1]}, {"==": [{"var": ""}, 2]}]});
        assert_eq!(over_items(inner, 1000).unwrap(), "false");
        assert!(over_items(loops, 10_000).is_err());
    }
}
