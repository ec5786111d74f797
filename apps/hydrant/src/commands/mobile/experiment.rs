//! `hydrant mobile experiment`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Experiments, from draft to decision
#[derive(Debug, Args)]
pub(crate) struct ExperimentArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &ExperimentArgs) -> Result<()> {
    Err(unfinished("experiment"))
}
