use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::content::locale::{Step, choose};

const SHA: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn bundle(documents: &[(Kind, &str, String)]) -> Bundle {
    let mut bundle = Bundle::default();
    for (kind, name, text) in documents {
        let of = bundle.documents.entry(*kind).or_default();
        of.insert((*name).to_owned(), text.clone());
    }
    bundle
}

fn banner() -> (Kind, &'static str, String) {
    let schema = json!({"schema": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 40},
            "image": {"$ref": "hydrant:image"},
        },
        "required": ["title"],
        "additionalProperties": false,
    }});
    (Kind::ContentType, "banner", schema.to_string())
}

fn image() -> (Kind, &'static str, String) {
    let variant = |width: u32| json!({"width": width, "height": width / 2, "format": "png", "bytes": 9, "sha256": SHA});
    let image = json!({
        "type": "image/png", "bytes": 10, "width": 400, "height": 200, "alt": "apples",
        "variants": [variant(320), variant(400)],
    });
    (Kind::Image, SHA, image.to_string())
}

fn entry(name: &'static str, text: impl ToString) -> (Kind, &'static str, String) {
    (Kind::Content, name, text.to_string())
}

fn compile(entries: &[(Kind, &str, String)]) -> Result<Content, Vec<Mistake>> {
    let mut documents = vec![banner(), image()];
    documents.extend_from_slice(entries);
    Content::compile(&bundle(&documents))
}

fn ask<'a>(content: &'a Content, attributes: &Value, locale: &str, now: i64) -> Chosen<'a> {
    let empty = Map::new();
    let context = Context {
        targeting_key: None,
        attributes: attributes.as_object().unwrap_or(&empty),
        now_unix: now / 1000,
    };
    content.entry_for("home.top", &context, locale, now)
}

#[test]
fn an_entry_is_found_in_its_slot_with_its_image_ready_to_show() {
    let text = json!({"type": "banner", "slot": "home.top", "locales": {
        "en": {"title": "Fresh", "image": {"$image": SHA}},
        "de": {"title": "Frisch", "image": {"$image": SHA, "alt": "Äpfel"}},
    }});
    let content = compile(&[entry("fresh", text)]).unwrap();
    let chosen = ask(&content, &json!({}), "de-AT", 0).entry.unwrap();
    assert_eq!((chosen.name, chosen.locale), ("fresh", "de"));
    let url = |width| format!("/api/mobile/v1/images/{SHA}/{width}.png");
    assert_eq!(
        serde_json::from_str::<Value>(chosen.json).unwrap(),
        json!({"entry": "fresh", "type": "banner", "locale": "de", "fields": {
            "title": "Frisch",
            "image": {"src": url(400), "width": 400, "height": 200, "alt": "Äpfel", "variants": [
                {"width": 320, "url": url(320)}, {"width": 400, "url": url(400)},
            ]},
        }})
    );
}

#[test]
fn every_locale_published_or_draft_is_checked_by_the_type() {
    let text = r#"{
  "type": "banner", "slot": "home.top",
  "locales": {"en": {"title": "Fresh"}, "de": {"titel": "Frisch"}},
  "draft": {"locales": {"en": {"title": 7}, "x": {"title": "", "image": {"$image": "b"}}}}
}"#;
    let mistakes = compile(&[entry("fresh", text)]).unwrap_err();
    let places: Vec<&str> = mistakes.iter().map(|one| one.pointer.as_str()).collect();
    for place in [
        "/locales/de",
        "/locales/de/titel",
        "/draft/locales/en/title",
        "/draft/locales/x",
        "/draft/locales/x/image/$image",
    ] {
        assert!(places.contains(&place), "{place}: {mistakes:#?}");
    }
    assert!(mistakes.iter().all(|one| one.document == "content/fresh"));
    assert!(
        mistakes.iter().all(|one| one.line == 3 || one.line == 4),
        "{mistakes:#?}"
    );
}

#[test]
fn mistakes_of_an_entry_are_told() {
    let good = json!({"type": "banner", "slot": "home.top", "locales": {"en": {"title": ""}}});
    assert!(compile(&[entry("good", &good)]).is_ok());
    for (member, value, message) in [
        ("type", json!("poster"), "no type"),
        ("slot", json!("home top"), "can't be a slot"),
        ("from", json!("tomorrow"), "not a time"),
        ("from", json!("2026-12-01"), "not a time"),
        ("until", json!("2026-12-01T00:00:00"), "not a time"),
        ("locales", json!({}), "1 to 200"),
        (
            "locales",
            json!({"en": {"title": ""}, "EN": {"title": ""}}),
            "twice",
        ),
        ("fallback", json!(["fr"]), "none of these"),
        ("fallback", json!(["f"]), "language tag"),
        ("priority", json!("high"), "invalid type"),
        ("colour", json!("red"), "unknown field"),
    ] {
        let mut text = good.clone();
        text[member] = value;
        let mistakes = compile(&[entry("bad", &text)]).unwrap_err();
        let told = mistakes.iter().any(|one| one.message.contains(message));
        assert!(told, "{text}: {mistakes:#?}");
    }
}

