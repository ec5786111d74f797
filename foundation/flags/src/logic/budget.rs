//! How much one evaluation may do: a definition is data, and can't keep a processor busy.

use std::cell::Cell;

/// Steps of one evaluation. A step is about one operator, one item of a list, or 16 bytes of text.
const STEPS: u32 = 10_000;

/// Why an evaluation ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("it takes more than {STEPS} steps: loops over such long lists are not evaluated")]
    Steps,
    #[error("it nests lists too deep")]
    Nesting,
    #[error("it divides by zero")]
    Zero,
    #[error("`*` has no arguments")]
    Empty,
}

/// What is left of the steps.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u32>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(STEPS))
    }
}

impl Budget {
    /// One of so many steps.
    pub(crate) fn of(steps: u32) -> Self {
        Self(Cell::new(steps))
    }

    /// # Errors
    ///
    /// If that many steps are not left.
    pub(crate) fn take(&self, steps: u32) -> Result<(), Stop> {
        let left = self.0.get().checked_sub(steps).ok_or(Stop::Steps)?;
        self.0.set(left);
        Ok(())
    }

    /// # Errors
    ///
    /// If the steps for so many bytes are not left.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<(), Stop> {
        self.take(u32::try_from(bytes / 16).unwrap_or(u32::MAX))
    }
}
