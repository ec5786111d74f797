//! Evaluation of an expression, by the rules of JSONLogic and the coercions of JavaScript.

use std::cmp::Ordering;

use serde_json::Value;

use super::budget::{Budget, Stop};
use super::node::{Each, Node, Operator, PathStep};
use super::sem_ver::{self, Operand, SemVer, Test};
use super::value::{Shape, Val};
use crate::Context;

/// One evaluation.
pub(crate) struct Run<'a> {
    pub(crate) flag_key: &'a str,
    pub(crate) context: Context<'a>,
    pub(crate) budget: Budget,
}

type Result<T> = std::result::Result<T, Stop>;

impl<'a> Run<'a> {
    pub(crate) fn new(flag_key: &'a str, context: Context<'a>) -> Self {
        Self {
            flag_key,
            context,
            budget: Budget::default(),
        }
    }

    /// Who asks; what is empty counts as nobody.
    pub(crate) fn targeting_key(&self) -> Option<&'a str> {
        self.context.targeting_key.filter(|key| !key.is_empty())
    }

    pub(crate) fn evaluate(&self, node: &'a Node, data: &Val<'a>) -> Result<Val<'a>> {
        self.budget.take(1)?;
        match node {
            Node::Constant(value) => Ok(Val::from(value)),
            Node::List(items) => Val::list(self.all(items, data)?),
            Node::Shared(node) => self.evaluate(node, data),
            Node::FlagKey => Ok(self.only_at_top(data, Val::Text(self.flag_key))),
            Node::Timestamp => {
                Ok(self.only_at_top(data, Val::Number(self.context.now_unix as f64)))
            }
            Node::Variable { path, default } => match (self.find(path.steps(), data)?, default) {
                (Val::Null, Some(default)) => self.evaluate(default, data),
                (found, _) => Ok(found),
            },
            Node::Computed(arguments) => self.computed(arguments, data),
            Node::Missing(names) => Val::list(self.missing(self.names(names, data)?, data)?),
            Node::MissingSome(arguments) => self.missing_some(arguments, data),
            Node::If(branches) => self.branch(branches, data),
            Node::And(operands) => self.until(operands, false, data),
            Node::Or(operands) => self.until(operands, true, data),
            Node::Call(operator, arguments) => self.call(*operator, arguments, data),
            Node::Each(each, arguments) => self.each(*each, arguments, data),
            Node::Reduce(arguments) => self.reduce(arguments, data),
            Node::Fractional(fractional) => fractional.evaluate(data, self),
            Node::SemVer(sem_ver) => self.sem_ver(sem_ver, data),
        }
    }

    /// An argument; nothing when it is not there.
    fn argument(&self, arguments: &'a [Node], index: usize, data: &Val<'a>) -> Result<Val<'a>> {
        arguments
            .get(index)
            .map_or(Ok(Val::Null), |node| self.evaluate(node, data))
    }

    fn all(&self, nodes: &'a [Node], data: &Val<'a>) -> Result<Vec<Val<'a>>> {
        nodes.iter().map(|node| self.evaluate(node, data)).collect()
    }

    /// What is injected stands beside the context, and within a loop the data is the item.
    fn only_at_top(&self, data: &Val<'a>, value: Val<'a>) -> Val<'a> {
        match data {
            Val::Context => value,
            _ => Val::Null,
        }
    }

    /// Where a path leads to. Each part of it but the first takes steps: it may be a character of a text.
    fn find<'p>(
        &self,
        path: impl Iterator<Item = PathStep<'p>>,
        data: &Val<'a>,
    ) -> Result<Val<'a>> {
        let mut value = data.clone();
        for (place, step) in path.enumerate() {
            self.budget.take(3 * u32::from(place > 0))?;
            self.budget.take_bytes(step.name.len())?;
            match self.member(&value, &step)? {
                Some(member) => value = member,
                None => return Ok(Val::Null),
            }
        }
        Ok(value)
    }

    /// A member of an object, an item of a list or a character of a text, and the length of both.
    fn member(&self, value: &Val<'a>, step: &PathStep<'_>) -> Result<Option<Val<'a>>> {
        Ok(match value {
            Val::Context => self.attribute(step.name),
            Val::Step(pair) => match step.name {
                "current" => Some(pair.0.clone()),
                "accumulator" => Some(pair.1.clone()),
                _ => None,
            },
            Val::Json(Value::Object(members)) => members.get(step.name).map(Val::from),
            _ => return self.part(value, step),
        })
    }

    fn part(&self, value: &Val<'a>, step: &PathStep<'_>) -> Result<Option<Val<'a>>> {
        let is_length = step.name == "length";
        if let Some(items) = value.items() {
            return Ok(match step.index {
                Some(index) => items.get(index),
                None => is_length.then_some(Val::Number(items.len() as f64)),
            });
        }
        let Some(text) = value.as_str() else {
            return Ok(None);
        };
        // Characters are counted anew each time.
        self.budget.take_bytes(text.len())?;
        Ok(match step.index {
            Some(index) => {
                let unit = text.encode_utf16().nth(index);
                unit.map(|unit| Val::text(String::from_utf16_lossy(&[unit])))
            }
            None => is_length.then(|| Val::Number(text.encode_utf16().count() as f64)),
        })
    }

    fn attribute(&self, name: &str) -> Option<Val<'a>> {
        let attributes = self.context.attributes;
        match attributes.get(name) {
            _ if name == "$flagd" => None,
            Some(value) => Some(Val::from(value)),
            None if name == "targetingKey" => self.context.targeting_key.map(Val::Text),
            None => None,
        }
    }

    /// A variable by its name, when that is a value of any kind.
    fn named(&self, name: &Val<'a>, data: &Val<'a>) -> Result<Val<'a>> {
        let text = name.to_text(&self.budget)?;
        match (name.shape(), &*text) {
            (Shape::Null, _) | (_, "") => return Ok(data.clone()),
            (_, "$flagd.flagKey") => return Ok(self.only_at_top(data, Val::Text(self.flag_key))),
            (_, "$flagd.timestamp") => {
                return Ok(self.only_at_top(data, Val::Number(self.context.now_unix as f64)));
            }
            _ => {}
        }
        self.find(text.split('.').map(PathStep::of), data)
    }

    fn computed(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let name = self.argument(arguments, 0, data)?;
        match self.named(&name, data)? {
            Val::Null => self.argument(arguments, 1, data),
            found => Ok(found),
        }
    }

    /// The names that `missing` looks for: its arguments, or the list that its first one is.
    fn names(&self, names: &'a [Node], data: &Val<'a>) -> Result<Vec<Val<'a>>> {
        let names = self.all(names, data)?;
        match names.first().and_then(Val::items) {
            Some(items) => Ok((0..items.len())
                .filter_map(|index| items.get(index))
                .collect()),
            None => Ok(names),
        }
    }

    fn missing(&self, names: Vec<Val<'a>>, data: &Val<'a>) -> Result<Vec<Val<'a>>> {
        let mut missing = Vec::new();
        for name in names {
            self.budget.take(1)?;
            let value = self.named(&name, data)?;
            if matches!(value.shape(), Shape::Null | Shape::Text("")) {
                missing.push(name);
            }
        }
        Ok(missing)
    }

    fn missing_some(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let needed = self.argument(arguments, 0, data)?.number(&self.budget)?;
        let options = self.argument(arguments, 1, data)?;
        let Some(items) = options.items() else {
            return Val::list(Vec::new());
        };
        let names = (0..items.len())
            .filter_map(|index| items.get(index))
            .collect();
        let missing = self.missing(names, data)?;
        if (items.len() - missing.len()) as f64 >= needed {
            return Val::list(Vec::new());
        }
        Val::list(missing)
    }

    fn branch(&self, branches: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let (pairs, last) = branches.as_chunks::<2>();
        for [condition, then] in pairs {
            if self.evaluate(condition, data)?.truthy() {
                return self.evaluate(then, data);
            }
        }
        self.argument(last, 0, data)
    }

    /// The first operand that counts as `wanted`, or the last one.
    fn until(&self, operands: &'a [Node], wanted: bool, data: &Val<'a>) -> Result<Val<'a>> {
        let mut value = Val::Null;
        for operand in operands {
            value = self.evaluate(operand, data)?;
            if value.truthy() == wanted {
                break;
            }
        }
        Ok(value)
    }

    fn sem_ver(&self, compared: &'a SemVer, data: &Val<'a>) -> Result<Val<'a>> {
        let left = sem_ver::version(&self.evaluate(&compared.left, data)?, &self.budget)?;
        let test = match &compared.test {
            Operand::Known(test) => *test,
            Operand::Computed(node) => {
                let test = self.evaluate(node, data)?;
                Test::parse(&test.to_text(&self.budget)?)
            }
        };
        let computed = match &compared.right {
            Operand::Known(_) => None,
            Operand::Computed(node) => sem_ver::version(&self.evaluate(node, data)?, &self.budget)?,
        };
        let right = match &compared.right {
            Operand::Known(version) => version.as_ref(),
            Operand::Computed(_) => computed.as_ref(),
        };
        Ok(match (left, test, right) {
            (Some(left), Some(test), Some(right)) => Val::Bool(test.holds(&left, right)),
            _ => Val::Null,
        })
    }

    fn each(&self, each: Each, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let list = self.argument(arguments, 0, data)?;
        let (Some(items), Some(rule)) = (list.items(), arguments.get(1)) else {
            return without_list(each);
        };
        let mut kept = Vec::new();
        for index in 0..items.len() {
            let Some(item) = items.get(index) else { break };
            let value = self.evaluate(rule, &item)?;
            match each {
                Each::Map => kept.push(value),
                Each::Filter if value.truthy() => kept.push(item),
                Each::All if !value.truthy() => return Ok(Val::Bool(false)),
                Each::None if value.truthy() => return Ok(Val::Bool(false)),
                Each::Some if value.truthy() => return Ok(Val::Bool(true)),
                _ => {}
            }
        }
        match each {
            Each::Map | Each::Filter => Val::list(kept),
            // All of nothing is false.
            Each::All => Ok(Val::Bool(items.len() > 0)),
            Each::None => Ok(Val::Bool(true)),
            Each::Some => Ok(Val::Bool(false)),
        }
    }

    fn reduce(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let list = self.argument(arguments, 0, data)?;
        let mut accumulator = self.argument(arguments, 2, data)?;
        let (Some(items), Some(rule)) = (list.items(), arguments.get(1)) else {
            return Ok(accumulator);
        };
        for item in (0..items.len()).filter_map(|index| items.get(index)) {
            let step = Val::step(item, accumulator)?;
            accumulator = self.evaluate(rule, &step)?;
        }
        Ok(accumulator)
    }

    fn call(&self, operator: Operator, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        use Operator::*;
        match operator {
            Max | Min => self.extreme(operator, arguments, data),
            Add if arguments.len() == 1 => self.only_addend(&arguments[0], data),
            Add => self.fold(arguments, 0.0, |sum, it| Ok(sum + self.addend(it)?), data),
            Multiply if arguments.is_empty() => Err(Stop::Empty),
            Multiply => self.fold(
                arguments,
                1.0,
                |product, it| Ok(product * self.addend(it)?),
                data,
            ),
            Merge => self.merge(arguments, data),
            Cat => self.cat(arguments, data),
            Less | LessOrEqual | Greater | GreaterOrEqual => {
                self.between(operator, arguments, data)
            }
            Subtract if arguments.len() == 1 => Ok(Val::Number(
                -self.argument(arguments, 0, data)?.number(&self.budget)?,
            )),
            Substr => self.substr(arguments, data),
            StartsWith | EndsWith if arguments.len() != 2 => {
                self.all(arguments, data)?;
                Ok(Val::Null)
            }
            _ => {
                let one = self.argument(arguments, 0, data)?;
                let other = self.argument(arguments, 1, data)?;
                self.binary(operator, &one, &other)
            }
        }
    }

    fn binary(&self, operator: Operator, one: &Val<'a>, other: &Val<'a>) -> Result<Val<'a>> {
        let budget = &self.budget;
        let number = |value: &Val<'a>| value.number(budget);
        Ok(match operator {
            Operator::Equal => Val::Bool(one.equals(other, budget)?),
            Operator::NotEqual => Val::Bool(!one.equals(other, budget)?),
            Operator::Same => Val::Bool(one.is(other, budget)?),
            Operator::NotSame => Val::Bool(!one.is(other, budget)?),
            Operator::Not => Val::Bool(!one.truthy()),
            Operator::Truthy => Val::Bool(one.truthy()),
            Operator::Subtract => Val::Number(number(one)? - number(other)?),
            Operator::Divide => Val::Number(number(one)? / divisor(number(other)?)?),
            Operator::Remainder => Val::Number(number(one)? % divisor(number(other)?)?),
            Operator::In => Val::Bool(self.is_in(one, other)?),
            Operator::StartsWith | Operator::EndsWith => self.affix(operator, one, other)?,
            _ => Val::Null,
        })
    }

    fn between(
        &self,
        operator: Operator,
        arguments: &'a [Node],
        data: &Val<'a>,
    ) -> Result<Val<'a>> {
        let one = self.argument(arguments, 0, data)?;
        let other = self.argument(arguments, 1, data)?;
        // Evaluated also where it decides nothing: one that fails, fails for everybody.
        let third = self.argument(arguments, 2, data)?;
        let first = in_order(operator, one.order(&other, &self.budget)?);
        if !first || arguments.len() < 3 {
            return Ok(Val::Bool(first));
        }
        Ok(Val::Bool(in_order(
            operator,
            other.order(&third, &self.budget)?,
        )))
    }

    fn fold(
        &self,
        arguments: &'a [Node],
        start: f64,
        step: impl Fn(f64, &Val<'a>) -> Result<f64>,
        data: &Val<'a>,
    ) -> Result<Val<'a>> {
        let mut result = start;
        for argument in arguments {
            result = step(result, &self.evaluate(argument, data)?)?;
        }
        Ok(Val::Number(result))
    }

    /// What is added or multiplied. JSONLogic reads it as text there, and a list without one is no number.
    fn addend(&self, value: &Val<'a>) -> Result<f64> {
        if value.items().is_some() && value.to_text(&self.budget)?.is_empty() {
            return Ok(f64::NAN);
        }
        value.number(&self.budget)
    }

    /// Evaluators take an empty list that stands alone for no arguments.
    fn only_addend(&self, argument: &'a Node, data: &Val<'a>) -> Result<Val<'a>> {
        let value = self.evaluate(argument, data)?;
        Ok(Val::Number(match value.items() {
            Some(items) if items.len() == 0 => 0.0,
            _ => self.addend(&value)?,
        }))
    }

    fn extreme(
        &self,
        operator: Operator,
        arguments: &'a [Node],
        data: &Val<'a>,
    ) -> Result<Val<'a>> {
        let (start, wanted) = match operator {
            Operator::Max => (f64::NEG_INFINITY, Ordering::Greater),
            _ => (f64::INFINITY, Ordering::Less),
        };
        let step = |most: f64, value: &Val<'a>| {
            let number = value.number(&self.budget)?;
            Ok(match number.partial_cmp(&most) {
                None => f64::NAN,
                Some(order) if order == wanted => number,
                Some(_) => most,
            })
        };
        self.fold(arguments, start, step, data)
    }

    fn merge(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let mut merged = Vec::new();
        for argument in arguments {
            let value = self.evaluate(argument, data)?;
            match value.items() {
                Some(items) => {
                    self.budget
                        .take(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
                    merged.extend((0..items.len()).filter_map(|index| items.get(index)));
                }
                None => merged.push(value),
            }
        }
        Val::list(merged)
    }

    fn cat(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let mut text = String::new();
        for argument in arguments {
            self.evaluate(argument, data)?
                .write(&mut text, &self.budget)?;
        }
        Ok(Val::text(text))
    }

    fn is_in(&self, one: &Val<'a>, list: &Val<'a>) -> Result<bool> {
        if let Some(items) = list.items() {
            self.budget
                .take(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
            for item in (0..items.len()).filter_map(|index| items.get(index)) {
                if item.is(one, &self.budget)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        match list.as_str() {
            // The empty text counts as nothing, in which nothing is.
            None | Some("") => Ok(false),
            Some(text) => {
                self.budget.take_bytes(text.len())?;
                Ok(text.contains(&*one.to_text(&self.budget)?))
            }
        }
    }

    fn affix(&self, operator: Operator, text: &Val<'a>, affix: &Val<'a>) -> Result<Val<'a>> {
        let (Some(text), Some(affix)) = (text.as_str(), affix.as_str()) else {
            return Ok(Val::Null);
        };
        self.budget.take_bytes(affix.len())?;
        Ok(Val::Bool(match operator {
            Operator::StartsWith => text.starts_with(affix),
            _ => text.ends_with(affix),
        }))
    }

    fn substr(&self, arguments: &'a [Node], data: &Val<'a>) -> Result<Val<'a>> {
        let source = self.argument(arguments, 0, data)?;
        let text = source.to_text(&self.budget)?;
        let start = whole(self.argument(arguments, 1, data)?.number(&self.budget)?);
        let length = match arguments.get(2) {
            Some(length) => Some(whole(self.evaluate(length, data)?.number(&self.budget)?)),
            None => None,
        };
        self.budget.take_bytes(text.len())?;
        Ok(Val::text(substr(&text, start, length)))
    }
}

/// What an operator over a list says when there is no list.
fn without_list<'a>(each: Each) -> Result<Val<'a>> {
    match each {
        Each::Map | Each::Filter => Val::list(Vec::new()),
        Each::All | Each::Some => Ok(Val::Bool(false)),
        Each::None => Ok(Val::Bool(true)),
    }
}

/// The evaluators of flagd refuse to divide by zero.
fn divisor(number: f64) -> Result<f64> {
    if number == 0.0 {
        return Err(Stop::Zero);
    }
    Ok(number)
}

fn in_order(operator: Operator, order: Option<Ordering>) -> bool {
    match (operator, order) {
        (_, None) => false,
        (Operator::Less, Some(order)) => order == Ordering::Less,
        (Operator::LessOrEqual, Some(order)) => order != Ordering::Greater,
        (Operator::Greater, Some(order)) => order == Ordering::Greater,
        (_, Some(order)) => order != Ordering::Less,
    }
}

/// Without its fraction; what is no number is 0.
fn whole(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number.trunc() }
}

/// Counted in units of UTF-16, as in JavaScript. A negative start counts from the end; a negative length
/// says how many to leave away there.
fn substr(text: &str, start: f64, length: Option<f64>) -> String {
    let units: Vec<u16> = text.encode_utf16().collect();
    let count = units.len() as f64;
    let start = if start < 0.0 {
        (count + start).max(0.0)
    } else {
        start.min(count)
    };
    let end = match length {
        None => count,
        Some(length) if length < 0.0 => count + length,
        Some(length) => start + length,
    };
    let end = end.clamp(start, count);
    String::from_utf16_lossy(&units[start as usize..end as usize])
}
