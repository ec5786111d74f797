//! From JSON to an expression that can be evaluated, or to all that is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::budget::Budget;
use super::fold::folded;
use super::fractional::{Form, Fractional};
use super::node::{Node, Path};
use super::sem_ver::{self, Operand, SemVer, Test};
use super::signature::Signature;
use super::value::Val;
use crate::Mistake;
use crate::text::step;

/// Expressions are nested no deeper than this, with what they refer to.
const MAX_DEPTH: u32 = 100;

/// The longest name of a variable, in bytes.
const MAX_NAME: usize = 1000;

/// What is wrong, and how bad it is.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) gravity: Gravity,
    pub(crate) mistake: Mistake,
}

/// How bad a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// It can be evaluated, but is not what a definition may say.
    Shape,
    /// It can't be evaluated.
    Breaks,
    /// It refers to something that is broken.
    Follows,
}

/// Compiles the expressions of one set.
pub(crate) struct Compiler<'s> {
    evaluators: Option<&'s Map<String, Value>>,
    shared: HashMap<&'s str, Shared>,
    form: Form,
    pointer: String,
    /// How deep this expression stands, and how deep the deepest so far is below it.
    depth: u32,
    height: u32,
    /// Whether anything that was compiled so far may read the clock.
    pub(crate) uses_time: bool,
    pub(crate) findings: Vec<Finding>,
}

/// An expression of `$evaluators`.
#[derive(Clone)]
enum Shared {
    /// It is being compiled, so who refers to it now is a part of it.
    Open,
    Broken,
    Done(Arc<Node>, u32),
}

impl<'s> Compiler<'s> {
    pub(crate) fn new(evaluators: Option<&'s Map<String, Value>>, form: Form) -> Self {
        Self {
            evaluators,
            shared: HashMap::new(),
            form,
            pointer: String::new(),
            depth: 0,
            height: 0,
            uses_time: false,
            findings: Vec::new(),
        }
    }

    /// Compiles the expression that stands at `pointer`. When it adds findings, what it gives means nothing.
    pub(crate) fn compile(&mut self, expression: &Value, pointer: &str) -> Node {
        let outer = std::mem::replace(&mut self.pointer, pointer.to_owned());
        let node = self.node(expression);
        self.pointer = outer;
        node
    }

    /// Compiles what nobody refers to as well: it may have mistakes.
    pub(crate) fn all_evaluators(&mut self) {
        for name in self.evaluators.into_iter().flat_map(Map::keys) {
            self.evaluator(name);
        }
    }

    fn found(&mut self, gravity: Gravity, message: impl Into<String>, mend: impl Into<String>) {
        let mistake = Mistake::at(self.pointer.clone(), message).mend(mend);
        self.findings.push(Finding { gravity, mistake });
    }

    /// Does `work` one step further down in the document.
    fn below<T>(&mut self, key: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer += &step(key);
        let result = work(self);
        self.pointer.truncate(length);
        result
    }

    fn node(&mut self, value: &Value) -> Node {
        let siblings = std::mem::take(&mut self.height);
        self.depth += 1;
        let node = if self.depth > MAX_DEPTH {
            self.too_deep()
        } else {
            folded(self.expression(value))
        };
        self.depth -= 1;
        self.height += 1;
        if self.depth == 0 && self.height > MAX_DEPTH {
            self.too_deep();
        }
        self.height = self.height.max(siblings);
        node
    }

    fn too_deep(&mut self) -> Node {
        let message = format!("the expression is nested deeper than {MAX_DEPTH} operators");
        self.found(
            Gravity::Breaks,
            message,
            "Take it apart, or use `in` for long lists of cases.",
        );
        Node::Constant(Value::Null)
    }

    fn expression(&mut self, value: &Value) -> Node {
        match value {
            Value::Array(items) => Node::List(self.nodes(items)),
            Value::Object(members) => match members.iter().next() {
                Some((operator, arguments)) if members.len() == 1 => {
                    self.below(operator, |it| it.operation(operator, arguments))
                }
                Some(_) => self.several(members),
                None => {
                    self.found(
                        Gravity::Shape,
                        "an expression has an operator, and `{}` has none",
                        "",
                    );
                    Node::Constant(Value::Null)
                }
            },
            scalar => Node::Constant(scalar.clone()),
        }
    }

