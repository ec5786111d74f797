use std::path::Path;

use crate::assembly::Settings;
use crate::cli::NodeArgs;
use crate::commands::serve::Serving;
use crate::config::File;
use crate::data::RunningNode;
use crate::failure::{Failure, Result, wrong};
use crate::output::Output;

/// Runs a node as a configuration file describes it, until it is asked to end.
pub(crate) async fn run(args: &NodeArgs, output: &Output) -> Result<()> {
    let file = File::load(&args.config)?;
    file.telemetry.start();
    let settings = settings(&args.config, file)?;
    let serving = Serving::start(settings, false).await?;
    let node = serving.addresses();
    if output.json {
        output.json(&node)?;
    } else {
        output.text(&line(&node))?;
    }
    serving.until_asked_to_end().await
}

fn line(node: &RunningNode) -> String {
    let RunningNode {
        public,
        local,
        server,
        zone,
        ..
    } = node;
    let tls = node.tls.map(|tls| format!(", tls {tls}"));
    let tls = tls.unwrap_or_default();
    match node.peer {
        Some(peer) => format!(
            "server {server}, zone {zone}: public {public}{tls}, local {local}, peer {peer}\n"
        ),
        None => format!("public {public}{tls}, local {local}\n"),
    }
}

fn settings(path: &Path, file: File) -> Result<Settings> {
    let node = &file.node;
    let missing = |name, example| missing(path, name, example);
    let data = node.data.clone();
    let data = data.ok_or_else(|| missing("data", "/var/lib/hydrant"))?;
    let public = node.public.ok_or_else(|| missing("public", "0.0.0.0:80"))?;
    let local = node
        .local
        .ok_or_else(|| missing("local", "127.0.0.1:8081"))?;
    Ok(Settings::new(file, data, public.0, local.0))
}

fn missing(path: &Path, name: &str, example: &str) -> Failure {
    wrong(
        "invalid_configuration",
        format!("{}: [node] does not say `{name}`", path.display()),
        format!("add {name} = \"{example}\", as fits"),
    )
}
