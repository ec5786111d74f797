//! One flag set: its shape is checked, and its flags compiled.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::flag::{Prepared, Variant};
use crate::logic::{Compiler, Finding, Form, Gravity};
use crate::text::step;
use crate::{Flag, Mistake, text};

/// The most flags of one set.
const MAX_FLAGS: usize = 10_000;

/// The most metadata of a set, in bytes of JSON: every flag has it all.
const MAX_METADATA: usize = 4096;

/// The most mistakes that are told with their places: each is looked for in the whole text.
pub(crate) const MAX_TOLD: usize = 100;

/// What a set has, and what a flag has.
const SET: [&str; 3] = ["flags", "$evaluators", "metadata"];
const FLAG: [&str; 5] = [
    "state",
    "variants",
    "defaultVariant",
    "targeting",
    "metadata",
];

/// What became of a set.
#[derive(Default)]
pub(crate) struct Set {
    pub(crate) flags: Vec<Flag>,
    /// The flags that can't be evaluated.
    pub(crate) broken: HashSet<String>,
    /// Whether a rule may read the clock.
    pub(crate) uses_time: bool,
    pub(crate) findings: Vec<Finding>,
}

/// Where a flag stands.
pub(crate) fn pointer_of(key: &str) -> String {
    format!("/flags/{}", step(key))
}

/// Compiles a set, as far as it can be. Mistakes have their places.
pub(crate) fn compile(name: &str, text: &str) -> Set {
    let value = match text::read(text) {
        Ok(value) => value,
        Err(mistakes) => return broken(mistakes),
    };
    let Value::Object(members) = &value else {
        return broken(vec![
            Mistake::at("", "a flag set is an object").located(text),
        ]);
    };
    let mut reader = Reader::new(name, members);
    reader.read(members);
    let mut set = reader.finish();
    let told = set.findings.len().min(MAX_TOLD);
    let told = &mut set.findings[..told];
    for finding in told.iter_mut() {
        finding.mistake = std::mem::take(&mut finding.mistake).located(text);
    }
    told.sort_by_key(|finding| (finding.mistake.line, finding.mistake.column));
    set
}

fn broken(mistakes: Vec<Mistake>) -> Set {
    let gravity = Gravity::Breaks;
    let findings = mistakes
        .into_iter()
        .map(|mistake| Finding { gravity, mistake });
    Set {
        findings: findings.collect(),
        ..Set::default()
    }
}

struct Reader<'s> {
    name: &'s str,
    metadata: Map<String, Value>,
    compiler: Compiler<'s>,
    set: Set,
}

impl<'s> Reader<'s> {
    fn new(name: &'s str, members: &'s Map<String, Value>) -> Self {
        let metadata = members.get("metadata").and_then(Value::as_object);
        let form = metadata
            .and_then(|it| it.get("fractional"))
            .and_then(Value::as_str);
        let form = form.and_then(Form::parse).unwrap_or_default();
        let evaluators = members.get("$evaluators").and_then(Value::as_object);
        Self {
            name,
            metadata: metadata.cloned().unwrap_or_default(),
            compiler: Compiler::new(evaluators, form),
            set: Set::default(),
        }
    }

    fn finish(mut self) -> Set {
        let follows = |finding: &Finding| finding.gravity == Gravity::Follows;
        let mut findings = self.compiler.findings;
        findings.retain(|finding| !follows(finding));
        self.set.findings.extend(findings);
        self.set.uses_time = self.compiler.uses_time;
        self.set
    }

    fn found(&mut self, gravity: Gravity, mistake: Mistake) {
        self.set.findings.push(Finding { gravity, mistake });
    }

    /// A mistake that evaluators would not mind.
    fn shape(&mut self, pointer: impl Into<String>, message: impl Into<String>, mend: &str) {
        self.found(Gravity::Shape, Mistake::at(pointer, message).mend(mend));
    }

