//! The public test bed of flagd: its features, run scenario by scenario.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hydrant_flags::{Context, Definitions, Evaluation, EvaluationError, Mistake};
use serde_json::{Map, Value, json};

use crate::vectors;

/// About now: the scenarios compare it with what is far from it.
const NOW: i64 = 1_795_000_000;

/// What an evaluation of a scenario said.
struct Said {
    value: Value,
    reason: &'static str,
    error: Option<&'static str>,
    metadata: Map<String, Value>,
}

/// The state of a scenario while its steps are done.
#[derive(Default)]
struct Scenario {
    kind: String,
    key: String,
    fallback: Value,
    targeting_key: Option<String>,
    attributes: Map<String, Value>,
}

struct Bed {
    definitions: Definitions,
    mistakes: Vec<Mistake>,
    set_metadata: Map<String, Value>,
}

impl Bed {
    fn load(files: &[Value]) -> Self {
        let mut set = json!({"flags": {}, "$evaluators": {}, "metadata": {}});
        for file in files {
            for part in ["flags", "$evaluators", "metadata"] {
                let members = file
                    .get(part)
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten();
                let whole = set[part].as_object_mut().unwrap();
                whole.extend(members.map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        let (definitions, mistakes) = Definitions::lenient("bed", &set.to_string());
        let set_metadata = set["metadata"].as_object().unwrap().clone();
        Self {
            definitions,
            mistakes,
            set_metadata,
        }
    }

    fn evaluate(&self, scenario: &Scenario) -> Said {
        let Some(flag) = self.definitions.get(&scenario.key) else {
            return self.absent(scenario);
        };
        let context = Context {
            targeting_key: scenario.targeting_key.as_deref(),
            attributes: &scenario.attributes,
            now_unix: NOW,
        };
        let metadata = flag.metadata().clone();
        match flag.evaluate(&context) {
            Ok(evaluation) => scenario.typed(&evaluation, metadata),
            Err(EvaluationError::FlagNotFound(_)) => unreachable!("the flag is there"),
            Err(EvaluationError::General(_)) => scenario.error("GENERAL", metadata),
        }
    }

    /// A flag that can't be evaluated is refused on entry, where other evaluators fail later.
    fn absent(&self, scenario: &Scenario) -> Said {
        let pointer = format!("/flags/{}/", scenario.key);
        let refused = self
            .mistakes
            .iter()
            .any(|mistake| mistake.pointer.starts_with(&pointer));
        let error = if refused {
            "PARSE_ERROR"
        } else {
            "FLAG_NOT_FOUND"
        };
        scenario.error(error, self.set_metadata.clone())
    }
}

impl Scenario {
    fn error(&self, error: &'static str, metadata: Map<String, Value>) -> Said {
        Said {
            value: self.fallback.clone(),
            reason: "ERROR",
            error: Some(error),
            metadata,
        }
    }

    /// What a caller sees who asks for a type.
    fn typed(&self, evaluation: &Evaluation<'_>, metadata: Map<String, Value>) -> Said {
        let Some(value) = evaluation.value else {
            return Said {
                value: self.fallback.clone(),
                reason: evaluation.reason.as_str(),
                error: None,
                metadata,
            };
        };
        let fits = match self.kind.as_str() {
            "Boolean" => value.is_boolean(),
            "String" => value.is_string(),
            "Integer" | "Float" => value.is_number(),
            _ => value.is_object(),
        };
        if !fits {
            return self.error("TYPE_MISMATCH", metadata);
        }
        Said {
            value: value.clone(),
            reason: evaluation.reason.as_str(),
            error: None,
            metadata,
        }
    }
}

/// A value of a table, by the type that the step names.
fn typed(kind: &str, text: &str) -> Value {
    let text = text.replace("\\\"", "\"");
    match kind {
        "Boolean" => json!(text == "true"),
        "Integer" => json!(text.parse::<i64>().unwrap()),
        "Float" => json!(text.parse::<f64>().unwrap()),
        "Object" => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}")),
        _ => json!(text),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.as_f64().is_some() && one.as_f64() == other.as_f64())
}

/// The texts in quotes of a step.
fn quoted(step: &str) -> Vec<&str> {
    // The last one may have quotes in it.
    let (mut rest, last) = match step.split_once("with value \"") {
        Some((head, last)) => (head, last.strip_suffix('"')),
        None => (step, None),
    };
    let mut parts = Vec::new();
    while let Some(start) = rest.find('"') {
        let from = &rest[start + 1..];
        let bytes = from.as_bytes();
        let end =
            (0..from.len()).find(|at| bytes[*at] == b'"' && (*at == 0 || bytes[at - 1] != b'\\'));
        let end = end.expect("a quote is closed");
        parts.push(&from[..end]);
        rest = &from[end + 1..];
    }
    parts.extend(last);
    parts
}

/// A scenario's steps, with the values of one example put in.
type Steps = Vec<String>;

struct Outline {
    tags: Vec<String>,
    steps: Steps,
}

/// A reader of as much of Gherkin as the test bed uses.
#[derive(Default)]
struct Feature {
    tags: Vec<String>,
    background: Steps,
    outline: Option<Outline>,
    examples: Option<(Vec<String>, Option<Vec<String>>)>,
    used: bool,
    found: Vec<(Vec<String>, Steps)>,
    in_background: bool,
}

impl Feature {
    fn read(text: &str) -> Vec<(Vec<String>, Steps)> {
        let mut feature = Self::default();
        for line in text.lines().map(str::trim) {
            feature.line(line);
        }
        feature.end();
        feature.found
    }

    fn line(&mut self, line: &str) {
        match line {
            _ if line.is_empty() || line.starts_with('#') => {}
            _ if line.starts_with('@') => {
                self.tags.extend(line.split_whitespace().map(str::to_owned))
            }
            _ if line.starts_with("Feature:") => self.tags.clear(),
            _ if line.starts_with("Background:") => self.in_background = true,
            _ if line.starts_with("Scenario") => self.scenario(),
            _ if line.starts_with("Examples:") => {
                self.examples = Some((std::mem::take(&mut self.tags), None))
            }
            _ if line.starts_with('|') => self.row(line),
            _ => self.step(line),
        }
    }

    fn scenario(&mut self) {
        self.end();
        self.in_background = false;
        self.outline = Some(Outline {
            tags: std::mem::take(&mut self.tags),
            steps: self.background.clone(),
        });
    }

    fn step(&mut self, line: &str) {
        let step = ["Given ", "When ", "Then ", "And "]
            .iter()
            .find_map(|word| line.strip_prefix(word));
        let Some(step) = step else { return };
        match &mut self.outline {
            Some(outline) => outline.steps.push(step.to_owned()),
            None if self.in_background => self.background.push(step.to_owned()),
            None => {}
        }
    }

    fn row(&mut self, line: &str) {
        let cells: Vec<_> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        let Some(outline) = &mut self.outline else {
            return;
        };
        let Some((tags, head)) = &mut self.examples else {
            let step = outline.steps.last_mut().unwrap();
            *step += &format!("\n{}", cells.join("|"));
            return;
        };
        let Some(head) = head else {
            *head = Some(cells);
            return;
        };
        let filled = outline.steps.iter().map(|step| {
            let pairs = head.iter().zip(&cells);
            pairs.fold(step.clone(), |step, (name, cell)| {
                step.replace(&format!("<{name}>"), cell)
            })
        });
        let tags = outline.tags.iter().chain(&*tags).cloned().collect();
        self.found.push((tags, filled.collect()));
        self.used = true;
    }

    fn end(&mut self) {
        if let (Some(outline), false) = (self.outline.take(), self.used) {
            self.found.push((outline.tags, outline.steps));
        }
        (self.examples, self.used) = (None, false);
    }
}

/// Does a scenario's steps; `Err` says which one did not hold.
fn run(bed: &Bed, steps: &[String]) -> Result<(), String> {
    let mut scenario = Scenario::default();
    let mut said = None;
    for step in steps {
        let words = quoted(step);
        match step.as_str() {
            _ if step.contains("flagd provider")
                || step == "an evaluator"
                || step.starts_with("an option") => {}
            _ if step.contains("-flag with key") => {
                let kind = step
                    .split_whitespace()
                    .nth(1)
                    .unwrap()
                    .trim_end_matches("-flag");
                scenario.kind = kind.to_owned();
                scenario.key = words[0].to_owned();
                scenario.fallback = typed(kind, words[1]);
            }
            _ if step.starts_with("a context containing a key") => {
                set_attribute(&mut scenario, words[0], typed(words[1], words[2]));
            }
            _ if step.starts_with("a context containing a targeting key") => {
                set_attribute(&mut scenario, "targetingKey", json!(words[0]));
            }
            _ if step.starts_with("a context containing a nested property") => {
                set_attribute(&mut scenario, words[0], json!({words[1]: words[2]}));
            }
            "the flag was evaluated with details" => said = Some(bed.evaluate(&scenario)),
            _ => holds(
                step,
                &words,
                &scenario,
                said.as_ref().ok_or("nothing was evaluated")?,
            )?,
        }
    }
    Ok(())
}

fn set_attribute(scenario: &mut Scenario, name: &str, value: Value) {
    if name == "targetingKey" {
        scenario.targeting_key = value.as_str().map(str::to_owned);
    }
    scenario.attributes.insert(name.to_owned(), value);
}

fn holds(step: &str, words: &[&str], scenario: &Scenario, said: &Said) -> Result<(), String> {
    let fine = match step {
        _ if step.starts_with("the resolved details value should be") => {
            same(&said.value, &typed(&scenario.kind, words[0]))
        }
        _ if step.starts_with("the reason should be") => said.reason == words[0],
        _ if step.starts_with("the error-code should be") => {
            said.error == Some(words[0]).filter(|it| !it.is_empty())
        }
        "the resolved metadata is empty" => said.metadata.is_empty(),
        _ if step.starts_with("the resolved metadata should contain") => {
            step.lines().skip(2).all(|row| {
                let cells: Vec<_> = row.split('|').collect();
                said.metadata
                    .get(cells[0])
                    .is_some_and(|value| same(value, &typed(cells[1], cells[2])))
            })
        }
        _ => return Err(format!("a step is not known: {step}")),
    };
    let got = format!("{} {} {:?}", said.value, said.reason, said.error);
    fine.then_some(())
        .ok_or(format!("{}: {step}; got {got}", scenario.key))
}

/// Runs features, and gives how many scenarios of each one held.
fn run_features(bed: &Bed, features: &[PathBuf], form: &str) -> BTreeMap<String, usize> {
    let (mut held, mut failed) = (BTreeMap::new(), Vec::new());
    for file in features {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (tags, steps) in Feature::read(&vectors::text(file)) {
            let forms: Vec<_> = tags
                .iter()
                .filter_map(|tag| tag.strip_prefix("@fractional-v"))
                .collect();
            let other_form = !forms.is_empty() && !forms.contains(&form);
            // Selectors choose among sources, which are no matter of evaluation.
            let selects = steps
                .iter()
                .any(|step| step.contains("an option \"selector\""));
            let outdated = tags.iter().any(|tag| tag == "@deprecated");
            if other_form || selects || outdated {
                continue;
            }
            match run(bed, &steps) {
                Ok(()) => *held.entry(name.clone()).or_insert(0) += 1,
                Err(why) => failed.push(format!("{name}: {why}")),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    held
}

#[test]
fn the_evaluator_features_of_the_test_bed_hold() {
    let Some(folder) = vectors::folder() else {
        return;
    };
    let bed = folder.join("flagd-testbed/evaluator");
    let flags = vectors::json(&bed.join("flags/testkit-flags.json"));
    let features = vectors::files(&bed.join("gherkin"), ".feature");
    let held = run_features(&Bed::load(&[flags]), &features, "2");
    println!("scenarios held: {held:?}");
    assert_eq!(held.len(), features.len(), "each feature has scenarios");
    assert!(held.values().sum::<usize>() >= 100, "{held:?}");
}

/// The features for providers, as far as they are about evaluation and not about connections.
fn provider_features(form: &str) -> Option<usize> {
    let bed = vectors::folder()?.join("flagd-testbed");
    let files = [
        "testing-flags",
        "zero-flags",
        "custom-ops",
        "evaluator-refs",
        "edge-case-flags",
        "disabled-flags",
    ];
    let mut files = files.map(|name| vectors::json(&bed.join(format!("flags/{name}.json"))));
    if let (Value::Object(set), "3") = (&mut files[2], form) {
        set.insert("metadata".to_owned(), json!({"fractional": "v3"}));
    }
    let names = ["targeting", "evaluation", "disabled"];
    let features = names.map(|name| bed.join(format!("gherkin/{name}.feature")));
    let held = run_features(&Bed::load(&files), &features, form);
    println!("fractional v{form}, scenarios held: {held:?}");
    Some(held.values().sum())
}

#[test]
fn the_provider_features_of_the_test_bed_hold_in_both_forms_of_fractional() {
    let (Some(v2), Some(v3)) = (provider_features("2"), provider_features("3")) else {
        return;
    };
    assert!(v2 >= 60 && v3 >= 60, "{v2} {v3}");
}
