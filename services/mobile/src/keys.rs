//! The keys of one revision, compiled.

use hydrant_flags::Mistake;

use crate::bundle::Bundle;

#[derive(Debug, Default)]
pub(crate) struct Keys {}

impl Keys {
    pub(crate) fn compile(_bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        Ok(Self {})
    }
}
