//! `hydrant mobile content`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Types and entries of content
#[derive(Debug, Args)]
pub(crate) struct ContentArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &ContentArgs) -> Result<()> {
    Err(unfinished("content"))
}
