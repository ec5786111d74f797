//! The documents of experiments, layers and holdouts, as people write them.

use std::collections::BTreeMap;

use hydrant_contracts::bucket::SLOTS;
use hydrant_flags::{Mistake, Rule};
use serde_json::Value;

use super::fields::{Fields, Findings, is_name};
use super::{MAX_GUARDS, MAX_NAME, MAX_STEPS};

/// Where an experiment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It is being written; nobody is in it.
    Draft,
    /// People are in its arms.
    Running,
    /// It is over; nobody is in it any more.
    Stopped,
}

impl Stage {
    const ALL: [(&str, Self); 3] = [
        ("draft", Self::Draft),
        ("running", Self::Running),
        ("stopped", Self::Stopped),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What arms get, in slots; they sum to all slots.
pub(crate) type Weights = BTreeMap<String, u16>;

/// A document `experiment/{name}`.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) flag: String,
    pub(crate) stage: Stage,
    pub(crate) layer: Option<String>,
    /// The share of the layer, in slots.
    pub(crate) traffic: u16,
    pub(crate) control: String,
    pub(crate) arms: Weights,
    pub(crate) eligible: Option<Rule>,
    /// The attribute that says who somebody is.
    pub(crate) subject: String,
    /// What the draw of the arms begins with.
    pub(crate) salt: String,
    pub(crate) ramp: Vec<Step>,
    pub(crate) guards: Vec<Guard>,
    /// The document as it is.
    pub(crate) text: String,
}

/// Other weights, from a time on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) at_unix_ms: i64,
    pub(crate) arms: Weights,
}

/// A metric that must not become worse.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    pub(crate) metric: String,
    pub(crate) worse: Worse,
    /// By how much an arm may be worse than the control.
    pub(crate) limit: f64,
    /// How many people each of both arms must have before it counts.
    pub(crate) minimum: u64,
}

/// Which way is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worse {
    Higher,
    Lower,
}

impl Worse {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// The attribute that says who somebody is, when an experiment does not say.
pub(crate) const TARGETING_KEY: &str = "targetingKey";

impl Definition {
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let findings = Findings::of(format!("experiment/{name}"));
        check_name(name, &findings);
        let Some(object) = findings.parse(text) else {
            return findings.result(None);
        };
        let read = read(name, text, Fields::of(&object, "", &findings));
        findings.result(read)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// The step of the ramp that is due: the last one whose time has come, if it is behind `ramped`,
    /// the time of the step that was taken last. What was missed before it, it makes up for.
    pub(crate) fn due(&self, ramped_unix_ms: i64, now_unix_ms: i64) -> Option<&Step> {
        let come = self
            .ramp
            .iter()
            .rev()
            .find(|step| step.at_unix_ms <= now_unix_ms);
        come.filter(|step| step.at_unix_ms > ramped_unix_ms)
    }

