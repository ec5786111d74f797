//! Experiments from revision to revision, as people in their arms see them.

use std::collections::BTreeMap;

use hydrant_flags::{Context, Mistake, Reason};
use serde_json::{Map, Value, json};

use super::{allocate, companions};
use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::documents::Kind;

const FLAGS: &str = r#"{
  "flags": {
    "new-checkout": {
      "state": "ENABLED",
      "variants": {"off": false, "on": true},
      "defaultVariant": "off"
    },
    "banner": {
      "state": "ENABLED",
      "variants": {"none": "", "red": "r", "blue": "b"},
      "defaultVariant": "none"
    },
    "other": {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a"}
  }
}"#;

/// All revisions, the oldest first.
struct World(Vec<Bundle>);

impl World {
    /// With the flags, and these documents.
    fn with(documents: &[(Kind, &str, Value)]) -> Self {
        let mut world = Self(vec![Bundle::default()]);
        let flags = (Kind::Flags, "demo", serde_json::from_str(FLAGS).unwrap());
        world.change(&[&[flags], documents].concat()).unwrap();
        world
    }

    fn now(&self) -> &Bundle {
        self.0.last().unwrap()
    }

    /// One revision, in which documents are put.
    fn change(&mut self, documents: &[(Kind, &str, Value)]) -> Result<Compiled, Vec<Mistake>> {
        let mut new = self.now().clone();
        for (kind, name, body) in documents {
            let all = new.documents.entry(*kind).or_default();
            all.insert((*name).to_owned(), format!("{body:#}"));
        }
        self.add(new)
    }

    fn add(&mut self, mut new: Bundle) -> Result<Compiled, Vec<Mistake>> {
        new.revision = self.0.len() as u64;
        new.at_unix_ms = 1000 * new.revision as i64;
        allocate(self.now(), &mut new)?;
        let compiled = Compiled::compile(&new)?;
        self.0.push(new);
        Ok(compiled)
    }

    fn compiled(&self) -> Compiled {
        Compiled::compile(self.now()).unwrap()
    }

    /// What everybody has of a flag.
    fn everybody(&self, flag: &str) -> Vec<String> {
        let compiled = self.compiled();
        people().map(|id| arm(&compiled, flag, &id)).collect()
    }
}

const PEOPLE: usize = 20_000;

fn people() -> impl Iterator<Item = String> {
    (0..PEOPLE).map(|n| format!("user-{n}"))
}

/// The variant of somebody, with a star when an experiment decided.
fn arm(compiled: &Compiled, flag: &str, id: &str) -> String {
    arm_with(compiled, flag, id, &Map::new())
}

fn arm_with(compiled: &Compiled, flag: &str, id: &str, attributes: &Map<String, Value>) -> String {
    let context = Context {
        targeting_key: Some(id),
        attributes,
        now_unix: 0,
    };
    let answer = compiled.evaluate(flag, &context).unwrap();
    let variant = answer.variant.unwrap();
    match answer.assigned {
        None => variant.to_owned(),
        Some(assigned) => {
            assert_eq!((answer.reason, assigned.arm), (Reason::Split, variant));
            format!("{variant}*")
        }
    }
}

fn counts(arms: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for arm in arms {
        *counts.entry(arm.as_str()).or_default() += 1;
    }
    counts
}

/// Of so many of 20,000 people, is it about this share?
fn is_share(count: usize, share: f64) -> bool {
    let expected = PEOPLE as f64 * share;
    (count as f64 - expected).abs() < 6.0 * expected.max(1.0).sqrt()
}

fn checkout(on: f64) -> Value {
    json!({
        "flag": "new-checkout", "state": "running", "control": "off",
        "arms": {"off": 100.0 - on, "on": on},
    })
}

fn with(mut document: Value, member: &str, value: Value) -> Value {
    document[member] = value;
    document
}

fn experiment(name: &str, body: Value) -> (Kind, &str, Value) {
    (Kind::Experiment, name, body)
}

#[test]
fn ten_percent_are_five_and_five_more() {
    let mut world = World::with(&[experiment("checkout", checkout(5.0))]);
    let five = world.everybody("new-checkout");
    assert!(is_share(counts(&five)["on*"], 0.05), "{:?}", counts(&five));
    world
        .change(&[experiment("checkout", checkout(10.0))])
        .unwrap();
    let ten = world.everybody("new-checkout");
    let moved = five.iter().zip(&ten).filter(|(five, ten)| five != ten);
    let moved: Vec<_> = moved.collect();
    assert!(
        moved
            .iter()
            .all(|(from, to)| (from.as_str(), to.as_str()) == ("off*", "on*"))
    );
    assert!(is_share(moved.len(), 0.05), "{}", moved.len());
}

