//! The command line: every option is defined here once.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::commands::audit::AuditArgs;
use crate::commands::mobile::MobileArgs;
use crate::commands::receipt::ReceiptArgs;
use crate::commands::rules::RulesArgs;
use crate::commands::run::RunArgs;
use crate::commands::submissions::SubmissionsArgs;
use crate::config::Listen;

#[derive(Debug, Parser)]
#[command(
    name = "hydrant",
    version,
    about = "Many small services behind one host",
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 failed; 2 what you gave must be mended; 3 not found; 4 refused;
5 may pass by itself, as a node that is not running."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Print JSON for programs, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The node's local listener [default: that of the node which runs on the data folder]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HYDRANT_URL",
        hide_env_values = true
    )]
    pub(crate) url: Option<String>,
    /// The data folder of the node [default: $HYDRANT_DATA, else $XDG_DATA_HOME/hydrant, else
    /// ~/.local/share/hydrant]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node with everything on: the first command to try
    Up(UpArgs),
    /// Start a node as a configuration file describes it
    Node(NodeArgs),
    /// Restart the running node: a new version or configuration, no connection refused
    Restart,
    /// Run any web server as a service, unchanged
    Run(RunArgs),
    /// Call an endpoint with JSON and print the JSON answer
    Call(CallArgs),
    /// List instances: what runs, where, in which state
    List(ListArgs),
    /// Show what the router counted: rate, latency, errors
    Stats(StatsArgs),
    /// Show how a request would be routed, without sending it
    Explain(ExplainArgs),
    /// Shape traffic by rules: weights of versions, headers, redirects, time-outs
    Rules(RulesArgs),
    /// Show whether the node, its engines and its services are well
    Health(HealthArgs),
    /// Print what services print
    Logs(LogsArgs),
    /// Show live what services, versions and instances do
    Top(TopArgs),
    /// Print requests as they pass
    Tap(TapArgs),
    /// Change how many processes a supervised service has
    Scale(ScaleArgs),
    /// Make a token for a service that you start by hand
    Token(TokenArgs),
    /// Read and write shared state
    State(StateArgs),
    /// Flags, configuration, content and experiments of mobile apps
    Mobile(Box<MobileArgs>),
    /// How submissions stand on their way, and what is parked
    Submissions(SubmissionsArgs),
    /// What happened to submissions: events, the report of a day, whether the record is whole
    Audit(AuditArgs),
    /// Check the receipt of a submission, offline
    Receipt(ReceiptArgs),
    /// Make the certificates and keys that a fleet of several servers needs
    Ca(CaArgs),
    /// Carry what a node keeps to the engines of a fleet
    Data(DataArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// The services that come with the binary; started by `up`
    #[command(hide = true)]
    Builtin(BuiltinArgs),
}

/// Where a node listens; what is given here wins over the configuration file.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A configuration file: its settings, and its services beside the built-in ones
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Where the outside reaches the tier api [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) public: Option<Listen>,
    /// Where the services of this server, and you, reach the node [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub(crate) local: Option<Listen>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The configuration file; says the data folder and both listeners
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant call hydrant.v1.Node/Health
  hydrant call /service/greeter/greet.v1.Greet/Hello '{\"name\": \"Ann\"}'")]
pub(crate) struct CallArgs {
    /// /TIER/SERVICE/PACKAGE.SERVICE/METHOD, or PACKAGE.SERVICE/METHOD where one service has it
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: String,
    /// The request; `-` reads it from standard input
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) request: String,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: hydrant_runtime::Duration,
}

/// Which of the fleet's servers are asked.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServerArg {
    /// Of this server alone [default: of every server of the fleet]
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<hydrant_contracts::ServerName>,
}

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Of services or instances, as `mobile`, `api/*`, `mobile-7f*` [default: all]
    #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
    pub(crate) pattern: String,
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// An instance or the beginning of its id, or a pattern as `list` takes it [default: all]
    #[arg(value_name = "INSTANCE", default_value = "", hide_default_value = true)]
    pub(crate) pattern: String,
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant explain GET /api/mobile/v1/init
  hydrant explain --public POST /service/mobile/v1/sources")]
pub(crate) struct ExplainArgs {
    /// The method, as GET
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// The path, with its query if you like
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// A header of the request; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'")]
    pub(crate) headers: Vec<String>,
    /// As if it came in on the public listener
    #[arg(long)]
    pub(crate) public: bool,
    /// As the router of this server has it [default: of the node that is asked]
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<hydrant_contracts::ServerName>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Of services or instances, as `mobile`, `api/*` [default: all]
    #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
    pub(crate) pattern: String,
    /// Go on with what is printed from now
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// At most so many lines of the past
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) tail: u32,
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Of services or instances, as `mobile`, `api/*` [default: all]
    #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
    pub(crate) pattern: String,
    /// How often it is shown anew
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(crate) every: hydrant_runtime::Duration,
    /// End after so many times
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) times: Option<u64>,
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant tap shop --failed
  hydrant tap 'api/*' --slower 200ms --path /api/shop/v1/orders")]
