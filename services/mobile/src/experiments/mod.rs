//! The experiments of one revision, compiled.

use hydrant_flags::{Definitions, Mistake};

use crate::bundle::Bundle;

#[derive(Debug, Default)]
pub(crate) struct Experiments {}

impl Experiments {
    pub(crate) fn compile(_bundle: &Bundle, _flags: &Definitions) -> Result<Self, Vec<Mistake>> {
        Ok(Self {})
    }
}
