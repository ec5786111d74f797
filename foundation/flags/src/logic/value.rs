//! Values while an expression is evaluated: borrowed from the definition and from the context wherever
//! that is possible.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value;

use super::budget::{Budget, Stop};
use super::number;

/// Lists are nested no deeper than this, however they are made.
const MAX_NESTING: u16 = 64;

/// A value of JSONLogic.
#[derive(Clone, Debug)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'a str),
    /// A list or an object, or a whole number that `f64` would round.
    Json(&'a Value),
    Made(Rc<str>),
    List(Rc<List<'a>>),
    /// All that is known of who asks.
    Context,
    /// What a step of `reduce` sees: `current` and `accumulator`.
    Step(Rc<(Val<'a>, Val<'a>)>),
}

/// A list that was made on the way.
#[derive(Debug)]
pub(crate) struct List<'a> {
    items: Vec<Val<'a>>,
    nesting: u16,
}

/// The items of a list, wherever they are.
#[derive(Clone, Copy)]
pub(crate) enum Items<'v, 'a> {
    Json(&'a [Value]),
    Made(&'v [Val<'a>]),
}

/// What kind of value it is.
pub(crate) enum Shape<'v> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'v str),
    List,
    Object,
}

/// The largest whole number up to which `f64` has them all.
const EXACT: u64 = 1 << 53;

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::String(text) => Self::Text(text),
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() || float.abs() <= EXACT as f64 => {
                    Self::Number(float)
                }
                _ => Self::Json(value),
            },
            Value::Array(_) | Value::Object(_) => Self::Json(value),
        }
    }
}

impl<'a> Val<'a> {
    pub(crate) fn text(text: String) -> Self {
        Self::Made(text.into())
    }

    /// # Errors
    ///
    /// If it is nested too deep.
    pub(crate) fn list(items: Vec<Val<'a>>) -> Result<Self, Stop> {
        let nesting = items.iter().map(Self::nesting).max().unwrap_or(0) + 1;
        if nesting > MAX_NESTING {
            return Err(Stop::Nesting);
        }
        Ok(Self::List(Rc::new(List { items, nesting })))
    }

    /// How deep it nests lists that were made. Those of JSON have their own limit.
    fn nesting(&self) -> u16 {
        match self {
            Self::List(list) => list.nesting,
            Self::Step(step) => step.0.nesting().max(step.1.nesting()) + 1,
            _ => 0,
        }
    }

    /// # Errors
    ///
    /// If it is nested too deep.
    pub(crate) fn step(current: Val<'a>, accumulator: Val<'a>) -> Result<Self, Stop> {
        let step = Self::Step(Rc::new((current, accumulator)));
        if step.nesting() > MAX_NESTING {
            return Err(Stop::Nesting);
        }
        Ok(step)
    }

