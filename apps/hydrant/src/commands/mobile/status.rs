//! `hydrant mobile status`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Sources, revisions and alarms
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &StatusArgs) -> Result<()> {
    Err(unfinished("status"))
}