    /// The time of the step that has come and is taken, since its weights hold now or held in the
    /// revision before; 0 when there is none. What people change later, the step does not undo.
    pub(super) fn taken_at(&self, before: Option<&Self>, now_unix_ms: i64) -> i64 {
        let holds = |step: &&Step| {
            let held = before.is_some_and(|before| before.is_running() && before.arms == step.arms);
            held || self.arms == step.arms
        };
        let step = self.due(i64::MIN, now_unix_ms).filter(holds);
        step.map_or(0, |step| step.at_unix_ms)
    }
}

fn read(name: &str, text: &str, fields: Fields<'_>) -> Option<Definition> {
    fields.only(&[
        "flag",
        "state",
        "layer",
        "traffic",
        "control",
        "arms",
        "eligible",
        "subject",
        "salt",
        "ramp",
        "guards",
        "description",
    ]);
    fields.text("description");
    let flag = fields.needed_text("flag", "name the flag that the experiment is on");
    let stage = fields.choice("state", &Stage::ALL);
    let control = fields.needed_text("control", "name the arm that the others are compared with");
    let arms = fields.weights("arms");
    let eligible = eligible(&fields);
    let layer = fields.name("layer").map(str::to_owned);
    let salt = fields.name("salt").unwrap_or(name).to_owned();
    let subject = fields.text("subject").unwrap_or(TARGETING_KEY).to_owned();
    let traffic = traffic(&fields);
    let (control, arms) = (control?.to_owned(), arms?);
    is_an_arm(&fields, &control, &arms);
    let guards = guards(&fields);
    let ramp = ramp(&fields, &control);
    Some(Definition {
        name: name.to_owned(),
        flag: flag?.to_owned(),
        stage: stage?,
        layer,
        traffic,
        control,
        arms,
        eligible,
        subject,
        salt,
        ramp,
        guards,
        text: text.to_owned(),
    })
}

fn check_name(name: &str, findings: &Findings) {
    if !is_name(name) {
        let message = format!("the name has more than {MAX_NAME} bytes");
        findings.say("", message, "choose a shorter name");
    }
}

fn is_an_arm(fields: &Fields<'_>, control: &str, arms: &Weights) {
    if !arms.contains_key(control) {
        let message = format!(
            "the control `{}` is none of the arms",
            control.escape_debug()
        );
        fields.wrong("control", message, "name one of `arms`");
    }
}

fn traffic(fields: &Fields<'_>) -> u16 {
    let traffic = fields.share("traffic").unwrap_or(SLOTS);
    if traffic == 0 {
        fields.wrong(
            "traffic",
            "`traffic` is 0, so nobody is in the experiment",
            "write 1 for all",
        );
    }
    traffic
}

fn eligible(fields: &Fields<'_>) -> Option<Rule> {
    let rule = fields.object.get("eligible")?;
    match Rule::compile(rule) {
        Ok(rule) => Some(rule),
        Err(mut mistake) => {
            mistake.pointer = format!("/eligible{}", mistake.pointer);
            fields.findings.add(mistake);
            None
        }
    }
}

fn ramp(fields: &Fields<'_>, control: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, value) in fields.objects("ramp", MAX_STEPS).iter().enumerate() {
        let pointer = format!("/ramp/{at}");
        let Some(step) = step(value, &pointer, fields.findings, control) else {
            continue;
        };
        if steps
            .last()
            .is_some_and(|last| last.at_unix_ms >= step.at_unix_ms)
        {
            let message = "a step is not later than the one before it";
            fields
                .findings
                .say(format!("{pointer}/at"), message, "write the steps in order");
        }
        steps.push(step);
    }
    steps
}

fn step(value: &Value, pointer: &str, findings: &Findings, control: &str) -> Option<Step> {
    let fields = nested(value, pointer, findings, "{\"at\": …, \"arms\": { … }}")?;
    fields.only(&["at", "arms"]);
    const MEND: &str = "write a time as 2026-12-01T09:00:00Z";
    let at = fields.needed_text("at", MEND);
    let arms = fields.weights("arms")?;
    if !arms.contains_key(control) {
        fields.wrong(
            "arms",
            format!("the control `{control}` is missing"),
            "give it what is left",
        );
    }
    let Ok(at) = at?.parse::<jiff::Timestamp>() else {
        fields.wrong("at", "`at` is no point in time", MEND);
        return None;
    };
    let at_unix_ms = at.as_millisecond();
    Some(Step { at_unix_ms, arms })
}

fn guards(fields: &Fields<'_>) -> Vec<Guard> {
    let list = fields.objects("guards", MAX_GUARDS).iter().enumerate();
    let read = |(at, value)| guard(value, &format!("/guards/{at}"), fields.findings);
    list.filter_map(read).collect()
}

fn guard(value: &Value, pointer: &str, findings: &Findings) -> Option<Guard> {
    let fields = nested(value, pointer, findings, "{\"metric\": …, \"worse\": …}")?;
    fields.only(&["metric", "worse", "limit", "minimum"]);
    let named = fields.needed_text("metric", "name the metric that apps report");
    let metric = named.and_then(|_| fields.name("metric"));
    let worse = fields.choice(
        "worse",
        &[("higher", Worse::Higher), ("lower", Worse::Lower)],
    );
    let limit = fields.number("limit", 0.0).unwrap_or(0.0);
    let minimum = fields.number("minimum", 1.0).unwrap_or(DEFAULT_MINIMUM);
    Some(Guard {
        metric: metric?.to_owned(),
        worse: worse?,
        limit,
        minimum: minimum as u64,
    })
}

/// How many people each arm must have, when a guard does not say.
const DEFAULT_MINIMUM: f64 = 200.0;

fn nested<'a>(
    value: &'a Value,
    pointer: &'a str,
    findings: &'a Findings,
    form: &str,
) -> Option<Fields<'a>> {
    let object = value.as_object();
    if object.is_none() {
        findings.say(
            pointer,
            "it is not an object",
            &format!("write it as {form}"),
        );
    }
    Some(Fields::of(object?, pointer, findings))
}

/// A document `layer/{name}`: its experiments share people, and nobody is in two of them.
#[derive(Clone, Debug)]
pub(crate) struct Layer;