    pub(crate) fn shape(&self) -> Shape<'_> {
        match self {
            Self::Null => Shape::Null,
            Self::Bool(bool) => Shape::Bool(*bool),
            Self::Number(number) => Shape::Number(*number),
            Self::Text(text) => Shape::Text(text),
            Self::Made(text) => Shape::Text(text),
            Self::List(_) | Self::Json(Value::Array(_)) => Shape::List,
            Self::Json(Value::Number(number)) => Shape::Number(number.as_f64().unwrap_or(f64::NAN)),
            Self::Json(_) | Self::Context | Self::Step(_) => Shape::Object,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self.shape() {
            Shape::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> Option<Items<'_, 'a>> {
        match self {
            Self::List(list) => Some(Items::Made(&list.items)),
            Self::Json(Value::Array(items)) => Some(Items::Json(items)),
            _ => None,
        }
    }

    /// Whether it counts as true: an empty list does not, all else is as in JavaScript.
    pub(crate) fn truthy(&self) -> bool {
        match self.shape() {
            Shape::Null => false,
            Shape::Bool(bool) => bool,
            Shape::Number(number) => number != 0.0 && !number.is_nan(),
            Shape::Text(text) => !text.is_empty(),
            Shape::List => self.items().is_some_and(|items| items.len() > 0),
            Shape::Object => true,
        }
    }

    /// As a number, as JavaScript's `Number()` does it.
    pub(crate) fn number(&self, budget: &Budget) -> Result<f64, Stop> {
        Ok(match self.shape() {
            Shape::Null => 0.0,
            Shape::Bool(bool) => f64::from(u8::from(bool)),
            Shape::Number(number) => number,
            Shape::Text(text) => {
                budget.take_bytes(text.len())?;
                number::parse(text)
            }
            Shape::List => number::parse(&self.to_text(budget)?),
            Shape::Object => f64::NAN,
        })
    }

    /// As text, as JavaScript's `String()` does it.
    pub(crate) fn to_text(&self, budget: &Budget) -> Result<Cow<'_, str>, Stop> {
        if let Some(text) = self.as_str() {
            return Ok(Cow::Borrowed(text));
        }
        let mut text = String::new();
        self.write(&mut text, budget)?;
        Ok(Cow::Owned(text))
    }

    /// Appends it as text.
    pub(crate) fn write(&self, out: &mut String, budget: &Budget) -> Result<(), Stop> {
        let before = out.len();
        match self.shape() {
            Shape::Null => out.push_str("null"),
            Shape::Bool(bool) => out.push_str(if bool { "true" } else { "false" }),
            Shape::Number(number) => number::write(number, out),
            Shape::Text(text) => out.push_str(text),
            Shape::Object => out.push_str("[object Object]"),
            Shape::List => return self.join(out, budget),
        }
        budget.take_bytes(out.len() - before)
    }

    fn join(&self, out: &mut String, budget: &Budget) -> Result<(), Stop> {
        let Some(items) = self.items() else {
            return Ok(());
        };
        for index in 0..items.len() {
            budget.take(1)?;
            if index > 0 {
                out.push(',');
            }
            match items.get(index) {
                Some(Val::Null) | None => {}
                Some(item) => item.write(out, budget)?,
            }
        }
        Ok(())
    }

    /// Equal in kind and value; lists and objects only if they are the same one.
    pub(crate) fn is(&self, other: &Self, budget: &Budget) -> Result<bool, Stop> {
        Ok(match (self.shape(), other.shape()) {
            (Shape::Null, Shape::Null) => true,
            (Shape::Bool(one), Shape::Bool(other)) => one == other,
            (Shape::Number(one), Shape::Number(other)) => one == other,
            (Shape::Text(one), Shape::Text(other)) => same_text(one, other, budget)?,
            _ => self.is_same(other),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(one), Self::Json(other)) => std::ptr::eq(*one, *other),
            (Self::List(one), Self::List(other)) => Rc::ptr_eq(one, other),
            (Self::Step(one), Self::Step(other)) => Rc::ptr_eq(one, other),
            (Self::Context, Self::Context) => true,
            _ => false,
        }
    }

    /// Equal when made comparable, as JavaScript's `==` does it. One thing differs, because all evaluators of
    /// flagd differ there: nothing also equals 0 and `false`.
    pub(crate) fn equals(&self, other: &Self, budget: &Budget) -> Result<bool, Stop> {
        use Shape::{Bool, List, Null, Number, Object, Text};
        Ok(match (self.shape(), other.shape()) {
            (Text(one), Text(other)) => same_text(one, other, budget)?,
            (Null, Number(number)) | (Number(number), Null) => number == 0.0,
            (Null, Bool(bool)) | (Bool(bool), Null) => !bool,
            (Null, other) | (other, Null) => matches!(other, Null),
            (List | Object, List | Object) => self.is_same(other),
            (List | Object, Text(text)) => self.to_text(budget)? == text,
            (Text(text), List | Object) => other.to_text(budget)? == text,
            _ => self.number(budget)? == other.number(budget)?,
        })
    }

    /// Which one is smaller, as JavaScript's `<` does it; `None` when a number is none.
    pub(crate) fn order(&self, other: &Self, budget: &Budget) -> Result<Option<Ordering>, Stop> {
        use Shape::{List, Object, Text};
        match (self.shape(), other.shape()) {
            (Text(_) | List | Object, Text(_) | List | Object) => {
                let (one, other) = (self.to_text(budget)?, other.to_text(budget)?);
                budget.take_bytes(one.len().min(other.len()))?;
                Ok(Some(text_order(&one, &other)))
            }
            _ => Ok(self.number(budget)?.partial_cmp(&other.number(budget)?)),
        }
    }

    /// A copy that stands on its own.
    pub(crate) fn to_json(&self, budget: &Budget) -> Result<Value, Stop> {
        budget.take(1)?;
        Ok(match self {
            Self::Json(value) => {
                budget.take_bytes(weight(value))?;
                (*value).clone()
            }
            Self::List(list) => {
                let items = list.items.iter().map(|item| item.to_json(budget));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            _ => match self.shape() {
                Shape::Bool(bool) => Value::Bool(bool),
                Shape::Number(number) => Value::from(number),
                Shape::Text(text) => {
                    budget.take_bytes(text.len())?;
                    Value::from(text)
                }
                _ => Value::Null,
            },
        })
    }
}

impl<'a> Items<'_, 'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(items) => items.get(index).map(Val::from),
            Self::Made(items) => items.get(index).cloned(),
        }
    }
}

