//! Documents of every kind that are well together, and who asks about them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::demo;
use crate::documents::{DocumentId, Kind};
use crate::experiments::allocate;

/// What stands beside the demo.
const DOCUMENTS: [(Kind, &str, &str); 11] = [
    (
        Kind::Experiment,
        "checkout",
        r#"{"flag": "new-checkout", "state": "running", "layer": "all", "traffic": 0.5,
            "control": "off", "arms": {"off": 95, "on": 5}, "eligible": {"==": [{"var": "plan"}, "gold"]},
            "ramp": [{"at": "2026-12-01T09:00:00Z", "arms": {"off": 90, "on": 10}}],
            "guards": [{"metric": "errors", "worse": "higher", "limit": 0.02, "minimum": 500}]}"#,
    ),
    (
        Kind::Experiment,
        "greeting",
        r#"{"flag": "greeting", "state": "running", "subject": "device", "salt": "old",
            "control": "plain", "arms": {"plain": 50, "warm": 50}}"#,
    ),
    (Kind::Layer, "all", r#"{"description": "one at a time"}"#),
    (
        Kind::Holdout,
        "nobody",
        r#"{"share": 0.05, "layers": ["all"]}"#,
    ),
    (
        Kind::Menu,
        "old",
        r#"{"when": {"version": "<7.0.0"}, "values": {"calls": {"changes": null, "init": {"cacheSeconds": 60}}}}"#,
    ),
    (
        Kind::Cohort,
        "staff",
        r#"{"rule": {"ends_with": [{"var": "email"}, "@example.com"]}}"#,
    ),
    (
        Kind::ContentType,
        "poster",
        r#"{"schema": {"type": "object", "properties": {"title": {"type": "string", "pattern": "^[^<]*$"},
            "image": {"$ref": "hydrant:image"}}, "required": ["title"], "additionalProperties": false}}"#,
    ),
    (
        Kind::Content,
        "summer",
        r#"{"type": "poster", "slot": "home", "priority": 3, "when": {"==": [{"var": "plan"}, "gold"]},
            "from": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00+01:00", "fallback": ["en"],
            "locales": {"de": {"title": "Sommer"}, "en": {"title": "Summer", "image": {"$image": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}},
            "draft": {"locales": {"en": {"title": "Autumn"}}}}"#,
    ),
    (
        Kind::Image,
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        r#"{"type": "image/png", "bytes": 10, "width": 400, "height": 200, "alt": "apples", "variants":
            [{"width": 320, "height": 160, "format": "png", "bytes": 9, "sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}"#,
    ),
    (
        Kind::Key,
        "web",
        r#"{"sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "role": "client", "rate": {"perSecond": 50, "burst": 5}}"#,
    ),
    (
        Kind::Settings,
        "settings",
        r#"{"anonymous": {"rate": {"perSecond": 0.5}, "trustedProxies": 1}, "cors": {"origins": ["https://shop.example"]}, "streams": {"most": 5}}"#,
    ),
];

const CONTEXTS: &str = r#"[
    {},
    {"platform": "ios", "version": "6.9.1", "locale": "de-AT", "market": "de", "targetingKey": "ann",
     "plan": "gold", "email": "ann@example.com", "device": 7},
    {"platform": "web", "version": "7.2.1-rc.1", "locale": "zh-Hant-TW", "store": "s1", "targetingKey": "",
     "plan": ["gold", {"a": null}], "email": 0.5, "device": -9223372036854775808, "items": [1, [2, "é😀"], {"var": "x"}]}
]"#;

/// A revision that compiles.
static WORLD: LazyLock<(Bundle, Compiled)> = LazyLock::new(|| {
    let mut bundle = Bundle {
        revision: 7,
        at_unix_ms: super::NOW,
        ..Bundle::default()
    };
    for edit in demo::documents(true) {
        bundle.put(&edit.id, edit.body);
    }
    for (kind, name, text) in DOCUMENTS {
        let id = DocumentId::new(kind, name).expect("a good name");
        bundle.put(&id, Some(text.to_owned()));
    }
    allocate(&Bundle::default(), &mut bundle).expect("the experiments are well");
    let compiled = Compiled::compile(&bundle).expect("the documents are well");
    (bundle, compiled)
});

static ASKED: LazyLock<Vec<Map<String, Value>>> =
    LazyLock::new(|| serde_json::from_str(CONTEXTS).expect("they are objects"));

pub(super) fn bundle() -> &'static Bundle {
    &WORLD.0
}

pub(super) fn compiled() -> &'static Compiled {
    &WORLD.1
}

pub(super) fn contexts() -> &'static [Map<String, Value>] {
    &ASKED
}

/// The document of a kind that is changed: the first there is.
pub(super) fn name_of(kind: Kind) -> &'static str {
    let names = bundle().of(kind).map(|(name, _)| name);
    { names }.next().expect("there is one of every kind")
}
