use hydrant_contracts::proto;
use serde_json::json;

use crate::api::Api;
use crate::cli::{Global, LogsArgs};
use crate::failure::Result;
use crate::output::{Output, Style, printable, time};

/// Prints what services print.
pub(crate) async fn run(global: &Global, args: &LogsArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let request = proto::LogsRequest {
        pattern: args.pattern.clone(),
        follow: args.follow,
        tail: args.tail,
        ..Default::default()
    };
    let mut lines = api.node().logs(request).await?;
    while let Some(line) = lines.message::<proto::LogLine>().await? {
        print(&line.to_owned_message(), output)?;
    }
    Ok(())
}

fn print(line: &proto::LogLine, output: &Output) -> Result<()> {
    if output.json {
        return output.json(&json!({
            "time": time(line.time_unix_ms),
            "service": line.service,
            "instance": line.instance,
            "stream": line.stream,
            "level": Some(&line.level).filter(|level| !level.is_empty()),
            "message": line.message,
        }));
    }
    let style = match line.level.as_str() {
        "error" => Style::Bad,
        "warn" => Style::Waiting,
        _ => Style::Plain,
    };
    let level = if line.level.is_empty() {
        "-"
    } else {
        &line.level
    };
    let level = output.paint(style, &format!("{level:<5}"));
    let origin = output.paint(Style::Faint, &printable(&line.instance));
    let message = printable(&line.message);
    output.text(&format!(
        "{} {origin} {level} {message}\n",
        time(line.time_unix_ms)
    ))
}