#[test]
fn a_schema_that_is_none_or_fetches_is_refused() {
    for schema in [
        json!({"type": "text"}),
        json!({"$ref": "http://127.0.0.1:1/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"pattern": "(?=a)"}),
    ] {
        let text = json!({"schema": schema}).to_string();
        let mistakes = Content::compile(&bundle(&[(Kind::ContentType, "bad", text)])).unwrap_err();
        assert_eq!(mistakes[0].document, "content-type/bad", "{schema}");
    }
}

#[test]
fn the_highest_priority_whose_schedule_and_audience_hold_wins() {
    let one = |priority: i64, from: &str, until: &str, when: Value| {
        json!({
            "type": "banner", "slot": "home.top", "priority": priority, "when": when,
            "from": from, "until": until, "locales": {"en": {"title": ""}},
        })
    };
    let at = |second: i64| format!("1970-01-01T00:00:{second:02}Z");
    let content = compile(&[
        entry("a", one(1, &at(0), &at(50), json!(true))),
        entry("b", one(2, &at(10), &at(20), json!(true))),
        entry("c", one(9, &at(0), &at(50), json!(false))),
        entry("d", one(1, &at(0), &at(50), json!(true))),
    ])
    .unwrap();
    for (ms, winner, until) in [
        (0, Some("a"), Some(10_000)),
        (9_999, Some("a"), Some(10_000)),
        (10_000, Some("b"), Some(20_000)),
        (19_999, Some("b"), Some(20_000)),
        (20_000, Some("a"), Some(50_000)),
        (50_000, None, None),
    ] {
        let chosen = ask(&content, &json!({}), "en", ms);
        assert_eq!(chosen.entry.map(|one| one.name), winner, "{ms}");
        assert_eq!(chosen.valid_until, until, "{ms}");
    }
}

#[test]
fn what_is_published_has_no_draft_in_it() {
    let secret = "SECRET";
    let form = json!({"en": {"title": secret}});
    let both = r#"{"type": "banner", "slot": "home.top",
        "locales": {"zz": {"title": "1"}, "aa": {"title": "2"}},
        "dr\u0061ft": {"locales": {"en": {"title": "SECRET"}}}}"#;
    let full = bundle(&[
        banner(),
        entry("both", both),
        entry(
            "new",
            json!({"type": "banner", "slot": "home.top", "draft": {"locales": form}}),
        ),
    ]);
    assert!(Content::compile(&full).is_ok());
    let published = published(&full);
    let text = serde_json::to_string(&published).unwrap();
    assert!(!text.contains(secret), "{text}");
    let content = Content::compile(&published).unwrap();
    let chosen = ask(&content, &json!({}), "fr", 0).entry.unwrap();
    assert_eq!(
        (chosen.name, chosen.locale),
        ("both", "zz"),
        "the first that is declared"
    );
}

fn tag() -> impl Strategy<Value = String> {
    "[a-d]{2}(-[a-c]{2}){0,2}".prop_filter("a tag", |tag| locale::is_locale(tag))
}

proptest! {
    #[test]
    fn the_locale_is_the_longest_beginning_then_the_fallback_then_the_first(
        declared in proptest::collection::vec(tag(), 1..6),
        fallback in proptest::option::of(0usize..6),
        wanted in tag(),
    ) {
        let fallback = fallback.filter(|at| *at < declared.len());
        let tags = declared.iter().map(String::as_str);
        let (at, step) = choose(tags, fallback, &wanted).unwrap();
        let begins = |one: &String| wanted == *one || wanted.starts_with(&format!("{one}-"));
        let longest = declared.iter().filter(|one| begins(one)).map(String::len).max();
        match step {
            Step::Exact => prop_assert_eq!(&declared[at], &wanted),
            Step::Shorter => {
                prop_assert!(begins(&declared[at]));
                prop_assert_eq!(Some(declared[at].len()), longest);
            }
            Step::Fallback => prop_assert_eq!((longest, Some(at)), (None, fallback)),
            Step::First => prop_assert_eq!((longest, fallback, at), (None, None, 0)),
        }
    }

    #[test]
    fn any_text_as_a_document_is_read_without_panic(text in ".{0,200}", json in any_json()) {
        for text in [text, json.to_string()] {
            let _ = compile(&[entry("any", &text)]);
            let _ = Content::compile(&bundle(&[(Kind::ContentType, "any", text.clone())]));
            let _ = Content::compile(&bundle(&[(Kind::Image, "any", text.clone())]));
            published(&bundle(&[entry("any", &text)]));
        }
    }
}

/// Documents that are nearly entries.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(en|de|[a-z]{0,3}|1970-01-01T00:00:00Z|home.top|banner)".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let names = "(type|slot|priority|when|from|until|fallback|locales|draft|en|title|schema|\\$ref|\\$image|if|var)";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names, inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
