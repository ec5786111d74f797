//! `hydrant audit`: what happened to submissions.

mod day;
mod explore;
mod html;
mod list;
mod report;
mod verify;

use clap::{Args, Subcommand};
use connectrpc::client::HttpClient;
use hydrant_submissions::proto::{AuditClient, ExposureClient};

use crate::api::Api;
use crate::cli::Global;
use crate::failure::Result;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant audit list --store 4711 --since 2026-11-20
  hydrant audit report --day 2026-11-20 --format html >report.html
  hydrant audit verify")]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Look around in a page of your browser: by time, kind, store, user and session
    Explore(explore::ExploreArgs),
    /// Events, the newest first
    List(list::ListArgs),
    /// One day: sessions that succeeded and failed, by store
    Report(report::ReportArgs),
    /// Follow the chain of seals and all receipts: finds what was changed or taken away
    Verify(verify::VerifyArgs),
}

pub(crate) async fn run(global: &Global, args: &AuditArgs, output: &Output) -> Result<()> {
    let audit = Audit {
        api: Api::connect(global).await?,
        output,
    };
    match &args.command {
        AuditCommand::Explore(args) => explore::run(&audit, args).await,
        AuditCommand::List(args) => list::run(&audit, args).await,
        AuditCommand::Report(args) => report::run(&audit, args).await,
        AuditCommand::Verify(args) => verify::run(&audit, args).await,
    }
}

/// What the commands work with.
struct Audit<'a> {
    api: Api,
    output: &'a Output,
}

impl Audit<'_> {
    fn client(&self) -> AuditClient<HttpClient> {
        self.api.service("service/submissions", AuditClient::new)
    }

    fn exposure(&self) -> ExposureClient<HttpClient> {
        let new = ExposureClient::new;
        self.api.service("service/submissions", new)
    }
}
