//! `hydrant mobile config`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Layers of the configuration
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &ConfigArgs) -> Result<()> {
    Err(unfinished("config"))
}
