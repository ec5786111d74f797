//! What is the same for everybody is evaluated when it is compiled.

use serde_json::{Map, Value};

use super::budget::Budget;
use super::evaluate::Run;
use super::node::Node;
use super::value::{Shape, Val};
use crate::Context;

/// An expression that is the same for everybody, evaluated now.
pub(crate) fn folded(node: Node) -> Node {
    let constant = match &node {
        Node::List(nodes)
        | Node::If(nodes)
        | Node::And(nodes)
        | Node::Or(nodes)
        | Node::Call(_, nodes)
        | Node::Each(_, nodes)
        | Node::Reduce(nodes) => nodes.iter().all(Node::is_constant),
        _ => false,
    };
    let value = constant.then(|| evaluated(&node)).flatten();
    value.map_or(node, Node::Constant)
}

/// Its value; `None` when it fails, which is then seen when it is evaluated, or has no form in JSON.
fn evaluated(node: &Node) -> Option<Value> {
    let nothing = Map::new();
    let context = Context {
        targeting_key: None,
        attributes: &nothing,
        now_unix: 0,
    };
    let run = Run {
        budget: Budget::of(1000),
        ..Run::new("", context)
    };
    let value = run.evaluate(node, &Val::Context).ok()?;
    is_finite(&value)
        .then(|| value.to_json(&run.budget).ok())
        .flatten()
}

fn is_finite(value: &Val<'_>) -> bool {
    match (value.shape(), value.items()) {
        (Shape::Number(number), _) => number.is_finite(),
        (_, Some(items)) => (0..items.len())
            .filter_map(|index| items.get(index))
            .all(|item| is_finite(&item)),
        _ => true,
    }
}
