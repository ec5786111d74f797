//! `hydrant rules`: how traffic is shaped.

mod differences;
mod list;
mod served;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use hydrant_contracts::proto::{
    ApplyRulesRequest, ChangeRulesResponse, ListRulesRequest, ListRulesResponse, RemoveRulesRequest,
};
use hydrant_contracts::{Code, Error, rules};
use hydrant_runtime::Duration as Span;
use serde_json::json;

use crate::api::Api;
use crate::cli::Global;
use crate::commands::submissions::author;
use crate::failure::{Result, wrong};
use crate::output::{Output, Style};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant rules diff rules.toml
  hydrant rules apply rules.toml -m '5 % see the new checkout' --wait
  hydrant rules remove canary -m 'all have it' --wait")]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Add the rules of a file, and replace those of the same name
    Apply(ApplyArgs),
    /// Show what applying a file would change
    Diff(FileArgs),
    /// List the rules in the order in which they are asked, and which servers go by them
    List,
    /// Print a rule as a file has it
    Show(ShowArgs),
    /// Remove rules
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The file; `-` reads standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Also remove the rules that the file does not have
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The name of the rule
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// The names of the rules
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct ByArgs {
    /// Why: it is kept with each rule that changes
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: String,
    /// Who [default: $USER]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Return when every server goes by it
    #[arg(long)]
    wait: bool,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Span,
}

pub(crate) async fn run(global: &Global, args: &RulesArgs, output: &Output) -> Result<()> {
    let desk = Desk { global, output };
    match &args.command {
        RulesCommand::Apply(args) => desk.apply(args).await,
        RulesCommand::Diff(args) => desk.diff(args).await,
        RulesCommand::List => desk.list().await,
        RulesCommand::Show(args) => desk.show(args).await,
        RulesCommand::Remove(args) => desk.remove(args).await,
    }
}

/// Where these commands ask and print.
struct Desk<'a> {
    global: &'a Global,
    output: &'a Output,
}

impl Desk<'_> {
    async fn apply(&self, args: &ApplyArgs) -> Result<()> {
        let request = ApplyRulesRequest {
            author: author(args.by.author.as_ref()),
            reason: args.by.reason.clone(),
            ..request(&args.file)?
        };
        let api = Api::connect(self.global).await?;
        let changed = api.rules().apply_rules(request).await?.into_owned();
        self.settle(&api, &changed, &args.wait).await
    }

    async fn diff(&self, args: &FileArgs) -> Result<()> {
        let request = ApplyRulesRequest {
            dry_run: true,
            ..request(args)?
        };
        let api = Api::connect(self.global).await?;
        let changed = api.rules().apply_rules(request).await?.into_owned();
        if self.output.json {
            return self.output.json(&json!({
                "epoch": changed.epoch,
                "changes": differences::document(&changed.changes)?,
            }));
        }
        differences::print(&changed.changes, self.output)
    }

    async fn remove(&self, args: &RemoveArgs) -> Result<()> {
        let api = Api::connect(self.global).await?;
        let request = RemoveRulesRequest {
            names: args.names.clone(),
            author: author(args.by.author.as_ref()),
            reason: args.by.reason.clone(),
            ..Default::default()
        };
        let changed = api.rules().remove_rules(request).await?.into_owned();
        self.settle(&api, &changed, &args.wait).await
    }

    async fn list(&self) -> Result<()> {
        let api = Api::connect(self.global).await?;
        let kept = kept(&api).await?;
        list::print(&kept, &served::by_all(&api).await?, self.output)
    }

    async fn show(&self, args: &ShowArgs) -> Result<()> {
        let api = Api::connect(self.global).await?;
        let kept = kept(&api).await?;
        let found = kept.rules.iter().find(|rule| rule.name == args.name);
        let found = found.ok_or_else(|| {
            let message = format!("there is no rule `{}`", args.name.escape_debug());
            Error::new(Code::NotFound, "no_such_rule", message)
                .mend("see which there are: `hydrant rules list`")
        })?;
        list::show(found, self.output)
    }

    /// Tells what has changed, and waits where that is wanted.
    async fn settle(
        &self,
        api: &Api,
        changed: &ChangeRulesResponse,
        wait: &WaitArgs,
    ) -> Result<()> {
        let epoch = changed.epoch;
        if !self.output.json {
            self.told(changed)?;
        }
        let served = match wait.wait {
            true => Some(served::wait(api, epoch, wait.timeout).await?),
            false => None,
        };
        match (self.output.json, served) {
            (true, served) => self.output.json(&json!({
                "epoch": epoch,
                "changes": differences::document(&changed.changes)?,
                "served": served,
            })),
            (false, None) => Ok(()),
            (false, Some(served)) => {
                let done = self.output.paint(Style::Good, "goes by it");
                let each = match served.len() {
                    1 => "the server".to_owned(),
                    many => format!("each of {many} servers"),
                };
                self.output.text(&format!("{each} {done}\n"))
            }
        }
    }

    fn told(&self, changed: &ChangeRulesResponse) -> Result<()> {
        if changed.changes.is_empty() {
            let text = format!("nothing to change; epoch {} holds\n", changed.epoch);
            return self.output.text(&text);
        }
        for change in &changed.changes {
            let moved = differences::moved(change);
            self.output
                .text(&format!("{} is {}{moved}\n", change.name, change.what))?;
        }
        self.output.text(&format!("epoch {}\n", changed.epoch))
    }
}

async fn kept(api: &Api) -> Result<ListRulesResponse> {
    let kept = api.rules().list_rules(ListRulesRequest::default()).await?;
    Ok(kept.into_owned())
}

/// The file is checked here first: its mistakes need no node to be told.
fn request(args: &FileArgs) -> Result<ApplyRulesRequest> {
    let toml = read(&args.file)?;
    rules::parse(&toml).map_err(|error| {
        let mut error = Error::from(error);
        error.message = format!("{}: {}", args.file.display(), error.message);
        error
    })?;
    Ok(ApplyRulesRequest {
        toml,
        prune: args.prune,
        ..Default::default()
    })
}

fn read(file: &Path) -> Result<String> {
    let read = match file.as_os_str() == "-" {
        false => std::fs::read_to_string(file),
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
    };
    read.map_err(|error| {
        let message = format!("cannot read {}: {error}", file.display());
        wrong("unreadable", message, "name a file of rules in TOML")
    })
}