    fn several(&mut self, members: &Map<String, Value>) -> Node {
        let names: Vec<_> = members.keys().map(|name| format!("`{name}`")).collect();
        let message = format!(
            "an expression has one operator, and this one has {}",
            names.join(", ")
        );
        self.found(
            Gravity::Breaks,
            message,
            "Join them by `and`, or put one into the other.",
        );
        Node::Constant(Value::Null)
    }

    fn nodes(&mut self, values: &[Value]) -> Box<[Node]> {
        let values = values.iter().enumerate();
        values
            .map(|(index, value)| self.below(&index.to_string(), |it| it.node(value)))
            .collect()
    }

    fn operation(&mut self, operator: &str, arguments: &Value) -> Node {
        match operator {
            "var" => self.variable(arguments),
            "$ref" => self.reference(arguments),
            "fractional" => self.fractional(arguments),
            "sem_ver" => self.sem_ver(arguments),
            _ => match Signature::of(operator) {
                Some(signature) => self.plain(operator, &signature, arguments),
                None => self.unknown(operator),
            },
        }
    }

    fn unknown(&mut self, operator: &str) -> Node {
        let mend = "JSONLogic's operators are known, and flagd's `fractional`, `starts_with`, `ends_with` and `sem_ver`.";
        self.found(
            Gravity::Breaks,
            format!("there is no operator `{operator}`"),
            mend,
        );
        Node::Constant(Value::Null)
    }

    fn plain(&mut self, operator: &str, signature: &Signature, arguments: &Value) -> Node {
        let nodes = self.arguments(operator, arguments, signature.unary);
        let most = signature.most.unwrap_or(usize::MAX);
        if !(signature.least..=most).contains(&nodes.len()) {
            let wanted = match (signature.least, signature.most) {
                (least, None) => format!("at least {least}"),
                (least, Some(most)) if least == most => least.to_string(),
                (least, Some(most)) => format!("{least} to {most}"),
            };
            let message = format!(
                "`{operator}` has {} arguments, and takes {wanted}",
                nodes.len()
            );
            self.found(Gravity::Shape, message, "");
        }
        self.look_at(operator, arguments);
        (signature.make)(nodes)
    }

    /// Arguments stand in a list; one that stands alone is the only one.
    fn arguments(&mut self, operator: &str, arguments: &Value, unary: bool) -> Box<[Node]> {
        if let Value::Array(values) = arguments {
            return self.nodes(values);
        }
        if !unary {
            let mend = format!("Write {{\"{operator}\": [ … ]}}.");
            self.found(
                Gravity::Shape,
                format!("the arguments of `{operator}` stand in a list"),
                mend,
            );
        }
        Box::new([self.node(arguments)])
    }

    /// What some operators ask of arguments that are known.
    fn look_at(&mut self, operator: &str, arguments: &Value) {
        let values = arguments.as_array().map_or(&[][..], Vec::as_slice);
        match operator {
            "starts_with" | "ends_with" => {
                self.each_is(
                    values,
                    |it| it.is_string() || it.is_object(),
                    "a text or an expression",
                );
            }
            "missing" => {
                self.each_is(
                    values,
                    |it| it.is_string() || it.is_object(),
                    "the name of a variable",
                );
            }
            "missing_some" => self.missing_some(values),
            _ => {}
        }
    }

    fn missing_some(&mut self, values: &[Value]) {
        let is_number = |it: &Value| it.is_number() || it.is_object();
        self.each_is(
            values.get(..1).unwrap_or_default(),
            is_number,
            "how many have to be there",
        );
        match values.get(1) {
            Some(Value::Array(names)) => self.below("1", |it| {
                it.each_is(
                    names,
                    |name| name.is_string() || name.is_object(),
                    "the name of a variable",
                );
            }),
            Some(Value::Object(_)) | None => {}
            Some(_) => {
                self.below("1", |it| {
                    it.found(Gravity::Shape, "the names stand in a list", "")
                });
            }
        }
    }

    fn each_is(&mut self, values: &[Value], holds: impl Fn(&Value) -> bool, wanted: &str) {
        for (index, value) in values.iter().enumerate() {
            if !holds(value) {
                let message = format!("this is {wanted}, and not {}", kind(value));
                self.below(&index.to_string(), |it| {
                    it.found(Gravity::Shape, message, "")
                });
            }
        }
    }

