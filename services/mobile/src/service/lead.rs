//! The election of `service/mobile`.

use hydrant_sdk::{Code, Error};

/// The election that decides who leads.
pub(crate) const ELECTION: &str = "sources";

/// Whether a write was refused because another process leads.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(
        error.code,
        Code::Aborted | Code::FailedPrecondition | Code::PermissionDenied
    )
}