impl Layer {
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let findings = Findings::of(format!("layer/{name}"));
        check_name(name, &findings);
        if let Some(object) = findings.parse(text) {
            let fields = Fields::of(&object, "", &findings);
            fields.only(&["description"]);
            fields.text("description");
        }
        findings.result(Some(Self))
    }
}

/// A document `holdout/{name}`: a share of people who are in no experiment.
#[derive(Clone, Debug)]
pub(crate) struct Holdout {
    pub(crate) name: String,
    /// How many slots are held out, from 0.
    pub(crate) slots: u16,
    /// The layers that it is of; all experiments when there is none.
    pub(crate) layers: Option<Vec<String>>,
}

impl Holdout {
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let findings = Findings::of(format!("holdout/{name}"));
        check_name(name, &findings);
        let Some(object) = findings.parse(text) else {
            return findings.result(None);
        };
        let fields = Fields::of(&object, "", &findings);
        fields.only(&["share", "layers", "description"]);
        fields.text("description");
        let slots = fields.share("share");
        if !object.contains_key("share") {
            findings.say(
                "",
                "`share` is missing",
                "write 0.05 for a twentieth of the people",
            );
        }
        let layers = layers(&fields);
        let read = slots.map(|slots| Self {
            name: name.to_owned(),
            slots,
            layers,
        });
        findings.result(read)
    }

    /// The salt of its draw.
    pub(crate) fn salt(&self) -> String {
        format!("holdout/{}", self.name)
    }

    /// Whether it is about experiments in this layer.
    pub(crate) fn covers(&self, layer: Option<&str>) -> bool {
        match &self.layers {
            None => true,
            Some(layers) => layer.is_some_and(|layer| layers.iter().any(|one| one == layer)),
        }
    }
}