#[test]
fn a_flag_without_a_running_experiment_is_itself() {
    let mut world = World::with(&[]);
    for state in ["draft", "stopped"] {
        let idle = with(checkout(50.0), "state", json!(state));
        world.change(&[experiment("checkout", idle)]).unwrap();
        assert_eq!(counts(&world.everybody("new-checkout")).len(), 1, "{state}");
    }
    let compiled = world
        .change(&[experiment("checkout", checkout(50.0))])
        .unwrap();
    let nobody = Context {
        targeting_key: None,
        attributes: &Map::new(),
        now_unix: 0,
    };
    let answer = compiled.evaluate("new-checkout", &nobody).unwrap();
    assert_eq!((answer.variant, answer.assigned), (Some("off"), None));
    assert!(compiled.evaluate("none", &nobody).is_err());
    let off = FLAGS.replacen("ENABLED", "DISABLED", 1);
    let off = serde_json::from_str(&off).unwrap();
    let compiled = world.change(&[(Kind::Flags, "demo", off)]).unwrap();
    let answer = compiled.evaluate("new-checkout", &nobody).unwrap();
    assert_eq!(answer.reason, Reason::Disabled);
}

#[test]
fn nobody_is_in_two_experiments_of_a_layer() {
    let layered = |body: Value, traffic: f64| {
        with(
            with(body, "layer", json!("page")),
            "traffic",
            json!(traffic),
        )
    };
    let banner = json!({
        "flag": "banner", "state": "running", "control": "none",
        "arms": {"none": 34, "red": 33, "blue": 33},
    });
    let mut world = World::with(&[
        (Kind::Layer, "page", json!({})),
        experiment("checkout", layered(checkout(50.0), 0.5)),
        experiment("banner", layered(banner.clone(), 0.3)),
    ]);
    let check = |world: &World, shares: [f64; 2]| {
        let both = [world.everybody("new-checkout"), world.everybody("banner")];
        let is_in = |arm: &String| arm.ends_with('*');
        for (arms, share) in both.iter().zip(shares) {
            let number = arms.iter().filter(|arm| is_in(arm)).count();
            assert!(is_share(number, share), "{number} for {share}");
        }
        let [first, second] = &both;
        let twice = first
            .iter()
            .zip(second)
            .filter(|(one, other)| is_in(one) && is_in(other));
        assert_eq!(twice.count(), 0);
        both
    };
    let before = check(&world, [0.5, 0.3]);
    let more = layered(banner.clone(), 0.6);
    let mistakes = world.change(&[experiment("banner", more)]).unwrap_err();
    assert_eq!(
        mistakes[0].message,
        "the layer `page` has 40 % left, and this wants 50 %"
    );
    assert!(mistakes[0].line > 0);
    world
        .change(&[experiment("banner", layered(banner, 0.4))])
        .unwrap();
    let after = check(&world, [0.5, 0.4]);
    assert_eq!(before[0], after[0], "the other experiment is as it was");
    let lost = before[1]
        .iter()
        .zip(&after[1])
        .filter(|(was, is)| was.ends_with('*') && was != is);
    assert_eq!(
        lost.count(),
        0,
        "who was in it stays in it, in the same arm"
    );
}

#[test]
fn a_holdout_is_in_no_experiment_of_its_layers() {
    let layered = with(checkout(50.0), "layer", json!("page"));
    let mut world = World::with(&[
        (Kind::Layer, "page", json!({})),
        experiment("checkout", layered),
        experiment(
            "other",
            json!({
                "flag": "other", "state": "running", "control": "a", "arms": {"a": 50, "b": 50},
            }),
        ),
    ]);
    let before = world.everybody("new-checkout");
    let of_page = json!({"share": 0.1, "layers": ["page"]});
    world.change(&[(Kind::Holdout, "h", of_page)]).unwrap();
    let held = world.everybody("new-checkout");
    assert!(is_share(counts(&held)["off"], 0.1), "{:?}", counts(&held));
    assert_eq!(
        counts(&world.everybody("other")).len(),
        2,
        "not of this layer"
    );
    let same = before
        .iter()
        .zip(&held)
        .filter(|(_, held)| held.ends_with('*'));
    assert!(same.into_iter().all(|(before, held)| before == held));
    world
        .change(&[(Kind::Holdout, "h", json!({"share": 0.1}))])
        .unwrap();
    let both = [world.everybody("new-checkout"), world.everybody("other")];
    for (one, other) in both[0].iter().zip(&both[1]) {
        assert_eq!(
            one.ends_with('*'),
            other.ends_with('*'),
            "held out of all or of none"
        );
    }
    let bad = json!({"share": 0.1, "layers": ["none"]});
    assert!(world.change(&[(Kind::Holdout, "h", bad)]).is_err());
}

