use std::path::Path;

use hydrant_runtime::telemetry;

use crate::assembly::{self, Settings, host_name};
use crate::cli::NodeArgs;
use crate::commands::serve::Serving;
use crate::config::File;
use crate::failure::{Failure, Result, wrong};
use crate::output::Output;

/// Runs a node as a configuration file describes it, until it is asked to end.
pub(crate) async fn run(args: &NodeArgs, output: &Output) -> Result<()> {
    telemetry::start();
    let settings = settings(&args.config, &File::load(&args.config)?)?;
    let serving = Serving::start(assembly::start(settings, false)).await?;
    let node = serving.addresses();
    if output.json {
        output.json(&node)?;
    } else {
        output.text(&format!("public {}, local {}\n", node.public, node.local))?;
    }
    serving.until_asked_to_end().await
}

fn settings(path: &Path, file: &File) -> Result<Settings> {
    let node = &file.node;
    let missing = |name, example| missing(path, name, example);
    Ok(Settings {
        server: node.server.clone().unwrap_or_else(host_name),
        data: node
            .data
            .clone()
            .ok_or_else(|| missing("data", "/var/lib/hydrant"))?,
        public: node
            .public
            .ok_or_else(|| missing("public", "0.0.0.0:80"))?
            .0,
        local: node
            .local
            .ok_or_else(|| missing("local", "127.0.0.1:8081"))?
            .0,
        workers: node.workers(),
        grace: node.grace(),
        services: file.specs(),
    })
}

fn missing(path: &Path, name: &str, example: &str) -> Failure {
    wrong(
        "invalid_configuration",
        format!("{}: [node] does not say `{name}`", path.display()),
        format!("add {name} = \"{example}\", as fits"),
    )
}
