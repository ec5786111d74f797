//! `hydrant mobile image`.

use clap::Args;

use super::{Mobile, unfinished};
use crate::failure::Result;

/// Images of content
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {}

pub(crate) async fn run(_mobile: &Mobile<'_>, _args: &ImageArgs) -> Result<()> {
    Err(unfinished("image"))
}
