//! Our checks beside the public schema: the same verdict, or a reason that is named here.

use hydrant_flags::fuzz::OPERATORS;
use hydrant_flags::{Definitions, Mistake};
use hydrant_harness::{is_soak, seed};
use serde_json::{Map, Value, json};

use crate::vectors;

/// Where we refuse what the schema takes: parts of our messages, and why.
const STRICTER: &[(&str, &str)] = &[
    (
        "`!` has",
        "a list is then one value for it, and evaluators take its first item",
    ),
    ("`!!` has", "as for `!`"),
    (
        "there is no variant",
        "a result that does not exist is an error for whoever gets it",
    ),
    ("there is no evaluator", "it could not be evaluated"),
    ("refers to itself", "it could not be evaluated"),
    (
        "has one operator",
        "evaluators disagree about what several mean",
    ),
    (
        "there is no operator",
        "the schema does not look into lists of values",
    ),
    (
        "and `{}` has none",
        "the schema takes it as a key of `fractional`, where it is nothing",
    ),
    ("a weight is a whole number", "evaluators take no other"),
    ("the weights are too large", "evaluators give nothing then"),
    (
        "`-` has",
        "evaluators disagree about what a third argument means",
    ),
    (
        "`fractional` is",
        "our own metadata: the form of `fractional`",
    ),
    (
        "is a text",
        "the schema's own words, which draft-07 overlooks beside a `$ref`",
    ),
    (
        "there is no `$flagd.",
        "the schema overlooks it when a default stands beside it",
    ),
    (
        "takes the name of a variable",
        "the schema takes anything that is no text",
    ),
    (
        "the name of a variable is a text",
        "the schema takes anything that is no text",
    ),
    (
        "nobody knows",
        "a member that is nearly a known one would say nothing",
    ),
    ("at most", "a limit"),
];

struct Schema(jsonschema::Validator);

impl Schema {
    /// Both public schemas in one: the second one under a name of the first.
    fn load() -> Option<Self> {
        let folder = vectors::folder()?.join("schemas/json");
        let mut schema = vectors::json(&folder.join("flags.json"));
        let mut targeting = vectors::json(&folder.join("targeting.json"));
        let parts = targeting["definitions"].take();
        for part in [&mut schema, &mut targeting] {
            let part = part.as_object_mut().unwrap();
            part.retain(|name, _| name != "$id" && name != "$schema");
        }
        let names = schema["definitions"].as_object_mut().unwrap();
        for (name, part) in parts.as_object().unwrap() {
            assert!(
                names.insert(name.clone(), part.clone()).is_none(),
                "{name} is in both"
            );
        }
        targeting.as_object_mut().unwrap().remove("definitions");
        names.insert("targeting".to_owned(), targeting);
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        let text = schema
            .to_string()
            .replace("./targeting.json", "#/definitions/targeting");
        let schema = serde_json::from_str(&text).unwrap();
        Some(Self(jsonschema::validator_for(&schema).unwrap()))
    }

    /// Compares the verdicts about a document; gives the schema's.
    fn compare(&self, document: &Value) -> bool {
        let public = self.0.is_valid(document);
        match (public, ours(document)) {
            (true, Err(mistakes)) => {
                for mistake in &mistakes {
                    let named = overlooked(&mistake.pointer)
                        || is_value_of_not(mistake, &mistakes)
                        || STRICTER
                            .iter()
                            .any(|(message, _)| mistake.message.contains(message));
                    assert!(
                        named,
                        "the schema takes it, and we do not: {mistake}\n{document:#}"
                    );
                }
            }
            (false, Ok(())) => {
                let rewritten = in_its_words(document);
                let errors: Vec<_> = self
                    .0
                    .iter_errors(&rewritten)
                    .map(|it| it.to_string())
                    .collect();
                assert!(
                    errors.is_empty(),
                    "we take it, and the schema does not: {errors:?}\n{document:#}"
                );
            }
            _ => {}
        }
        public
    }
}

/// The schema looks neither into what stands in place of a variable's name, nor into lists of values.
fn overlooked(pointer: &str) -> bool {
    let steps: Vec<_> = pointer.split('/').collect();
    let is_index = |step: &str| step.parse::<usize>().is_ok();
    let within_list = steps
        .windows(3)
        .any(|it| it[0] != "fractional" && is_index(it[1]) && is_index(it[2]));
    within_list || pointer.contains("/var/")
}

/// Several arguments of `!` are one list for the schema, which it does not look into.
fn is_value_of_not(mistake: &Mistake, all: &[Mistake]) -> bool {
    let mut lists = all.iter().filter(|it| {
        ["`!` has", "`!!` has"]
            .iter()
            .any(|said| it.message.starts_with(said))
    });
    lists.any(|list| mistake.pointer.starts_with(&format!("{}/", list.pointer)))
}

