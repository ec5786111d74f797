//! What an expression is compiled to.

use std::sync::Arc;

use serde_json::Value;

use super::fractional::Fractional;
use super::sem_ver::SemVer;

/// An expression.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Constant(Value),
    /// A list in which expressions stand.
    List(Box<[Node]>),
    /// An expression of `$evaluators`, compiled once for all that refer to it.
    Shared(Arc<Node>),
    FlagKey,
    Timestamp,
    Variable {
        path: Path,
        default: Option<Box<Node>>,
    },
    /// A variable whose name is itself an expression.
    Computed(Box<[Node]>),
    Missing(Box<[Node]>),
    MissingSome(Box<[Node]>),
    If(Box<[Node]>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    /// An operator whose arguments are evaluated first.
    Call(Operator, Box<[Node]>),
    /// One that looks at each item of a list: the list and the expression.
    Each(Each, Box<[Node]>),
    Reduce(Box<[Node]>),
    Fractional(Box<Fractional>),
    SemVer(Box<SemVer>),
}

/// The operators that need no more than the values of their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Same,
    NotSame,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Not,
    Truthy,
    Max,
    Min,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Merge,
    In,
    Cat,
    Substr,
    StartsWith,
    EndsWith,
}

/// The operators over a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Each {
    Map,
    Filter,
    All,
    None,
    Some,
}

/// The steps to a variable: `user.name`.
#[derive(Clone, Debug)]
pub(crate) struct Path(Box<[(Box<str>, Option<usize>)]>);

/// A key of an object, or an index of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathStep<'p> {
    pub(crate) name: &'p str,
    pub(crate) index: Option<usize>,
}

impl Path {
    /// No name leads to all there is.
    pub(crate) fn new(name: &str) -> Self {
        let steps = name.split('.').filter(|_| !name.is_empty());
        let steps = steps.map(PathStep::of);
        Self(steps.map(|step| (step.name.into(), step.index)).collect())
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = PathStep<'_>> {
        let steps = self.0.iter();
        steps.map(|(name, index)| PathStep {
            name,
            index: *index,
        })
    }
}

impl<'p> PathStep<'p> {
    pub(crate) fn of(name: &'p str) -> Self {
        // `01` and `+1` are no indices.
        let is_index = name == "0" || !name.starts_with(['0', '+']);
        Self {
            name,
            index: name.parse().ok().filter(|_| is_index),
        }
    }
}

impl Node {
    /// Whether it is the same for everybody, always.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}
