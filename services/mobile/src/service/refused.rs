//! A change that is refused: why, and each mistake with its place.

use connectrpc::{ConnectError, ErrorDetail};
use hydrant_flags::Mistake;
use hydrant_sdk::{Code, Error};

use crate::proto;

/// The full name of the detail that carries the mistakes.
const DETAIL: &str = "hydrant.mobile.v1.Mistakes";
/// How many mistakes are told at once.
const MAX_TOLD: usize = 100;
/// How many mistakes stand in the message.
const MAX_SPELLED: usize = 5;

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) mistakes: Vec<Mistake>,
}

impl Refused {
    /// It would not compile.
    pub(crate) fn mistakes(mistakes: Vec<Mistake>) -> Self {
        Self {
            error: Error::new(Code::InvalidArgument, "does_not_compile", spell(&mistakes)),
            mistakes,
        }
    }
}

/// The first mistakes, one a line, for who does not read the detail.
fn spell(mistakes: &[Mistake]) -> String {
    let mut lines: Vec<String> = mistakes.iter().take(MAX_SPELLED).map(one_line).collect();
    let left = mistakes.len().saturating_sub(MAX_SPELLED);
    if left > 0 {
        lines.push(format!("and {left} more"));
    }
    lines.join("\n")
}

fn one_line(mistake: &Mistake) -> String {
    match mistake.mend.as_str() {
        "" => mistake.to_string(),
        mend => format!("{mistake}; {mend}"),
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            mistakes: Vec::new(),
        }
    }
}

impl From<Refused> for ConnectError {
    fn from(refused: Refused) -> Self {
        let error = ConnectError::from(refused.error);
        if refused.mistakes.is_empty() {
            return error;
        }
        let told = refused.mistakes.into_iter().take(MAX_TOLD);
        let detail = proto::Mistakes {
            mistakes: told.map(proto::Mistake::from).collect(),
            ..Default::default()
        };
        error.with_detail(ErrorDetail::from_message(DETAIL, &detail))
    }
}

impl From<Mistake> for proto::Mistake {
    fn from(mistake: Mistake) -> Self {
        Self {
            document: mistake.document,
            pointer: mistake.pointer,
            line: mistake.line,
            column: mistake.column,
            message: mistake.message,
            mend: mistake.mend,
            ..Default::default()
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}
