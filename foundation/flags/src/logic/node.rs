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
pub(crate) struct Path(pub(crate) Box<[PathStep]>);

/// A key of an object, or an index of a list.
#[derive(Clone, Debug)]
pub(crate) struct PathStep {
    pub(crate) name: Box<str>,
    pub(crate) index: Option<usize>,
}

impl Path {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.split('.').map(PathStep::new).collect())
    }
}

impl PathStep {
    fn new(name: &str) -> Self {
        let index = name.parse().ok();
        Self {
            name: name.into(),
            // `01` and `+1` are no indices.
            index: index.filter(|index: &usize| index.to_string() == name),
        }
    }
}

impl Node {
    /// Whether it is the same for everybody, always.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }
}
