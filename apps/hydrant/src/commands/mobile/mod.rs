//! `hydrant mobile`: what product people change, and what operators look at. One file per noun.

mod access;
mod change;
mod config;
mod content;
mod documents;
mod experiment;
mod files;
mod flag;
mod image;
mod jsontext;
mod key;
mod refusal;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use connectrpc::client::ClientConfig;
use hydrant_mobile::proto::DocumentsClient;

use crate::cli::Global;
use crate::failure::Result;
use crate::output::Output;

use access::Access;
pub(crate) use access::Way;

#[derive(Debug, Args)]
#[command(after_help = "\
Every change is a revision, with its author and a reason, and can be reverted.

Examples:
  hydrant mobile flag disable new-checkout -m 'orders fail on Android 9'
  hydrant mobile history
  hydrant mobile revert 41 -m 'back to what worked'

From another machine, with a key of the role admin:
  hydrant mobile --url https://example.com --key-file ./admin.key list")]
pub(crate) struct MobileArgs {
    /// Ask the public address --url as the holder of the key in this file, rather than a node
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    #[command(subcommand)]
    command: MobileCommand,
}

#[derive(Debug, Subcommand)]
enum MobileCommand {
    /// Flags, one by one
    Flag(flag::FlagArgs),
    /// Experiments, from draft to decision
    Experiment(experiment::ExperimentArgs),
    /// API keys
    Key(key::KeyArgs),
    /// Layers of the configuration, and what an app gets of them
    Config(config::ConfigArgs),
    /// Types and entries of content
    Content(content::ContentArgs),
    /// Images of content
    Image(image::ImageArgs),
    /// Sources, revisions and alarms
    Status(status::StatusArgs),
    #[command(flatten)]
    Documents(documents::DocumentsCommand),
}

/// Runs a command of the mobile service.
pub(crate) async fn run(global: &Global, args: &MobileArgs, output: &Output) -> Result<()> {
    let mobile = &Mobile {
        access: Access::open(global, args.key_file.as_deref()).await?,
        output,
    };
    match &args.command {
        MobileCommand::Flag(args) => flag::run(mobile, args).await,
        MobileCommand::Experiment(args) => experiment::run(mobile, args).await,
        MobileCommand::Key(args) => key::run(mobile, args).await,
        MobileCommand::Config(args) => config::run(mobile, args).await,
        MobileCommand::Content(args) => content::run(mobile, args).await,
        MobileCommand::Image(args) => image::run(mobile, args).await,
        MobileCommand::Status(args) => status::run(mobile, args).await,
        MobileCommand::Documents(command) => documents::run(mobile, command).await,
    }
}

/// What the commands of the mobile service work with.
pub(crate) struct Mobile<'a> {
    access: Access,
    /// Where results go.
    pub(crate) output: &'a Output,
}

impl Mobile<'_> {
    /// A generated client of `service/mobile`, as `mobile.client(ExperimentsClient::new)`. It goes
    /// through the node as its operator, or through the public address as the holder of a key.
    pub(crate) fn client<C>(&self, make: impl FnOnce(Way, ClientConfig) -> C) -> C {
        make(self.access.way(), self.access.config())
    }

    /// The client of the documents.
    pub(crate) fn documents(&self) -> DocumentsClient<Way> {
        self.client(DocumentsClient::new)
    }
}