fn ours(document: &Value) -> Result<(), Vec<Mistake>> {
    Definitions::compile([("set", document.to_string().as_str())]).map(|_| ())
}

/// A document whose rules are rewritten.
fn in_its_words(document: &Value) -> Value {
    let mut document = document.clone();
    let rules = document
        .get_mut("$evaluators")
        .and_then(Value::as_object_mut);
    for rule in rules.into_iter().flat_map(|rules| rules.values_mut()) {
        *rule = rewritten(rule);
    }
    let flags = document.get_mut("flags").and_then(Value::as_object_mut);
    for flag in flags.into_iter().flat_map(|flags| flags.values_mut()) {
        if let Some(rule) = flag.get_mut("targeting") {
            *rule = rewritten(rule);
        }
    }
    document
}

/// Where we take what the schema refuses: such a document in the schema's words. What is left then is the
/// same for both.
fn rewritten(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(rewritten).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| operation(name, value))
            .collect(),
        scalar => scalar.clone(),
    }
}

fn operation(name: &str, value: &Value) -> (String, Value) {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let (name, value) = match name {
        // JSONLogic's other name of it, which all evaluators know.
        "?:" => ("if", rewritten(value)),
        // The test bed has shares with computed variants and weights, and a single one.
        "fractional" => (name, fractional(items, value)),
        // The test bed has short versions and a `v` in front; evaluators take any expression.
        "sem_ver" if items.len() == 3 => (
            name,
            json!([version(&items[0]), items[1], version(&items[2])]),
        ),
        // All evaluators take the third argument of `<` here as well.
        ">" | ">=" if items.len() == 3 => (name, items[..2].iter().map(rewritten).collect()),
        // JSONLogic's documentation computes the names by `merge` and `if`.
        "missing" => (name, names(value)),
        "missing_some" if items.len() == 2 => (name, json!([number(&items[0]), names(&items[1])])),
        "starts_with" | "ends_with" => (name, items.iter().map(expression).collect()),
        // A default that is an expression.
        "var" if items.len() == 2 => (name, json!([items[0], scalar(&items[1])])),
        _ => (name, rewritten(value)),
    };
    (name.to_owned(), value)
}

/// An expression may be a `$ref` wherever it stands; the schema knows it as an argument only.
fn expression(value: &Value) -> Value {
    if value.is_object() {
        json!({"var": "x"})
    } else {
        rewritten(value)
    }
}

fn scalar(value: &Value) -> Value {
    if value.is_object() || value.is_array() {
        Value::Null
    } else {
        value.clone()
    }
}

fn number(value: &Value) -> Value {
    if value.is_object() {
        json!(1)
    } else {
        value.clone()
    }
}

fn names(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!(["x"]),
        Value::Array(names) => names
            .iter()
            .map(|name| {
                if name.is_object() {
                    json!("x")
                } else {
                    name.clone()
                }
            })
            .collect(),
        other => other.clone(),
    }
}

fn version(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    let plain = text.strip_prefix(['v', 'V']).unwrap_or(text);
    match value {
        Value::Object(_) => json!({"var": "x"}),
        Value::String(_) if plain.split('.').count() < 3 => json!(format!(
            "{plain}{}",
            ".0".repeat(3 - plain.split('.').count())
        )),
        Value::String(_) => json!(plain),
        other => other.clone(),
    }
}

fn fractional(items: &[Value], whole: &Value) -> Value {
    if !whole.is_array() {
        return whole.clone();
    }
    let mut shares: Vec<_> = items.iter().map(share).collect();
    if let Some(last) = shares.last().filter(|last| last.is_array()).cloned() {
        shares.push(last);
    }
    Value::Array(shares)
}

fn share(value: &Value) -> Value {
    match value {
        Value::Array(pair) => {
            let variant = pair.first().map(|variant| {
                if variant.is_array() {
                    Value::Null
                } else {
                    json!("x")
                }
            });
            let rest = pair.iter().skip(1).map(number);
            variant.into_iter().chain(rest).collect()
        }
        key => expression(key),
    }
}

/// An expression as the targeting of a flag that has whatever it names.
fn flag_of(targeting: &Value) -> Value {
    let mut names = Vec::new();
    texts(targeting, &mut names);
    let variants: Map<_, _> = names
        .iter()
        .map(|name| (name.clone(), json!(true)))
        .collect();
    let rules: Map<_, _> = names
        .iter()
        .map(|name| (name.clone(), json!({"!": true})))
        .collect();
    json!({
        "flags": {"flag": {"state": "ENABLED", "variants": variants, "targeting": targeting}},
        "$evaluators": rules,
    })
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(members) => members.values().for_each(|member| texts(member, found)),
        _ => {}
    }
}

