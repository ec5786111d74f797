//! Our evaluation beside the public evaluators: definitions by chance, the same answers.
//!
//! JSONLogic is defined by what its original implementation does, and the evaluators of flagd differ from
//! it and from each other at the edges. What they agree on is what we do. Where they differ, we do what
//! one of them does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fastrand::Rng;
use hydrant_flags::{Context, Definitions};
use hydrant_harness::{foreign, is_soak, seed};
use serde_json::{Value, json};

use crate::generate::{self, Case, Kind};

/// About now: rules compare the time with what is far from it.
const NOW: i64 = 1_795_000_000;

/// What all of them say of a case.
struct Answers {
    ours: Value,
    /// flagd's evaluator in JavaScript, which has the second form of `fractional`.
    javascript: Value,
    /// flagd's evaluator in Python, which has the third.
    python: Value,
    /// The original JSONLogic.
    original: Value,
}

/// How the answers to a case stand to each other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The evaluators of flagd agree, and so do we.
    Same,
    /// They differ, and we do what one of them does.
    Disputed,
    /// They differ, and we follow JavaScript where neither does: `max` of what is no number is none. Rare.
    Alone,
    /// A difference that has a reason.
    Excused(&'static str),
    Wrong,
}

struct Evaluators {
    npm: PathBuf,
    pypi: PathBuf,
}

impl Evaluators {
    fn install() -> Option<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Some(Self {
            npm: foreign::npm(target)?,
            pypi: foreign::pypi(target)?,
        })
    }

    /// What to think of an answer that seems wrong, when the evaluators of flagd differ about a part of the
    /// rule: about a condition that leads to `fractional`, each form of which only one of them has, or
    /// stands in it; or where both fail, and so each for its own reason; or where both say the same by
    /// accident, and JSONLogic's own implementation says what we say.
    fn disputed(&self, case: &Case, answers: &Answers) -> Option<Verdict> {
        let verdict = match has_shares(case) {
            true => Verdict::Disputed,
            false if both_fail(answers) => Verdict::Excused(ERRORS),
            false if same(&answers.ours, &answers.original) => Verdict::Excused(ACCIDENT),
            false => return None,
        };
        let mut found = Vec::new();
        parts(&case.set["flags"][&case.key]["targeting"], &mut found);
        // No list is a result, but whether it is empty is one.
        let empty: Vec<_> = found.iter().map(|part| json!({"!!": [part]})).collect();
        let parts = found.into_iter().chain(empty).map(|part| {
            let mut case = case.clone();
            case.set["flags"][&case.key]["targeting"] = without_shares(&part);
            case
        });
        let parts: Vec<_> = parts.filter(|part| !has_shares(part)).collect();
        let answers = self.answers(&parts);
        let mut differ = answers
            .iter()
            .map(|answers| !same(&answers.javascript, &answers.python));
        differ.any(|differ| differ).then_some(verdict)
    }

    /// What to think of an answer.
    fn judge(&self, case: &Case, answers: &Answers) -> Verdict {
        match judge(case, answers) {
            Verdict::Wrong => self.disputed(case, answers).unwrap_or(Verdict::Wrong),
            verdict => verdict,
        }
    }

    fn answers(&self, cases: &[Case]) -> Vec<Answers> {
        let mut javascript = Command::new("node");
        javascript.arg("flagd-core.mjs").current_dir(&self.npm);
        let mut python = Command::new("python3");
        python
            .arg("flagd_core.py")
            .current_dir(&self.pypi)
            .env("PYTHONPATH", ".");
        let (javascript, python) = (batch(javascript, cases), batch(python, cases));
        let answers = cases.iter().zip(javascript).zip(python);
        answers
            .map(|((case, mut javascript), python)| Answers {
                ours: ours(case),
                original: javascript["jsonlogic"].take(),
                javascript: javascript["flagd"].take(),
                python,
            })
            .collect()
    }
}

/// All expressions in an expression.
fn parts(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| parts(item, found)),
        Value::Object(members) => {
            found.push(value.clone());
            members.values().for_each(|member| parts(member, found));
        }
        _ => {}
    }
}

/// Writes all cases to a program, a line each, and reads its answers.
fn batch(mut command: Command, cases: &[Case]) -> Vec<Value> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<_> = cases
        .iter()
        .map(|case| json!({"set": case.set, "key": case.key, "context": case.context}))
        .collect();
    let writer =
        std::thread::spawn(move || lines.iter().try_for_each(|line| writeln!(input, "{line}")));
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers: Vec<_> = output
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(answers.len(), cases.len());
    answers
}