    fn read(&mut self, members: &Map<String, Value>) {
        self.misspelled("", members, &SET);
        self.set_metadata(members.get("metadata"));
        self.evaluators(members.get("$evaluators"));
        match members.get("flags") {
            Some(Value::Object(flags)) => self.flags(flags),
            Some(_) => {
                let mend = "Write {\"flags\": {\"my-flag\": { … }}}.";
                self.found(
                    Gravity::Breaks,
                    Mistake::at(
                        "/flags",
                        "`flags` is an object: the key of a flag, and the flag",
                    )
                    .mend(mend),
                );
            }
            None => {
                let mend = "Write {\"flags\": {}} when there is none yet.";
                self.found(
                    Gravity::Breaks,
                    Mistake::at("", "`flags` is missing").mend(mend),
                );
            }
        }
    }

    /// Definitions may have members that nobody knows; but one that is nearly known was meant, and would
    /// say nothing.
    fn misspelled(&mut self, pointer: &str, members: &Map<String, Value>, known: &[&str]) {
        let unknown = members
            .keys()
            .filter(|name| !known.contains(&name.as_str()));
        for name in unknown {
            let missing = known.iter().filter(|known| !members.contains_key(**known));
            if let Some(meant) = { missing }.find(|known| is_near(name, known)) {
                let message = format!("nobody knows `{name}` here");
                let mend = format!("Write `{meant}`.");
                self.shape(format!("{pointer}/{}", step(name)), message, &mend);
            }
        }
    }

    fn set_metadata(&mut self, metadata: Option<&Value>) {
        self.metadata_values("/metadata", metadata);
        if metadata.is_some_and(|it| it.to_string().len() > MAX_METADATA) {
            let message = format!("the metadata of a set has at most {MAX_METADATA} bytes");
            let mend = "Give it to the flags that it is about.";
            self.found(Gravity::Shape, Mistake::at("/metadata", message).mend(mend));
        }
        for name in ["flagSetId", "version"] {
            let value = metadata.and_then(|it| it.get(name));
            if value.is_some_and(|value| !value.is_string()) {
                self.shape(
                    format!("/metadata/{name}"),
                    format!("`{name}` is a text"),
                    "",
                );
            }
        }
        let form = metadata.and_then(|it| it.get("fractional"));
        if form.is_some_and(|form| form.as_str().and_then(Form::parse).is_none()) {
            let message = "`fractional` is \"v2\" or \"v3\"";
            self.found(
                Gravity::Breaks,
                Mistake::at("/metadata/fractional", message).mend("Leave it away for \"v2\"."),
            );
        }
    }

    fn metadata_values(&mut self, pointer: &str, metadata: Option<&Value>) {
        let values = match metadata {
            None => return,
            Some(Value::Object(values)) => values,
            Some(_) => return self.shape(pointer, "metadata is an object", ""),
        };
        for (name, value) in values {
            if !(value.is_string() || value.is_number() || value.is_boolean()) {
                let message = "a value of metadata is a text, a number, true or false";
                self.shape(format!("{pointer}/{}", step(name)), message, "");
            }
        }
    }

    fn evaluators(&mut self, evaluators: Option<&Value>) {
        let evaluators = match evaluators {
            None => return,
            Some(Value::Object(evaluators)) => evaluators,
            Some(_) => {
                return self.shape(
                    "/$evaluators",
                    "`$evaluators` is an object: names, and expressions",
                    "",
                );
            }
        };
        for (name, rule) in evaluators {
            let pointer = format!("/$evaluators/{}", step(name));
            if name.is_empty() {
                self.shape(&pointer, "an evaluator has a name", "");
            }
            if !rule.is_object() {
                self.shape(&pointer, "an evaluator is an expression", "");
            }
        }
        self.compiler.all_evaluators();
    }