pub(crate) struct TapArgs {
    /// Of services, as `mobile`, `api/*` [default: all, and what is no service's]
    #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
    pub(crate) pattern: String,
    /// Only those whose path begins so
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) path: String,
    /// Only those with a status of 400 or above, or without an answer
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only those that took at least so long
    #[arg(long, value_name = "TIME")]
    pub(crate) slower: Option<hydrant_runtime::Duration>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) number: Option<u64>,
    #[command(flatten)]
    pub(crate) server: ServerArg,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// As `api/mobile`, or `mobile` where one tier has it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// How many processes it shall have
    #[arg(value_name = "N")]
    pub(crate) instances: u32,
    /// On this server [default: the one whose node is asked]
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<hydrant_contracts::ServerName>,
    /// How long to wait until all are ready
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: hydrant_runtime::Duration,
    /// Do not wait
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The token proves to the node that a process is this service: it may register, and it calls with the
rights of its tier. Give it in the variable HYDRANT_TOKEN. It does not expire, and whoever can read
it is the service: it keeps services apart by mistake, not against another process of the same user,
which can read the environment and the key in the data folder.")]
pub(crate) struct TokenArgs {
    /// As `service/mobile`
    #[arg(value_name = "TIER/SERVICE")]
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Whose state, as `service/mobile`
    #[arg(long, global = true, value_name = "TIER/SERVICE")]
    pub(crate) namespace: Option<String>,
    #[command(subcommand)]
    pub(crate) command: StateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Print the value of a key
    Get {
        /// The key, without its namespace
        key: String,
    },
    /// Write the value of a key
    Put {
        /// The key, without its namespace
        key: String,
        /// The value; `-` reads it from standard input
        value: String,
        /// How long it lives [default: until it is deleted]
        #[arg(long, value_name = "TIME")]
        ttl: Option<hydrant_runtime::Duration>,
        /// Only if the key is at this revision; 0 if there must be no such key
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// List keys
    List {
        /// Only keys that begin so
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Print keys, and every change from now
    Watch {
        /// Only keys that begin so
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Delete a key
    Delete {
        /// The key, without its namespace
        key: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hydrant ca init                        an authority in the folder fleet
  hydrant ca issue one                   credentials of the server `one`, in fleet/one
  scp -r fleet/one one:/etc/hydrant/     keep fleet itself away from servers")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    pub(crate) command: CaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make an authority and the key of the fleet's tokens
    Init {
        /// Its folder
        #[arg(value_name = "DIR", default_value = FLEET, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// How many days it lasts
        #[arg(long, value_name = "N", default_value_t = 3650, value_parser = days())]
        days: u32,
        /// Begin with the tokens of a node that is there: the file `key` of its data folder
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        token_key: Option<PathBuf>,
    },
    /// Make the credentials folder of a server
    Issue {
        /// The name of the server, as [node] `server` says it
        #[arg(value_name = "SERVER")]
        server: String,
        /// The folder of the authority
        #[arg(long, value_name = "DIR", default_value = FLEET, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Where to put it [default: DIR/SERVER]
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        out: Option<PathBuf>,
        /// An IP address that the certificate names too; may be given more than once
        #[arg(long = "address", value_name = "IP")]
        addresses: Vec<std::net::IpAddr>,
        /// How many days it lasts
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = days())]
        days: u32,
        /// Replace credentials that are there
        #[arg(long)]
        overwrite: bool,
    },
    /// Make a new authority, which takes over from the one that is there
    Rotate {
        /// The folder of the authority
        #[arg(value_name = "DIR", default_value = FLEET, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// How many days it lasts
        #[arg(long, value_name = "N", default_value_t = 3650, value_parser = days())]
        days: u32,
    },
    /// End a rotation: the old authority is believed no more
    Retire {
        /// The folder of the authority
        #[arg(value_name = "DIR", default_value = FLEET, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Show authorities and certificates, and when they end
    Show {
        /// The folder of the authority
        #[arg(value_name = "DIR", default_value = FLEET, value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// The folder of an authority when none is named.
const FLEET: &str = "fleet";

/// For how many days a certificate may be good.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Copy what a server that was alone has kept to ZooKeeper, Redis and MariaDB
    #[command(after_help = "\
Stop the node first: its data folder is not in use during a copy. What is copied is read back and
compared. A second copy changes nothing, and what the target has otherwise is never replaced unless
you say so.

Examples:
  hydrant data copy --from embedded:/var/lib/hydrant --to one.toml --plan
  hydrant data copy --from embedded:/var/lib/hydrant --to one.toml")]
    Copy(DataCopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DataCopyArgs {
    /// embedded:DIR with the data folder of a node, or the configuration file of one
    #[arg(long, value_name = "FROM")]
    pub(crate) from: crate::commands::data_copy::From,
    /// The configuration file that names ZooKeeper, Redis and MariaDB
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: PathBuf,
    /// Show what would be copied, and write nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Replace what the target has otherwise
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct BuiltinArgs {
    #[arg(value_name = "NAME")]
    pub(crate) service: Builtin,
}

/// The services that come with the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Builtin {
    ApiMobile,
    ServiceMobile,
    DemoUpstream,
    ApiSubmissions,
    ServiceSubmissions,
    Delivery,
    DemoConsumer,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_and_behind_the_command() {
        for line in [
            ["hydrant", "--json", "list", "api/*"],
            ["hydrant", "list", "api/*", "--json"],
        ] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
    }
}
