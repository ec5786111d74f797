//! The dearest rules that entry takes: how long they may keep a processor.

use std::time::{Duration, Instant};

use hydrant_flags::{Context, Definitions};
use serde_json::{Value, json};

/// The largest context that is taken, in bytes.
const CONTEXT: usize = 64 * 1024;
/// The largest document, in bytes.
const DOCUMENT: usize = 1024 * 1024;

/// Ends the evaluation of a rule that does too much.
const STOPPED: &str = "it takes more than 10000 steps";

/// A rule for every item of a long list.
fn each(rule: &Value) -> (Value, Value) {
    let items = json!({"items": vec![1; CONTEXT / 2 - 100]});
    let rule = json!({"if": [{"all": [{"var": "items"}, rule]}, "on", "off"]});
    (rule, items)
}

/// A rule over a long text, again and again: in a loop there is only the item, so `reduce` passes it on.
fn over(text: &str, rule: impl Fn(Value) -> Value) -> (Value, Value) {
    let rule = rule(json!({"var": "accumulator.text"}));
    let step = json!({"if": [rule, {"var": "accumulator"}, {"var": "accumulator"}]});
    let rule = json!({"!!": {"reduce": [{"var": "items"}, step, {"var": ""}]}});
    (rule, json!({"text": text, "items": vec![1; 2000]}))
}

/// Rules that do as much as they can in few steps, with the context that they are dearest for.
fn rules() -> Vec<(&'static str, (Value, Value))> {
    let (long, digits) = ("é".repeat(CONTEXT / 2 - 5000), "7".repeat(CONTEXT - 5000));
    let item = json!({"var": ""});
    let version = json!({"cat": [item, ".2.3-rc.1+b"]});
    let characters = format!("text.{}0", "0.".repeat(DOCUMENT / 2 - 1000));
    let computed = json!({"var": [{"if": [{"var": "text"}, characters]}]});
    let nested = (0..25).fold(
        json!([item, 1, 2, 3]),
        |inner, _| json!({"merge": [inner, 1]}),
    );
    vec![
        ("loop", each(&json!(true))),
        ("sums", each(&json!({">": [{"+": [item, 1, 2]}, 0]}))),
        ("texts", each(&json!({"!=": [{"cat": [item, 0.1]}, "x"]}))),
        (
            "versions",
            each(&json!({"!": {"sem_ver": [version, "=", "9.0.0"]}})),
        ),
        (
            "missing",
            each(&json!({"missing": [{"cat": [item, ".b.c"]}]})),
        ),
        ("lists", each(&json!({"merge": [item, [1, item]]}))),
        ("nested lists", each(&json!({"!!": nested}))),
        (
            "same text",
            over(&long, |text| json!({"===": [text, text]})),
        ),
        (
            "equal text",
            over(&long, |text| json!({"==": [text, text]})),
        ),
        (
            "order of texts",
            over(&long, |text| json!({"<=": [text, text, text]})),
        ),
        (
            "prefix",
            over(&long, |text| json!({"starts_with": [text, text]})),
        ),
        (
            "part of text",
            over(&long, |text| json!({"in": [text, text]})),
        ),
        (
            "item of list",
            over(&long, |text| json!({"in": [text, [text]]})),
        ),
        ("cut", over(&long, |text| json!({"substr": [text, 1]}))),
        (
            "character",
            over(&long, |_| json!({"var": "accumulator.text.9000"})),
        ),
        ("number", over(&digits, |text| json!({"*": [text, 1]}))),
        (
            "hash",
            over(&long, |text| json!({"fractional": [text, ["on", 1]]})),
        ),
        (
            "path",
            (json!({"if": [computed, "on", "off"]}), json!({"text": "0"})),
        ),
    ]
}

fn set(rule: &Value) -> String {
    let variants = json!({"on": 1, "off": 2, "true": 3, "false": 4});
    let flag = json!({"state": "ENABLED", "variants": variants, "targeting": rule});
    json!({"flags": {"flag": flag}}).to_string()
}

/// How long the fastest of some takes: the others waited for the machine.
fn fastest(work: impl Fn()) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..5).map(time).min().unwrap_or_default()
}

#[test]
fn no_rule_keeps_a_processor_busy() {
    for (name, (rule, attributes)) in rules() {
        let text = set(&rule);
        assert!(
            text.len() <= DOCUMENT && attributes.to_string().len() <= CONTEXT,
            "{name}"
        );
        let begun = Instant::now();
        let definitions = Definitions::compile([("set", text.as_str())]).unwrap();
        let compiled = begun.elapsed();
        let context = Context {
            targeting_key: Some("ann"),
            attributes: attributes.as_object().unwrap(),
            now_unix: 0,
        };
        let flag = definitions.get("flag").unwrap();
        let time = fastest(|| drop(flag.evaluate(&context)));
        println!("{name:<16} {time:>9.1?}, compiled after {compiled:.1?}");
        let said = flag
            .evaluate(&context)
            .map(|it| it.variant.map(str::to_owned));
        assert!(
            said.clone()
                .is_err_and(|error| error.to_string().contains(STOPPED)),
            "{name}: {said:?}"
        );
        assert!(time < Duration::from_millis(250), "{name}");
    }
}
