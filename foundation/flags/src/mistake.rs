use std::fmt;

use serde::Serialize;

/// What is wrong with a definition, where, and how to mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The document, as `flags/demo`.
    pub document: String,
    /// Where in it, as a JSON pointer (RFC 6901): `/flags/new-checkout/variants`. Empty for the whole.
    pub pointer: String,
    /// The line in the document's text, from 1; 0 when that is not known.
    pub line: u32,
    /// The column of that line, from 1, in characters; 0 when that is not known.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// How to mend it; may be empty.
    pub mend: String,
}

impl Mistake {
    /// A mistake at a place of a document.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// The same, with a way to mend it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = mend.into();
        self
    }

    /// The same, in this document.
    #[must_use]
    pub fn of(mut self, document: impl Into<String>) -> Self {
        self.document = document.into();
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.document)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.pointer.is_empty() {
            write!(f, " at {}", self.pointer)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Mistake {}