#[test]
fn only_who_is_eligible_is_in_it() {
    let rule = json!({"==": [{"var": "country"}, "DE"]});
    let world = World::with(&[experiment(
        "checkout",
        with(checkout(100.0), "eligible", rule),
    )]);
    let compiled = world.compiled();
    let of = |country: &str| {
        let attributes = Map::from_iter([("country".to_owned(), json!(country))]);
        arm_with(&compiled, "new-checkout", "user-1", &attributes)
    };
    assert_eq!((of("DE"), of("FR")), ("on*".to_owned(), "off".to_owned()));
}

#[test]
fn another_attribute_can_say_who_somebody_is() {
    let body = with(checkout(100.0), "subject", json!("customer"));
    let world = World::with(&[experiment("checkout", body)]);
    let compiled = world.compiled();
    let of = |customer: Value| {
        let attributes = Map::from_iter([("customer".to_owned(), customer)]);
        arm_with(&compiled, "new-checkout", "user-1", &attributes)
    };
    for known in [json!("c-1"), json!(4711), json!(-1), json!(u64::MAX)] {
        assert_eq!(of(known), "on*");
    }
    for unknown in [json!(""), json!(1.5), json!(null), json!([]), json!(true)] {
        assert_eq!(of(unknown), "off");
    }
}

#[test]
fn a_revert_gives_everybody_exactly_what_they_had() {
    let three = |red: f64, blue: f64| {
        json!({
            "flag": "banner", "state": "running", "control": "none",
            "arms": {"none": 100.0 - red - blue, "red": red, "blue": blue},
        })
    };
    let mut world = World::with(&[experiment("banner", three(5.0, 20.0))]);
    let first = world.everybody("banner");
    // The order of the changes matters: the same weights are reached on another way.
    world
        .change(&[experiment("banner", three(30.0, 10.0))])
        .unwrap();
    for (was, is) in first.iter().zip(&world.everybody("banner")) {
        let moved = (was.as_str(), is.as_str());
        assert!(was == is || [("blue*", "none*"), ("none*", "red*")].contains(&moved));
    }
    world
        .change(&[experiment("banner", three(0.0, 40.0))])
        .unwrap();
    let wanted = world.everybody("banner");
    let revision = world.now().clone();
    for weights in [three(10.0, 30.0), three(60.0, 0.0), three(50.0, 50.0)] {
        world.change(&[experiment("banner", weights)]).unwrap();
    }
    // All documents go back.
    world.add(revision.clone()).unwrap();
    assert_eq!(world.everybody("banner"), wanted);
    // Or one alone, with its tables.
    world
        .change(&[experiment("banner", three(33.0, 33.0))])
        .unwrap();
    let mut one = world.now().clone();
    let text = revision.get(Kind::Experiment, "banner").unwrap().to_owned();
    one.documents
        .entry(Kind::Experiment)
        .or_default()
        .insert("banner".into(), text);
    for name in companions("banner") {
        let text = revision.get(Kind::Allocation, &name).unwrap().to_owned();
        one.documents
            .entry(Kind::Allocation)
            .or_default()
            .insert(name, text);
    }
    world.add(one).unwrap();
    assert_eq!(world.everybody("banner"), wanted);
    let compiled = world.compiled();
    let epochs = compiled
        .experiments
        .allocation("banner")
        .unwrap()
        .epochs
        .all();
    assert_eq!(epochs.len(), 9, "each table of each time is known");
}

