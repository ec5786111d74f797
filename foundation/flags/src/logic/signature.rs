//! The operators of JSONLogic, and flagd's own.

use super::node::{Each, Node, Operator};

/// What an operator becomes with its arguments.
type Make = fn(Box<[Node]>) -> Node;

/// How many arguments an operator takes, and what it becomes.
pub(crate) struct Signature {
    pub(crate) least: usize,
    pub(crate) most: Option<usize>,
    /// Whether a single argument may stand without a list.
    pub(crate) unary: bool,
    pub(crate) make: Make,
}

macro_rules! call {
    ($operator:ident) => {
        |nodes| Node::Call(Operator::$operator, nodes)
    };
}

macro_rules! each {
    ($each:ident) => {
        |nodes| Node::Each(Each::$each, nodes)
    };
}

impl Signature {
    pub(crate) fn of(operator: &str) -> Option<Self> {
        let (least, most, make): (_, _, Make) = match operator {
            "if" | "?:" => (1, None, Node::If),
            "and" => (1, None, Node::And),
            "or" => (1, None, Node::Or),
            "missing" => (0, None, Node::Missing),
            "missing_some" => (2, Some(2), Node::MissingSome),
            "map" => (2, Some(2), each!(Map)),
            "filter" => (2, Some(2), each!(Filter)),
            "all" => (2, Some(2), each!(All)),
            "none" => (2, Some(2), each!(None)),
            "some" => (2, Some(2), each!(Some)),
            "reduce" => (3, Some(3), Node::Reduce),
            _ => Self::of_call(operator)?,
        };
        let unary = matches!(operator, "!" | "!!");
        Some(Self {
            least,
            most,
            unary,
            make,
        })
    }

    fn of_call(operator: &str) -> Option<(usize, Option<usize>, Make)> {
        Some(match operator {
            "==" => (2, Some(2), call!(Equal)),
            "!=" => (2, Some(2), call!(NotEqual)),
            "===" => (2, Some(2), call!(Same)),
            "!==" => (2, Some(2), call!(NotSame)),
            "<" => (2, Some(3), call!(Less)),
            "<=" => (2, Some(3), call!(LessOrEqual)),
            ">" => (2, Some(3), call!(Greater)),
            ">=" => (2, Some(3), call!(GreaterOrEqual)),
            "!" => (1, Some(1), call!(Not)),
            "!!" => (1, Some(1), call!(Truthy)),
            "max" => (1, None, call!(Max)),
            "min" => (1, None, call!(Min)),
            "+" => (1, None, call!(Add)),
            "-" => (1, Some(2), call!(Subtract)),
            "*" => (2, None, call!(Multiply)),
            "/" => (2, Some(2), call!(Divide)),
            "%" => (2, Some(2), call!(Remainder)),
            "merge" => (1, None, call!(Merge)),
            "in" => (2, Some(2), call!(In)),
            "cat" => (1, None, call!(Cat)),
            "substr" => (2, Some(3), call!(Substr)),
            "starts_with" => (2, Some(2), call!(StartsWith)),
            "ends_with" => (2, Some(2), call!(EndsWith)),
            _ => return None,
        })
    }
}
