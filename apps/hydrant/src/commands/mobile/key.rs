//! `hydrant mobile key`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// API keys
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &KeyArgs) -> Result<()> {
    Err(unfinished("key"))
}
