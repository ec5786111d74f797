//! Flag definitions in flagd's format: checked on entry, compiled once, evaluated without I/O.
//!
//! The definition is public: <https://flagd.dev/reference/flag-definitions/>.

mod definitions;
mod evaluation;
mod mistake;
mod rule;
mod text;

pub use definitions::{Definitions, Flag};
pub use evaluation::{Context, Evaluation, EvaluationError, Reason};
pub use mistake::Mistake;
pub use rule::Rule;
pub use text::{MAX_TEXT, Place, locate, read};
