//! Flag definitions in flagd's format: checked on entry, compiled once, evaluated without I/O.
//!
//! The definition is public: <https://flagd.dev/reference/flag-definitions/>.

mod definitions;
mod evaluation;
mod flag;
#[doc(hidden)]
pub mod fuzz;
mod logic;
mod mistake;
mod set;
mod text;

pub use definitions::Definitions;
pub use evaluation::{Context, Evaluation, EvaluationError, Reason};
pub use flag::{Flag, Variant};
pub use logic::Rule;
pub use mistake::Mistake;
pub use text::{MAX_TEXT, Place, locate, not_json, read};