/// Only texts of the same length are looked at.
fn same_text(one: &str, other: &str, budget: &Budget) -> Result<bool, Stop> {
    if one.len() != other.len() {
        return Ok(false);
    }
    budget.take_bytes(one.len())?;
    Ok(one == other)
}

/// About how many bytes a copy of it takes.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + 16,
        Value::Object(members) => {
            members.values().map(weight).sum::<usize>() + 16 * (members.len() + 1)
        }
        _ => 8,
    }
}

/// JavaScript compares the units of UTF-16, which differs from code points beyond U+D800.
fn text_order(one: &str, other: &str) -> Ordering {
    one.encode_utf16().cmp(other.encode_utf16())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn equal(one: &Value, other: &Value) -> bool {
        Val::from(one)
            .equals(&Val::from(other), &Budget::default())
            .unwrap()
    }

    #[test]
    fn values_equal_each_other_as_in_javascript() {
        for (one, other) in [
            (json!(1), json!("1")),
            (json!(1), json!(true)),
            (json!("0x10"), json!(16)),
            (json!(""), json!(0)),
            (json!([5]), json!(5)),
            (json!([1, null, "x"]), json!("1,,x")),
            (json!({}), json!("[object Object]")),
            (json!([]), json!(false)),
            (json!(null), json!(0)),
        ] {
            assert!(equal(&one, &other) && equal(&other, &one), "{one} {other}");
        }
        for (one, other) in [
            (json!("a"), json!(1)),
            (json!(null), json!("")),
            (json!(null), json!([])),
            (json!([1]), json!([1])),
            (json!("true"), json!(true)),
        ] {
            assert!(
                !equal(&one, &other) && !equal(&other, &one),
                "{one} {other}"
            );
        }
        let list = json!([1]);
        assert!(equal(&list, &list), "it is the same list");
    }

    #[test]
    fn texts_are_ordered_by_units_of_utf_16() {
        assert_eq!(text_order("\u{1F600}", "\u{FFFD}"), Ordering::Less);
        assert_eq!(text_order("a", "é"), Ordering::Less);
    }

    #[test]
    fn lists_within_lists_have_a_limit() {
        let mut list = Val::Null;
        for _ in 0..MAX_NESTING {
            list = Val::list(vec![list]).unwrap();
        }
        assert!(Val::list(vec![list]).is_err());
    }
}