    fn variable(&mut self, arguments: &Value) -> Node {
        let arguments = match arguments {
            Value::Array(arguments) => arguments.as_slice(),
            single => std::slice::from_ref(single),
        };
        if arguments.is_empty() || arguments.len() > 2 {
            let message = "`var` takes the name of a variable, and what it is when it is missing";
            self.found(
                Gravity::Shape,
                message,
                "Write {\"var\": \"name\"} or {\"var\": [\"name\", \"default\"]}.",
            );
        }
        let default = arguments
            .get(1)
            .map(|default| self.below("1", |it| it.node(default)));
        let name = match arguments.first() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(name)) => name.clone(),
            Some(Value::Object(_) | Value::Array(_)) => {
                return self.computed(&arguments[0], default);
            }
            Some(scalar) => scalar.to_string(),
        };
        self.named(&name, default)
    }

    fn computed(&mut self, name: &Value, default: Option<Node>) -> Node {
        if name.is_array() {
            self.found(Gravity::Shape, "the name of a variable is a text", "");
        }
        // It may turn out to be that of the time.
        self.uses_time = true;
        let name = self.node(name);
        Node::Computed(std::iter::once(name).chain(default).collect())
    }

    fn named(&mut self, name: &str, default: Option<Node>) -> Node {
        if name.len() > MAX_NAME {
            let message = format!("the name of a variable has at most {MAX_NAME} bytes");
            self.found(Gravity::Breaks, message, "");
            return Node::Constant(Value::Null);
        }
        self.uses_time |= name == "$flagd.timestamp";
        let injected = match name {
            "$flagd.flagKey" => Some(Node::FlagKey),
            "$flagd.timestamp" => Some(Node::Timestamp),
            _ => None,
        };
        if injected.is_none() && name.starts_with("$flagd.") {
            let mend = "There are `$flagd.flagKey` and `$flagd.timestamp`.";
            self.found(Gravity::Shape, format!("there is no `{name}`"), mend);
        }
        match (injected, default) {
            (Some(injected), None) => injected,
            (Some(_), Some(default)) => {
                Node::Computed(Box::new([Node::Constant(Value::from(name)), default]))
            }
            (None, default) => Node::Variable {
                path: Path::new(name),
                default: default.map(Box::new),
            },
        }
    }

    fn reference(&mut self, name: &Value) -> Node {
        let Value::String(name) = name else {
            self.found(Gravity::Breaks, "`$ref` takes the name of an evaluator", "");
            return Node::Constant(Value::Null);
        };
        match self.evaluator(name) {
            Some(Shared::Done(node, height)) => {
                self.height = self.height.max(height);
                Node::Shared(node)
            }
            Some(Shared::Open) => {
                let message = format!("the evaluator `{name}` refers to itself");
                self.found(
                    Gravity::Breaks,
                    message,
                    "Take one of the references out of the circle.",
                );
                Node::Constant(Value::Null)
            }
            Some(Shared::Broken) => {
                self.found(
                    Gravity::Follows,
                    format!("the evaluator `{name}` has mistakes"),
                    "",
                );
                Node::Constant(Value::Null)
            }
            None => {
                let mend = "Define it in `$evaluators`, beside `flags`.";
                self.found(
                    Gravity::Breaks,
                    format!("there is no evaluator `{name}`"),
                    mend,
                );
                Node::Constant(Value::Null)
            }
        }
    }

    /// An evaluator, compiled when it is met first.
    fn evaluator(&mut self, name: &str) -> Option<Shared> {
        let (name, rule) = self.evaluators?.get_key_value(name)?;
        if let Some(shared) = self.shared.get(name.as_str()) {
            return Some(shared.clone());
        }
        self.shared.insert(name, Shared::Open);
        let before = self.findings.len();
        let outer = std::mem::take(&mut self.height);
        let node = self.compile(rule, &format!("/$evaluators/{}", step(name)));
        let height = std::mem::replace(&mut self.height, outer);
        let broken = self.findings[before..]
            .iter()
            .any(|it| it.gravity != Gravity::Shape);
        let shared = match broken {
            true => Shared::Broken,
            false => Shared::Done(Arc::new(node), height),
        };
        self.shared.insert(name, shared.clone());
        Some(shared)
    }

    fn fractional(&mut self, arguments: &Value) -> Node {
        let values = match arguments {
            Value::Array(values) => values.as_slice(),
            single => {
                self.found(
                    Gravity::Shape,
                    "the shares of `fractional` stand in a list",
                    "Write {\"fractional\": [[\"on\", 10], [\"off\", 90]]}.",
                );
                std::slice::from_ref(single)
            }
        };
        let keyed = values.first().is_some_and(|first| !first.is_array());
        let mut nodes = self.nodes(values).into_vec();
        let first = keyed.then(|| nodes.remove(0));
        self.look_at_key(values.first().filter(|_| keyed));
        self.look_at_shares(values, usize::from(keyed));
        Node::Fractional(Box::new(Fractional::new(self.form, first, nodes.into())))
    }

    fn look_at_key(&mut self, key: Option<&Value>) {
        if key.is_some_and(|key| !key.is_object()) {
            let mend = "Write {\"var\": \"targetingKey\"}, or leave it away: then it is the flag's key with the targeting key.";
            self.below("0", |it| {
                it.found(
                    Gravity::Shape,
                    "the key of `fractional` is the same for everybody",
                    mend,
                )
            });
        }
    }

    fn look_at_shares(&mut self, values: &[Value], from: usize) {
        if values.len() <= from {
            self.found(
                Gravity::Shape,
                "`fractional` has no shares",
                "Add some, as [\"on\", 50], [\"off\", 50].",
            );
        }
        let mut sum = 0.0;
        for (index, share) in values.iter().enumerate().skip(from) {
            self.below(&index.to_string(), |it| it.look_at_share(share));
            sum += share
                .get(1)
                .map_or(Some(1.0), Value::as_f64)
                .unwrap_or(0.0)
                .max(0.0);
        }
        if sum > f64::from(i32::MAX) {
            let mend = format!("Their sum is at most {}.", i32::MAX);
            self.found(Gravity::Shape, "the weights are too large", mend);
        }
    }

    fn look_at_share(&mut self, share: &Value) {
        let Some(share) = share
            .as_array()
            .filter(|share| (1..=2).contains(&share.len()))
        else {
            self.found(
                Gravity::Shape,
                "a share is a variant and its weight",
                "Write [\"on\", 50].",
            );
            return;
        };
        if share[0].is_array() {
            self.found(Gravity::Shape, "a list is no variant", "");
        }
        let weight = share.get(1);
        let right = |weight: &Value| match weight {
            Value::Number(number) => number.as_f64().is_some_and(|number| number.fract() == 0.0),
            weight => weight.is_object(),
        };
        if !weight.is_none_or(right) {
            self.below("1", |it| {
                it.found(
                    Gravity::Shape,
                    "a weight is a whole number",
                    "Shares are compared with their sum: write 105 and 895 for 10.5 % and 89.5 %.",
                )
            });
        }
    }

    fn sem_ver(&mut self, arguments: &Value) -> Node {
        let nodes = self.arguments("sem_ver", arguments, false);
        let Ok([left, test, right]) = <[Node; 3]>::try_from(nodes.into_vec()) else {
            let message = "`sem_ver` takes a version, how to compare it, and another version";
            self.found(
                Gravity::Shape,
                message,
                "Write {\"sem_ver\": [{\"var\": \"version\"}, \">=\", \"1.2.0\"]}.",
            );
            return Node::Constant(Value::Null);
        };
        let test = known(test, |value| value.as_str().and_then(Test::parse));
        if !matches!(test, Operand::Known(Some(_))) {
            let mend = "There are `=`, `!=`, `>`, `<`, `>=`, `<=`, `~` (same minor version) and `^` (same major version).";
            self.below("1", |it| {
                it.found(Gravity::Shape, "`sem_ver` has no such comparison", mend)
            });
        }
        let version = |value: Val<'_>| sem_ver::version(&value, &Budget::default()).ok().flatten();
        let right = known(right, version);
        self.look_at_version("0", arguments.get(0));
        self.look_at_version("2", arguments.get(2));
        Node::SemVer(Box::new(SemVer { left, test, right }))
    }

    /// What an expression gives is seen when it is evaluated.
    fn look_at_version(&mut self, index: &str, written: Option<&Value>) {
        let is_version = |value: &Value| match value {
            Value::Object(_) => true,
            value => value
                .as_str()
                .is_some_and(|text| sem_ver::parse(text).is_some()),
        };
        if !written.is_some_and(is_version) {
            self.below(index, |it| {
                it.found(
                    Gravity::Shape,
                    "this is no version",
                    "Write one as \"1.2.0\".",
                )
            });
        }
    }
}

fn known<T>(node: Node, read: impl FnOnce(Val<'_>) -> T) -> Operand<T> {
    match &node {
        Node::Constant(value) => Operand::Known(read(Val::from(value))),
        _ => Operand::Computed(node),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
