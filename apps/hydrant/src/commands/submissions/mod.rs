//! `hydrant submissions`: how deliveries stand, and what is decided about those that failed.

mod backlog;
mod decide;
pub(in crate::commands) mod exposure;
mod failover;
mod parked;
mod primary;
mod reconcile;
mod status;

pub(in crate::commands) use decide::author;

use clap::{Args, Subcommand};
use connectrpc::client::HttpClient;
use hydrant_submissions::proto::{
    DeliveriesClient, ExposureClient, SitesClient, SubmissionsClient,
};

use crate::api::Api;
use crate::cli::Global;
use crate::failure::Result;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant submissions backlog
  hydrant submissions parked --consumer shop
  hydrant submissions retry --consumer shop -m 'the shop takes long names now'")]
pub(crate) struct SubmissionsArgs {
    #[command(subcommand)]
    command: SubmissionsCommand,
}

#[derive(Debug, Subcommand)]
enum SubmissionsCommand {
    /// How one stands, and where it is on its way
    Status(status::StatusArgs),
    /// How many wait for each consumer, and since when
    Backlog,
    /// What is in one data centre only, and since when
    Exposure,
    /// What can't be delivered, and why, the oldest first
    Parked(parked::ParkedArgs),
    /// Try parked ones again
    Retry(decide::DecideArgs),
    /// Give parked ones up: they are never delivered
    Drop(decide::DecideArgs),
    /// Which of two databases is the primary, and how each stands
    Primary(primary::PrimaryArgs),
    /// Make the other database the primary
    Failover(failover::FailoverArgs),
    /// Bring over what the former primary had not passed on
    Reconcile(reconcile::ReconcileArgs),
}

pub(crate) async fn run(global: &Global, args: &SubmissionsArgs, output: &Output) -> Result<()> {
    let desk = Desk {
        api: Api::connect(global).await?,
        output,
    };
    match &args.command {
        SubmissionsCommand::Status(args) => status::run(&desk, args).await,
        SubmissionsCommand::Backlog => backlog::run(&desk).await,
        SubmissionsCommand::Exposure => exposure::run(&desk).await,
        SubmissionsCommand::Parked(args) => parked::run(&desk, args).await,
        SubmissionsCommand::Retry(args) => decide::retry(&desk, args).await,
        SubmissionsCommand::Drop(args) => decide::drop(&desk, args).await,
        SubmissionsCommand::Primary(args) => primary::run(&desk, args).await,
        SubmissionsCommand::Failover(args) => failover::run(&desk, args).await,
        SubmissionsCommand::Reconcile(args) => reconcile::run(&desk, args).await,
    }
}

/// What the commands work with.
struct Desk<'a> {
    api: Api,
    output: &'a Output,
}

impl Desk<'_> {
    fn deliveries(&self) -> DeliveriesClient<HttpClient> {
        let new = DeliveriesClient::new;
        self.api.service("service/submissions", new)
    }

    fn exposure(&self) -> ExposureClient<HttpClient> {
        let new = ExposureClient::new;
        self.api.service("service/submissions", new)
    }

    fn sites(&self) -> SitesClient<HttpClient> {
        let new = SitesClient::new;
        self.api.service("service/submissions", new)
    }

    fn submissions(&self) -> SubmissionsClient<HttpClient> {
        let new = SubmissionsClient::new;
        self.api.service("service/submissions", new)
    }
}