fn layers(fields: &Fields<'_>) -> Option<Vec<String>> {
    let layers = fields.object.get("layers")?;
    let names = layers.as_array().map(|list| {
        let names = list.iter().map(|name| name.as_str().map(str::to_owned));
        names.collect::<Option<Vec<String>>>()
    });
    if names.as_ref().is_none_or(Option::is_none) {
        let mend = "write [\"checkout\"], or leave it out for all layers";
        fields.wrong("layers", "`layers` is not a list of names", mend);
    }
    names.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
  "flag": "new-checkout",
  "state": "running",
  "layer": "checkout",
  "traffic": 0.2,
  "control": "off",
  "arms": {"off": 95, "on": 5},
  "eligible": {"==": [{"var": "country"}, "DE"]},
  "ramp": [
    {"at": "2026-12-01T09:00:00Z", "arms": {"off": 90, "on": 10}},
    {"at": "2026-12-02T10:00:00+01:00", "arms": {"off": 66.67, "on": 33.33}}
  ],
  "guards": [{"metric": "checkout_error", "worse": "higher", "limit": 0.02, "minimum": 500}]
}"#;

    /// Parses [`GOOD`] with one text instead of another.
    fn with(old: &str, new: &str) -> Result<Definition, Vec<Mistake>> {
        assert!(GOOD.contains(old), "{old}");
        Definition::parse("checkout", &GOOD.replace(old, new))
    }

    #[test]
    fn an_experiment_is_read() {
        let read = with("", "").unwrap();
        assert_eq!(
            (read.flag.as_str(), read.stage),
            ("new-checkout", Stage::Running)
        );
        assert_eq!(
            (read.traffic, read.layer.as_deref()),
            (2000, Some("checkout"))
        );
        assert_eq!(
            (read.subject.as_str(), read.salt.as_str()),
            (TARGETING_KEY, "checkout")
        );
        assert_eq!(
            read.arms,
            Weights::from([("off".into(), 9500), ("on".into(), 500)])
        );
        assert_eq!(read.ramp[1].arms["on"], 3333);
        assert_eq!(
            read.ramp[1].at_unix_ms - read.ramp[0].at_unix_ms,
            24 * 3_600_000
        );
        assert_eq!(read.guards[0].minimum, 500);
        assert_eq!(read.guards[0].worse, Worse::Higher);
    }

    #[test]
    fn every_mistake_has_its_place() {
        for (old, new, pointer) in [
            ("\"flag\": \"new-checkout\",", "", ""),
            ("\"flag\": \"new-checkout\"", "\"flag\": 7", "/flag"),
            ("\"running\"", "\"on\"", "/state"),
            ("\"checkout\",", "\"a b\",", "/layer"),
            ("0.2", "1.2", "/traffic"),
            ("0.2", "0", "/traffic"),
            ("0.2", "\"0.2\"", "/traffic"),
            ("\"control\": \"off\"", "\"control\": \"none\"", "/control"),
            ("\"on\": 5", "\"on\": 4.9", "/arms"),
            ("\"on\": 5", "\"on\": 5.001", "/arms/on"),
            ("\"on\": 5", "\"on\": -5", "/arms/on"),
            ("{\"off\": 95, \"on\": 5}", "{\"off\": 100}", "/arms"),
            ("\"traffic\"", "\"trafic\"", "/trafic"),
            ("2026-12-01T09:00:00Z", "tomorrow", "/ramp/0/at"),
            (
                "2026-12-02T10:00:00+01:00",
                "2026-12-01T09:00:00Z",
                "/ramp/1/at",
            ),
            (
                "{\"off\": 66.67, \"on\": 33.33}",
                "{\"a\": 50, \"b\": 50}",
                "/ramp/1/arms",
            ),
            ("66.67", "66.66", "/ramp/1/arms"),
            ("\"higher\"", "\"bad\"", "/guards/0/worse"),
            ("0.02", "-1", "/guards/0/limit"),
            ("500}", "0}", "/guards/0/minimum"),
            (
                "\"checkout_error\"",
                "\"checkout error\"",
                "/guards/0/metric",
            ),
        ] {
            let mistakes = with(old, new).unwrap_err();
            assert_eq!(mistakes[0].pointer, pointer, "{new}: {}", mistakes[0]);
            assert_eq!(mistakes[0].document, "experiment/checkout");
            assert!(!mistakes[0].mend.is_empty(), "{}", mistakes[0]);
        }
        let two = GOOD.replace("0.2", "2").replace("\"on\": 5", "\"on\": 6");
        assert_eq!(Definition::parse("checkout", &two).unwrap_err().len(), 2);
        assert!(Definition::parse(&"x".repeat(81), GOOD).is_err());
        for text in ["", "[]", "{", "{\"flag\": 1, \"flag\": 2}"] {
            assert!(Definition::parse("checkout", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_step_is_due_once_and_makes_up_for_what_was_missed() {
        let read = with("", "").unwrap();
        let (first, second) = (read.ramp[0].at_unix_ms, read.ramp[1].at_unix_ms);
        assert_eq!(read.due(0, first - 1), None);
        assert_eq!(read.due(0, first), Some(&read.ramp[0]));
        assert_eq!(read.due(first, first + 5), None);
        assert_eq!(read.due(first, second), Some(&read.ramp[1]));
        assert_eq!(
            read.due(0, second + 5),
            Some(&read.ramp[1]),
            "the first was missed"
        );
    }

    #[test]
    fn what_people_change_after_a_step_stays() {
        let before = with("\"off\": 95, \"on\": 5", "\"off\": 90, \"on\": 10").unwrap();
        let after = with("", "").unwrap();
        let first = after.ramp[0].at_unix_ms;
        assert_eq!(after.taken_at(None, first), 0, "the step is to come");
        assert_eq!(before.taken_at(None, first), first, "its weights hold");
        assert_eq!(after.taken_at(Some(&before), first + 5), first, "they held");
    }

    #[test]
    fn holdouts_and_layers_are_read() {
        let some = Holdout::parse("a", r#"{"share": 0.05, "layers": ["checkout"]}"#).unwrap();
        assert_eq!((some.slots, some.salt().as_str()), (500, "holdout/a"));
        assert!(some.covers(Some("checkout")) && !some.covers(Some("other")) && !some.covers(None));
        assert!(Holdout::parse("a", r#"{"share": 1}"#).unwrap().covers(None));
        for bad in [
            "{}",
            "{\"share\": 2}",
            "{\"share\": 0.1, \"layers\": [1]}",
            "{\"x\": 1}",
        ] {
            assert!(Holdout::parse("a", bad).is_err(), "{bad}");
        }
        assert!(Layer::parse("a", "{}").is_ok());
        assert!(Layer::parse("a", "{\"x\": 1}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(at in 0..GOOD.len(), text in "[\\[\\]{}\",:0-9a-z.\\-]{0,8}") {
            if GOOD.is_char_boundary(at) {
                let _ = Definition::parse("a", &format!("{}{text}{}", &GOOD[..at], &GOOD[at..]));
                let _ = Definition::parse("a", &format!("{}{text}", &GOOD[..at]));
            }
        }
    }
}
