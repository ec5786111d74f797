//! `hydrant mobile flag`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Flags, one by one
#[derive(Debug, Args)]
pub(crate) struct FlagArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &FlagArgs) -> Result<()> {
    Err(unfinished("flag"))
}
