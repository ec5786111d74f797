//! Where documents are changed: by people, by the leader, by any process of the service.

use std::sync::Arc;

use hydrant_runtime::Clock;
use hydrant_sdk::{Code, Error};

use crate::compiled::Compiled;
use crate::documents::DocumentId;
use crate::service::refused::Refused;

/// Changes documents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    clock: Clock,
}

/// A document that is put, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) id: DocumentId,
    /// The new text; `None` to remove the document.
    pub(crate) body: Option<String>,
}

impl Desk {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock }))
    }

    /// The time of everything that is decided here.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The newest revision of the tables, compiled; without tables, what is published.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub(crate) async fn current(&self) -> Result<Arc<Compiled>, Error> {
        Ok(Arc::default())
    }

    /// Changes documents as one revision of this author, for this reason; returns its number, or
    /// that of the newest one when nothing changes.
    ///
    /// # Errors
    ///
    /// If it would not compile, or the database does not answer.
    pub(crate) async fn apply(
        &self,
        _author: &str,
        _reason: &str,
        _edits: Vec<Edit>,
    ) -> Result<u64, Refused> {
        let message = "documents can't be changed yet";
        Err(Error::new(Code::Unimplemented, "not_there", message).into())
    }
}
