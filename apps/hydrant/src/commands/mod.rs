//! One file per command.

pub(crate) mod audit;
mod builtin;
mod ca;
mod call;
pub(crate) mod completions;
pub(crate) mod data_copy;
mod explain;
mod health;
mod list;
mod logs;
pub(crate) mod mobile;
mod node;
pub(crate) mod receipt;
mod restart;
pub(crate) mod rules;
pub(crate) mod run;
mod scale;
mod serve;
mod state;
mod stats;
pub(crate) mod submissions;
pub(crate) mod supervised;
mod tap;
mod token;
mod top;
mod up;

use crate::cli::{Cli, Command, DataCommand};
use crate::failure::Result;
use crate::output::Output;

/// Runs the command of the command line.
pub(crate) async fn dispatch(cli: Cli, output: &Output) -> Result<()> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(global, &args, output).await,
        Command::Node(args) => node::run(&args, output).await,
        Command::Restart => restart::run(global, output).await,
        Command::Run(args) => run::run(global, args).await,
        Command::Call(args) => call::run(global, &args, output).await,
        Command::List(args) => list::run(global, &args, output).await,
        Command::Stats(args) => stats::run(global, &args, output).await,
        Command::Explain(args) => explain::run(global, &args, output).await,
        Command::Health(args) => health::run(global, &args, output).await,
        Command::Rules(args) => rules::run(global, &args, output).await,
        Command::Logs(args) => logs::run(global, &args, output).await,
        Command::Top(args) => top::run(global, &args, output).await,
        Command::Tap(args) => tap::run(global, &args, output).await,
        Command::Scale(args) => scale::run(global, &args, output).await,
        Command::Token(args) => token::run(global, &args, output).await,
        Command::State(args) => state::run(global, &args, output).await,
        Command::Mobile(args) => mobile::run(global, &args, output).await,
        Command::Submissions(args) => submissions::run(global, &args, output).await,
        Command::Audit(args) => audit::run(global, &args, output).await,
        Command::Receipt(args) => receipt::run(&args, output),
        Command::Ca(args) => ca::run(args.command, output),
        Command::Data(args) => match args.command {
            DataCommand::Copy(args) => data_copy::run(&args, output).await,
        },
        Command::Completions(args) => completions::run(&args, output),
        Command::Builtin(args) => builtin::run(args.service).await,
    }
}
