//! The one binary: a node, its command line, and the built-in services.

mod api;
mod assembly;
mod cli;
mod commands;
mod config;
mod copy;
mod data;
mod failure;
mod fleet;
mod handover;
mod output;
mod servers;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::failure::Result;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.json);
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&output),
    }
}

fn run(cli: Cli, output: &Output) -> Result<()> {
    let threads = match cli.command {
        Command::Completions(args) => return commands::completions::run(&args, output),
        Command::Up(_) | Command::Node(_) | Command::Builtin(_) => Threads::PerCore,
        _ => Threads::One,
    };
    runtime(threads)?.block_on(commands::dispatch(cli, output))
}

/// How many threads a command works with.
enum Threads {
    One,
    PerCore,
}

fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::PerCore => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build();
    runtime.map_err(|error| {
        failure::system(
            "cannot start the event loop",
            &error,
            "raise the limits on threads and open files",
        )
    })
}
