use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::configuration::merge::merge_all;
use crate::configuration::merge::tests::any_object;
use crate::configuration::reach::tests::any_when;

fn bundle(documents: &[(Kind, &str, Value)]) -> Bundle {
    let mut bundle = Bundle::default();
    for (kind, name, body) in documents {
        let text = serde_json::to_string_pretty(body).unwrap();
        let all = bundle.documents.entry(*kind).or_default();
        all.insert((*name).to_owned(), text);
    }
    bundle
}

fn config(name: &'static str, when: Value, values: Value) -> (Kind, &'static str, Value) {
    (
        Kind::Config,
        name,
        json!({ "when": when, "values": values }),
    )
}

fn schema(properties: Value) -> (Kind, &'static str, Value) {
    let schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    (Kind::ConfigSchema, NAME, schema)
}

fn merged(configuration: &Configuration, attributes: Value) -> Value {
    let context = Context {
        targeting_key: None,
        attributes: attributes.as_object().unwrap(),
        now_unix: 0,
    };
    let merged = configuration.merged_for(&context);
    assert_eq!(*merged.json, merged.value.to_string());
    merged.value.clone()
}

#[test]
fn a_higher_layer_wins_and_null_takes_away() {
    let configuration = Configuration::compile(&bundle(&[
        config(
            "base",
            json!({}),
            json!({"timeout": 1, "theme": {"dark": false}, "beta": true}),
        ),
        config("zz-ios", json!({"platform": "ios"}), json!({"timeout": 2})),
        config(
            "aa-old",
            json!({"version": "<7.0.0"}),
            json!({"timeout": 3, "beta": null}),
        ),
        config(
            "de",
            json!({"locale": "de"}),
            json!({"theme": {"dark": true}, "timeout": 4}),
        ),
        config(
            "at",
            json!({"market": "at", "locale": "de"}),
            json!({"timeout": 5}),
        ),
        config("store", json!({"store": "12"}), json!({"timeout": 6})),
    ]))
    .unwrap();
    let merged = |attributes| merged(&configuration, attributes);
    let base = json!({"timeout": 1, "theme": {"dark": false}, "beta": true});
    assert_eq!(merged(json!({})), base);
    let ios = json!({"platform": "ios", "version": "7.0.0", "locale": "en"});
    assert_eq!(merged(ios)["timeout"], 2);
    let old = json!({"platform": "ios", "version": "6.9.9", "locale": "en"});
    assert_eq!(merged(old), json!({"timeout": 3, "theme": {"dark": false}}));
    let german = json!({"platform": "ios", "version": "6.9.9", "locale": "de-DE"});
    assert_eq!(
        merged(german),
        json!({"timeout": 4, "theme": {"dark": true}})
    );
    let at = json!({"market": "AT", "locale": "de-AT", "platform": "ios"});
    assert_eq!(merged(at)["timeout"], 5);
    let store = json!({"market": "at", "locale": "de-AT", "store": "12"});
    assert_eq!(merged(store)["timeout"], 6);
}

#[test]
fn a_bad_value_is_refused_with_the_layer_the_key_and_the_line() {
    let mistakes = Configuration::compile(&bundle(&[
        schema(json!({"timeout": {"type": "integer"}})),
        config("base", json!({}), json!({"timeout": 5})),
        config(
            "ios",
            json!({"platform": "ios"}),
            json!({"timeout": "soon"}),
        ),
    ]))
    .unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    let mistake = &mistakes[0];
    assert_eq!(mistake.document, "config/ios");
    assert_eq!(mistake.pointer, "/values/timeout");
    assert_eq!(mistake.line, 3, "{mistake}");
    assert!(mistake.message.contains("\"soon\""), "{mistake}");
}

#[test]
fn an_unknown_key_is_refused() {
    let documents = [
        schema(json!({"timeout": {"type": "integer"}})),
        config("base", json!({}), json!({"timeout": 5, "timeuot": 6})),
    ];
    let mistakes = Configuration::compile(&bundle(&documents)).unwrap_err();
    assert_eq!(mistakes[0].document, "config/base");
    assert!(mistakes[0].message.contains("timeuot"), "{}", mistakes[0]);
}