fn ours(case: &Case) -> Value {
    let (definitions, _) = Definitions::lenient("set", &case.set.to_string());
    let Some(flag) = definitions.get(&case.key) else {
        return json!({"error": true});
    };
    let context = Context {
        targeting_key: case.context.get("targetingKey").and_then(Value::as_str),
        attributes: &case.context,
        now_unix: NOW,
    };
    match flag.evaluate(&context) {
        Err(_) => json!({"error": true}),
        Ok(evaluation) => {
            let mut answer = json!({"reason": evaluation.reason.as_str()});
            if let Some(variant) = evaluation.variant {
                answer["variant"] = json!(variant);
                answer["value"] = evaluation.value.unwrap().clone();
            }
            answer
        }
    }
}

/// The same answer; numbers are compared as numbers, for 1 and 1.0 are one value.
fn same(one: &Value, other: &Value) -> bool {
    let (value, its) = (&one["value"], &other["value"]);
    let values = value == its || (value.is_number() && value.as_f64() == its.as_f64());
    let rest = ["variant", "reason", "error"];
    values && rest.iter().all(|part| one[part] == other[part])
}

/// The same with a text where shares are drawn, which the two draw by different forms.
fn without_shares(expression: &Value) -> Value {
    match expression {
        Value::Object(members) if members.contains_key("fractional") => json!("on"),
        Value::Object(members) => {
            let same = members.iter();
            same.map(|(name, inner)| (name.clone(), without_shares(inner)))
                .collect()
        }
        Value::Array(items) => items.iter().map(without_shares).collect(),
        other => other.clone(),
    }
}

fn has_shares(case: &Case) -> bool {
    case.set.to_string().contains(r#"{"fractional":["#)
}

fn both_fail(answers: &Answers) -> bool {
    let error = json!({"error": true});
    answers.javascript == error && answers.python == error
}

fn judge(case: &Case, answers: &Answers) -> Verdict {
    let Answers {
        ours,
        javascript,
        python,
        original,
    } = answers;
    let v3 = case.set["metadata"]["fractional"] == "v3";
    let voices: &[&Value] = match (has_shares(case), v3) {
        (false, _) => &[javascript, python, original],
        // The forms of `fractional` differ by intention, so each is compared with its own evaluator.
        (true, false) => &[javascript, original],
        (true, true) => &[python],
    };
    // JSONLogic's own implementation decides nothing alone when both evaluators of flagd say the same.
    let leading = if has_shares(case) {
        &voices[..1]
    } else {
        &voices[..2]
    };
    let agreed = leading.iter().all(|voice| same(voice, leading[0]));
    match () {
        () if agreed && same(ours, leading[0]) => Verdict::Same,
        () if let Some(reason) = excused(case, answers) => Verdict::Excused(reason),
        () if agreed && leading.len() > 1 => Verdict::Wrong,
        () if voices.iter().any(|voice| same(ours, voice)) => Verdict::Disputed,
        () if !agreed => Verdict::Alone,
        () => Verdict::Wrong,
    }
}

const ASCII: &str = "the hash of JavaScript takes ASCII only";
const ERRORS: &str =
    "the evaluators fail, each for its own reason, where JSONLogic's own implementation does not";

const ACCIDENT: &str =
    "the evaluators differ about a part, and JSONLogic's own implementation says the same as we";

const NUMBERS: &str =
    "the schema: when returned from rules, the behavior of numbers is not defined";

/// Differences that stand, with their reasons. Each one is as narrow as it can be.
fn excused(case: &Case, answers: &Answers) -> Option<&'static str> {
    let ascii = case.key.is_ascii() && json!(case.context).to_string().is_ascii();
    let v2 = case.set["metadata"]["fractional"] == "v2";
    if v2 && has_shares(case) && !ascii {
        // The key's "raw UTF-8" is hashed; a unit test has values of a third implementation.
        return Some(ASCII);
    }
    let both = both_fail(answers);
    // Python writes 3.0 where JavaScript writes 3, and then has no such variant.
    let number = answers.ours["variant"]
        .as_str()
        .is_some_and(|name| name.parse::<f64>().is_ok());
    if both && number {
        return Some(NUMBERS);
    }
    // As `min` of a list, which is no number: one stops at it, the other takes it and divides by zero later.
    (!has_shares(case) && both && same(&answers.ours, &answers.original)).then_some(ERRORS)
}

/// Cases by chance, of all kinds.
fn cases(random: &mut Rng, count: usize) -> Vec<Case> {
    let kinds = [
        Kind {
            form: "v2",
            shares: false,
            wild: 6,
        },
        Kind {
            form: "v2",
            shares: true,
            wild: 4,
        },
        Kind {
            form: "v3",
            shares: false,
            wild: 0,
        },
        Kind {
            form: "v3",
            shares: true,
            wild: 0,
        },
    ];
    (0..count)
        .map(|index| generate::case(random, kinds[index % kinds.len()]))
        .collect()
}