#[test]
fn what_keeps_people_in_their_arms_cannot_change_while_it_runs() {
    let mut world = World::with(&[
        (Kind::Layer, "page", json!({})),
        experiment("checkout", checkout(5.0)),
    ]);
    for (member, value) in [
        ("flag", json!("other")),
        ("subject", json!("customer")),
        ("salt", json!("new")),
        ("layer", json!("page")),
        ("control", json!("on")),
    ] {
        let body = with(checkout(5.0), member, value);
        let mistakes = world.change(&[experiment("checkout", body)]).unwrap_err();
        assert_eq!(mistakes[0].pointer, format!("/{member}"));
        assert!(
            mistakes[0].message.contains("can't change while it runs"),
            "{}",
            mistakes[0]
        );
    }
    let flags = |old: &str, new: &str| {
        assert!(FLAGS.contains(old));
        let flags = serde_json::from_str(&FLAGS.replacen(old, new, 1)).unwrap();
        (Kind::Flags, "demo", flags)
    };
    let form = flags(
        "\"flags\"",
        "\"metadata\": {\"fractional\": \"v3\"}, \"flags\"",
    );
    let mistakes = world.change(std::slice::from_ref(&form)).unwrap_err();
    assert!(
        mistakes[0].message.contains("`fractional` was `v2`"),
        "{}",
        mistakes[0]
    );
    let variant = flags("\"on\": true", "\"on\": false");
    let mistakes = world.change(&[variant]).unwrap_err();
    assert_eq!(mistakes[0].pointer, "/arms/on");
    world
        .change(&[flags("\"red\": \"r\"", "\"red\": \"x\"")])
        .expect("another flag");
    let stopped = with(checkout(5.0), "state", json!("stopped"));
    world
        .change(&[experiment("checkout", stopped), form])
        .expect("it does not run any more");
}

#[test]
fn two_experiments_on_a_flag_or_of_one_salt_do_not_run_together() {
    let mut world = World::with(&[experiment("checkout", checkout(5.0))]);
    let mistakes = world
        .change(&[experiment("again", checkout(5.0))])
        .unwrap_err();
    assert_eq!(mistakes[0].document, "experiment/checkout");
    assert_eq!(mistakes[0].pointer, "/flag");
    let other = json!({
        "flag": "other", "state": "running", "control": "a", "salt": "checkout",
        "arms": {"a": 50, "b": 50},
    });
    let mistakes = world.change(&[experiment("other", other)]).unwrap_err();
    assert_eq!(mistakes[0].pointer, "/salt");
    let draft = with(checkout(5.0), "state", json!("draft"));
    world
        .change(&[experiment("again", draft)])
        .expect("a draft may be");
}

#[test]
fn arms_are_variants_of_the_flag() {
    let mut world = World::with(&[]);
    let unknown = with(checkout(5.0), "flag", json!("none"));
    let mistakes = world
        .change(&[experiment("checkout", unknown)])
        .unwrap_err();
    assert_eq!(mistakes[0].pointer, "/flag");
    let arms = with(checkout(5.0), "arms", json!({"off": 50, "maybe": 50}));
    let mistakes = world.change(&[experiment("checkout", arms)]).unwrap_err();
    assert_eq!(mistakes[0].pointer, "/arms/maybe");
    assert_eq!(
        mistakes[0].message,
        "`maybe` is no variant of the flag `new-checkout`"
    );
    let ramp = json!([{"at": "2026-12-01T09:00:00Z", "arms": {"off": 50, "maybe": 50}}]);
    let body = with(checkout(5.0), "ramp", ramp);
    let mistakes = world.change(&[experiment("checkout", body)]).unwrap_err();
    assert_eq!(mistakes[0].pointer, "/ramp/0/arms/maybe");
}

#[test]
fn who_starts_again_begins_where_they_were_unless_the_draw_is_another() {
    let mut world = World::with(&[experiment("checkout", checkout(30.0))]);
    let before = world.everybody("new-checkout");
    let stopped = with(checkout(30.0), "state", json!("stopped"));
    world.change(&[experiment("checkout", stopped)]).unwrap();
    world
        .change(&[experiment("checkout", checkout(30.0))])
        .unwrap();
    assert_eq!(world.everybody("new-checkout"), before);
    let stopped = with(checkout(30.0), "state", json!("stopped"));
    world.change(&[experiment("checkout", stopped)]).unwrap();
    let other = with(checkout(30.0), "salt", json!("again"));
    world.change(&[experiment("checkout", other)]).unwrap();
    assert_ne!(world.everybody("new-checkout"), before);
}
