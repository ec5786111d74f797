//! JSONLogic with flagd's operators: an expression is compiled once, and evaluated without I/O.

mod budget;
mod cbor;
mod compile;
mod evaluate;
mod fold;
mod fractional;
mod node;
mod number;
mod rule;
mod sem_ver;
mod signature;
mod value;

pub(crate) use compile::{Compiler, Finding, Gravity};
pub(crate) use evaluate::Run;
pub(crate) use fractional::Form;
pub(crate) use node::Node;
pub(crate) use value::{Shape, Val};

pub use rule::Rule;