#[test]
fn definitions_by_chance_evaluate_as_the_public_evaluators_do() {
    let Some(evaluators) = Evaluators::install() else {
        return;
    };
    let seed = seed();
    let count = if is_soak() { 20_000 } else { 2_000 };
    let cases = cases(&mut Rng::with_seed(seed), count);
    let answers = evaluators.answers(&cases);
    let (mut verdicts, mut wrong) = (BTreeMap::new(), Vec::new());
    for (case, answers) in cases.iter().zip(&answers) {
        let verdict = evaluators.judge(case, answers);
        if verdict == Verdict::Wrong {
            wrong.push(case);
        }
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    println!("{count} definitions with contexts: {verdicts:?}");
    println!("answers: {:?}", kinds_of(&answers));
    let shown = wrong
        .iter()
        .take(shown())
        .map(|case| told(&evaluators, &smallest(&evaluators, case)));
    let shown: Vec<_> = shown.collect();
    assert!(
        wrong.is_empty(),
        "{} differ, as:\n{}",
        wrong.len(),
        shown.join("\n")
    );
    let alone = verdicts.get(&Verdict::Alone).copied().unwrap_or(0);
    assert!(
        alone <= count / 200,
        "{alone} answers are ours alone: look at them"
    );
    for reason in [ERRORS, ACCIDENT] {
        let excused = verdicts.get(&Verdict::Excused(reason)).copied();
        let excused = excused.unwrap_or(0);
        assert!(
            excused <= count / 200,
            "{excused} cases: look at them: {reason}"
        );
    }
    let same = verdicts.get(&Verdict::Same).copied().unwrap_or(0);
    assert!(same > count / 2, "too few cases say something");
}

fn shown() -> usize {
    std::env::var("HYDRANT_SHOWN")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1)
}

/// How many answers there are of each kind: a test where all are errors says nothing.
fn kinds_of(answers: &[Answers]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for answer in answers {
        let reason = answer.ours["reason"].as_str().unwrap_or("error");
        *kinds.entry(reason.to_owned()).or_insert(0) += 1;
    }
    kinds
}

fn told(evaluators: &Evaluators, case: &Case) -> String {
    let answers = &evaluators.answers(std::slice::from_ref(case))[0];
    let flag = &case.set["flags"][&case.key];
    format!(
        "flag {flag}\n  evaluators {}\n  context {}\n  ours       {}\n  javascript {}\n  python     {}\n  original   {}",
        case.set["$evaluators"],
        json!(case.context),
        answers.ours,
        answers.javascript,
        answers.python,
        answers.original,
    )
}

/// Makes a case smaller as long as it is wrong.
fn smallest(evaluators: &Evaluators, case: &Case) -> Case {
    let mut case = case.clone();
    for _ in 0..20 {
        let candidates = smaller(&case);
        let answers = evaluators.answers(&candidates);
        let found = candidates
            .iter()
            .zip(&answers)
            .find(|(case, answers)| evaluators.judge(case, answers) == Verdict::Wrong);
        match found {
            Some((smaller, _)) => case = smaller.clone(),
            None => break,
        }
    }
    case
}

/// The case with one thing less, the largest steps first.
fn smaller(case: &Case) -> Vec<Case> {
    let mut cases = Vec::new();
    let targeting = &case.set["flags"][&case.key]["targeting"];
    for targeting in less(targeting).into_iter().filter(Value::is_object) {
        let mut case = case.clone();
        case.set["flags"][&case.key]["targeting"] = targeting;
        cases.push(case);
    }
    for name in case.context.keys() {
        let mut case = case.clone();
        case.context.remove(name);
        cases.push(case);
    }
    if case.set["$evaluators"].get("rule").is_some() && !targeting.to_string().contains("$ref") {
        let mut case = case.clone();
        case.set["$evaluators"] = json!({});
        cases.push(case);
    }
    // One that has new mistakes would be another case.
    cases.retain(|smaller| mistakes(smaller) <= mistakes(case));
    cases.truncate(300);
    cases
}

fn mistakes(case: &Case) -> usize {
    Definitions::lenient("set", &case.set.to_string()).1.len()
}

/// A value with one part less.
fn less(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Array(items) => {
            for index in 0..items.len() {
                let mut fewer = items.clone();
                fewer.remove(index);
                found.push(Value::Array(fewer));
                for item in less(&items[index]) {
                    let mut items = items.clone();
                    items[index] = item;
                    found.push(Value::Array(items));
                }
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                found.extend(member.as_array().into_iter().flatten().cloned());
                found.extend(
                    less(member)
                        .into_iter()
                        .map(|member| json!({ name: member })),
                );
            }
        }
        _ => {}
    }
    found
}