/// All documents that the schema and the test bed carry, with the verdict that their folder names.
fn documents() -> Option<Vec<(Value, Option<bool>)>> {
    let folder = vectors::folder()?;
    let mut documents = Vec::new();
    for (verdict, name) in [(true, "positive"), (false, "negative")] {
        let tests = folder.join("schemas/json/test");
        let flags = vectors::files(&tests.join("flags").join(name), ".json");
        documents.extend(flags.iter().map(|file| {
            let document = vectors::json(file);
            // Some are for the schema of flagd's own process, which also takes lists of flags.
            let here = document["$schema"] == "../../../flags.json";
            (document, here.then_some(verdict))
        }));
        let rules = vectors::files(&tests.join("targeting").join(name), ".json");
        documents.extend(
            rules
                .iter()
                .map(|file| (flag_of(&vectors::json(file)), Some(verdict))),
        );
    }
    for part in [
        "schemas/json/examples",
        "flagd-testbed/flags",
        "flagd-testbed/evaluator/flags",
    ] {
        let files = vectors::files(&folder.join(part), ".json");
        documents.extend(files.iter().map(|file| (vectors::json(file), None)));
    }
    Some(documents)
}

#[test]
fn the_verdict_is_that_of_the_public_schema_on_all_its_examples() {
    let (Some(schema), Some(documents)) = (Schema::load(), documents()) else {
        return;
    };
    for (document, verdict) in &documents {
        let public = schema.compare(document);
        assert!(
            verdict.is_none_or(|verdict| verdict == public),
            "{document:#}"
        );
        if *verdict == Some(false) {
            assert!(ours(document).is_err(), "{document:#}");
        }
    }
    println!("{} documents", documents.len());
}

/// Something of any kind, to put where it does not belong.
fn anything(random: &mut fastrand::Rng) -> Value {
    let some = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(""),
        json!("on"),
        json!("ENABLED"),
        json!("$flagd.x"),
        json!("v1.2"),
        json!("^"),
        json!([]),
        json!(["on", 5]),
        json!([["a"], ["b", 1]]),
        json!({}),
        json!({"var": "x"}),
        json!({"var": ["x", 1]}),
        json!({"$ref": "x"}),
        json!({"if": [{"var": "x"}, "on"]}),
        json!({"if": ["on"], "var": "x"}),
    ];
    some[random.usize(..some.len())].clone()
}

/// Changes one place of a document.
fn mutate(value: &mut Value, random: &mut fastrand::Rng) {
    match value {
        Value::Object(members) if !members.is_empty() && random.u8(..8) > 0 => {
            let name = members
                .keys()
                .nth(random.usize(..members.len()))
                .unwrap()
                .clone();
            match random.u8(..10) {
                0 => drop(members.remove(&name)),
                1 => {
                    let member = members.remove(&name).unwrap();
                    let other = OPERATORS.get(random.usize(..=OPERATORS.len()));
                    members.insert(other.unwrap_or(&"log").to_string(), member);
                }
                _ => mutate(&mut members[&name], random),
            }
        }
        Value::Array(items) if !items.is_empty() && random.u8(..8) > 0 => {
            let index = random.usize(..items.len());
            match random.u8(..8) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                _ => mutate(&mut items[index], random),
            }
        }
        other => *other = anything(random),
    }
}

#[test]
fn the_verdict_is_that_of_the_public_schema_on_changed_definitions() {
    let (Some(schema), Some(documents)) = (Schema::load(), documents()) else {
        return;
    };
    let mut random = fastrand::Rng::with_seed(seed());
    let (count, mut valid) = (if is_soak() { 100_000 } else { 4_000 }, 0);
    for _ in 0..count {
        let (document, _) = &documents[random.usize(..documents.len())];
        let mut document = one_flag(document, &mut random);
        for _ in 0..random.u8(1..4) {
            mutate(&mut document, &mut random);
        }
        valid += usize::from(schema.compare(&document));
    }
    println!("{count} changed definitions, of which the schema takes {valid}");
    assert!(valid > count / 20 && valid < count, "{valid} of {count}");
}

/// The document with one of its flags: small ones are changed in more places that matter.
fn one_flag(document: &Value, random: &mut fastrand::Rng) -> Value {
    let mut document = document.clone();
    if let Some(flags) = document.get_mut("flags").and_then(Value::as_object_mut)
        && !flags.is_empty()
    {
        let kept = flags
            .keys()
            .nth(random.usize(..flags.len()))
            .unwrap()
            .clone();
        flags.retain(|key, _| *key == kept);
    }
    document
}