    fn flags(&mut self, flags: &Map<String, Value>) {
        if flags.len() > MAX_FLAGS {
            let message = format!("the set has more than {MAX_FLAGS} flags");
            return self.found(Gravity::Breaks, Mistake::at("/flags", message));
        }
        for (key, flag) in flags {
            let before = (self.set.findings.len(), self.compiler.findings.len());
            let compiled = self.flag(key, flag);
            let found = self.set.findings[before.0..]
                .iter()
                .chain(&self.compiler.findings[before.1..]);
            if found
                .into_iter()
                .any(|finding| finding.gravity != Gravity::Shape)
            {
                self.set.broken.insert(key.clone());
            }
            self.set.flags.extend(compiled);
        }
    }

    fn flag(&mut self, key: &str, flag: &Value) -> Option<Flag> {
        let pointer = pointer_of(key);
        if key.is_empty() {
            self.shape(&pointer, "a flag has a key", "");
        }
        let Value::Object(flag) = flag else {
            self.found(Gravity::Breaks, Mistake::at(pointer, "a flag is an object"));
            return None;
        };
        self.misspelled(&pointer, flag, &FLAG);
        let is_disabled = self.state(&pointer, flag.get("state"));
        let variants = self.variants(&pointer, flag.get("variants"));
        let default = self.default(&pointer, flag.get("defaultVariant"), &variants);
        self.metadata_values(&format!("{pointer}/metadata"), flag.get("metadata"));
        let mut metadata = self.metadata.clone();
        let own = flag.get("metadata").and_then(Value::as_object);
        metadata.extend(
            own.into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Some(Flag {
            key: key.to_owned(),
            set: self.name.to_owned(),
            prepared: Prepared::new(key, &metadata),
            metadata,
            is_disabled,
            default,
            targeting: self.targeting(&pointer, flag.get("targeting"), &variants),
            variants: variants.into(),
        })
    }

    fn state(&mut self, pointer: &str, state: Option<&Value>) -> bool {
        match state.and_then(Value::as_str) {
            Some("ENABLED") => return false,
            Some("DISABLED") => return true,
            _ => {}
        }
        let (pointer, message) = match state {
            Some(_) => (
                format!("{pointer}/state"),
                "the state of a flag is \"ENABLED\" or \"DISABLED\"",
            ),
            None => (pointer.to_owned(), "the flag has no `state`"),
        };
        self.found(
            Gravity::Breaks,
            Mistake::at(pointer, message).mend("Write \"state\": \"ENABLED\"."),
        );
        true
    }

    fn variants(&mut self, pointer: &str, variants: Option<&Value>) -> Vec<Variant> {
        let mend = "Write \"variants\": {\"on\": true, \"off\": false}.";
        let Some(variants) = variants else {
            self.found(
                Gravity::Breaks,
                Mistake::at(pointer, "the flag has no `variants`").mend(mend),
            );
            return Vec::new();
        };
        let pointer = format!("{pointer}/variants");
        let variants = match variants {
            Value::Object(variants) if !variants.is_empty() => variants,
            _ => {
                let message = "`variants` has at least one name with its value";
                self.found(Gravity::Breaks, Mistake::at(pointer, message).mend(mend));
                return Vec::new();
            }
        };
        self.variant_types(&pointer, variants);
        variants
            .iter()
            .map(|(name, value)| Variant::new(name, value))
            .collect()
    }

    fn variant_types(&mut self, pointer: &str, variants: &Map<String, Value>) {
        let mut wanted = None;
        for (name, value) in variants {
            let pointer = format!("{pointer}/{}", step(name));
            if name.is_empty() {
                self.shape(&pointer, "a variant has a name", "");
            }
            let Some(kind) = kind(value) else {
                self.shape(
                    &pointer,
                    "a variant is true or false, a text, a number or an object",
                    "",
                );
                continue;
            };
            let (first, first_name) = *wanted.get_or_insert((kind, name));
            if kind != first {
                let message = format!(
                    "the variants are of one type: `{first_name}` is {first}, and this is {kind}"
                );
                self.shape(&pointer, message, "");
            }
        }
    }

    fn default(
        &mut self,
        pointer: &str,
        default: Option<&Value>,
        variants: &[Variant],
    ) -> Option<usize> {
        let name = match default {
            None | Some(Value::Null) => return None,
            Some(Value::String(name)) => name,
            Some(_) => {
                let message = "`defaultVariant` is the name of a variant, or null";
                self.shape(format!("{pointer}/defaultVariant"), message, "");
                return None;
            }
        };
        let place = variants.iter().position(|variant| variant.name() == name);
        // A flag without variants has a mistake of its own.
        if place.is_none() && !variants.is_empty() {
            let gravity = if name.is_empty() {
                Gravity::Shape
            } else {
                Gravity::Breaks
            };
            let message = format!("there is no variant `{name}`");
            self.found(
                gravity,
                Mistake::at(format!("{pointer}/defaultVariant"), message).mend(among(variants)),
            );
        }
        place
    }

    fn targeting(
        &mut self,
        pointer: &str,
        targeting: Option<&Value>,
        variants: &[Variant],
    ) -> Option<crate::logic::Node> {
        let targeting = targeting?;
        let pointer = format!("{pointer}/targeting");
        match targeting {
            Value::Object(rule) if rule.is_empty() => return None,
            Value::Object(_) => {}
            _ => {
                self.shape(
                    pointer,
                    "targeting is an expression: an object with one operator",
                    "",
                );
                return None;
            }
        }
        if !variants.is_empty() {
            self.results(targeting, &pointer, variants);
        }
        Some(self.compiler.compile(targeting, &pointer))
    }

    /// Looks at the variants that a rule names where it gives its result.
    fn results(&mut self, rule: &Value, pointer: &str, variants: &[Variant]) {
        let result = match rule {
            Value::Object(members) => return self.results_of(members, pointer, variants),
            Value::String(name) => name.clone(),
            Value::Bool(bool) => bool.to_string(),
            Value::Null | Value::Number(_) | Value::Array(_) => return,
        };
        if !variants.iter().any(|variant| variant.name() == result) {
            self.shape(
                pointer,
                format!("there is no variant `{result}`"),
                &among(variants),
            );
        }
    }

    fn results_of(&mut self, rule: &Map<String, Value>, pointer: &str, variants: &[Variant]) {
        let Some((operator, Value::Array(arguments))) = rule.iter().next() else {
            return;
        };
        let pointer = format!("{pointer}/{}", step(operator));
        for (index, argument) in arguments.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            match operator.as_str() {
                "if" | "?:" if index % 2 == 1 || index + 1 == arguments.len() => {
                    self.results(argument, &pointer, variants);
                }
                "fractional" => {
                    if let Some(variant) = argument.get(0) {
                        self.results(variant, &format!("{pointer}/0"), variants);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The type of a variant's value, as it is called; `None` when it can't be one.
fn kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Bool(_) => Some("true or false"),
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Object(_) => Some("an object"),
        Value::Null | Value::Array(_) => None,
    }
}

/// Whether at most two letters are missing, too many or others; their case does not count.
fn is_near(name: &str, known: &str) -> bool {
    if name.len().abs_diff(known.len()) > 2 {
        return false;
    }
    let known = known.to_ascii_lowercase();
    let mut distances: Vec<usize> = (0..=known.len()).collect();
    for (row, letter) in name.to_ascii_lowercase().bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut distances[0], row + 1);
        for (column, other) in known.bytes().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = distances[column + 1];
            distances[column + 1] = changed.min(diagonal + 1).min(distances[column] + 1);
        }
    }
    distances.last().is_some_and(|distance| *distance <= 2)
}

fn among(variants: &[Variant]) -> String {
    let names: Vec<_> = variants
        .iter()
        .take(8)
        .map(|variant| format!("`{}`", variant.name()))
        .collect();
    let more = if variants.len() > names.len() {
        ", …"
    } else {
        ""
    };
    format!("The variants are {}{more}.", names.join(", "))
}