/// Each of the layers is well by itself and over the base; only three together are not.
fn three_together() -> Vec<(Kind, &'static str, Value)> {
    let schema = json!({
        "type": "object",
        "not": {"required": ["a", "b", "c"]},
    });
    vec![
        (Kind::ConfigSchema, NAME, schema),
        config("ios", json!({"platform": "ios"}), json!({"a": 1})),
        config("new", json!({"version": ">=7"}), json!({"b": 1})),
        config("de", json!({"locale": "de"}), json!({"c": 1})),
    ]
}

#[test]
fn layers_that_only_together_break_the_schema_are_refused() {
    let mistakes = Configuration::compile(&bundle(&three_together())).unwrap_err();
    let mistake = &mistakes[0];
    assert_eq!(mistake.document, "config/de", "{mistake}");
    assert!(mistake.message.contains("ios + new + de"), "{mistake}");
}

#[test]
fn layers_that_never_come_together_may_contradict_each_other() {
    let mut documents = three_together();
    documents[3] = config("android", json!({"platform": "android"}), json!({"c": 1}));
    Configuration::compile(&bundle(&documents)).unwrap();
}

#[test]
fn with_too_many_sets_to_check_what_breaks_the_schema_is_still_never_served() {
    let mut documents = three_together();
    let names: Vec<String> = (0..13).map(|n| format!("c{n}")).collect();
    let names: &'static [String] = Box::leak(names.into_boxed_slice());
    for name in names {
        documents.push((Kind::Cohort, name, json!({"rule": false})));
        documents.push(config(name, json!({"cohort": name}), json!({ name: 1 })));
    }
    let configuration = Configuration::compile(&bundle(&documents)).unwrap();
    let attributes = json!({"platform": "ios", "version": "7.0.0", "locale": "de"});
    let context = Context {
        targeting_key: None,
        attributes: attributes.as_object().unwrap(),
        now_unix: 0,
    };
    let merged = configuration.merged_for(&context);
    assert_eq!(merged.value, json!({"a": 1, "b": 1}));
    assert_eq!(merged.left_out, ["de"]);
}

#[test]
fn a_layer_of_a_cohort_that_is_not_there_is_refused() {
    let documents = [config("staff", json!({"cohort": "staff"}), json!({}))];
    let mistakes = Configuration::compile(&bundle(&documents)).unwrap_err();
    assert_eq!(mistakes[0].pointer, "/when/cohort");
    assert!(mistakes[0].line > 0);
}

#[test]
fn what_a_schema_can_be_is_checked() {
    for (name, body) in [
        ("config", json!({"type": "nonsense"})),
        ("other", json!({})),
    ] {
        let documents = [(Kind::ConfigSchema, name, body)];
        assert!(
            Configuration::compile(&bundle(&documents)).is_err(),
            "{name}"
        );
    }
    let remote = json!({"$ref": "http://127.0.0.1:1/schema.json"});
    let documents = [(Kind::ConfigSchema, NAME, remote)];
    assert!(
        Configuration::compile(&bundle(&documents)).is_err(),
        "it is never fetched"
    );
}

proptest! {
    #[test]
    fn an_app_gets_the_merge_of_the_layers_that_hold_in_their_order(
        layers in proptest::collection::vec((any_when(), any_object()), 0..6),
        platform in "ios|android", version in "[12]\\.[01]\\.0", locale in "de|de-AT|en-US",
        store in "s[12]",
    ) {
        let mut documents = Bundle::default();
        let all = documents.documents.entry(Kind::Config).or_default();
        for (place, (when, values)) in layers.iter().enumerate() {
            let mut when = when.clone();
            when.as_object_mut().unwrap().remove("cohort");
            all.insert(format!("l{place}"), json!({"when": when, "values": values}).to_string());
        }
        let configuration = Configuration::compile(&documents).unwrap();
        let attributes = json!({
            "platform": platform, "version": version, "locale": locale, "store": store,
        });
        let context = Context {
            targeting_key: None,
            attributes: attributes.as_object().unwrap(),
            now_unix: 0,
        };
        let own = configuration.explained_for(&context);
        prop_assert!(own.is_sorted_by_key(|layer| layer.order()));
        let expected = merge_all(own.iter().map(|layer| &layer.values));
        prop_assert_eq!(&configuration.merged_for(&context).value, &expected);
        let again = configuration.merged_for(&context);
        prop_assert_eq!(&again.value, &expected, "from memory");
    }
}
