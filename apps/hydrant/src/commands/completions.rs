use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::failure::Result;
use crate::output::Output;

/// Prints the completions of a shell.
pub(crate) fn run(args: &CompletionsArgs, output: &Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hydrant", &mut script);
    output.bytes(&script)
}
