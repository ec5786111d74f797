use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use hydrant_contracts::{Code, Error, InstanceState, ServiceId, proto};
use serde_json::json;
use tokio::time::Instant;

use crate::api::Api;
use crate::cli::{Global, ScaleArgs};
use crate::commands::{list, supervised};
use crate::failure::Result;
use crate::output::{Output, count};

/// How often the node is asked how far it is.
const POLL: Duration = Duration::from_millis(200);

/// Changes the number of processes, and waits until they are ready.
pub(crate) async fn run(global: &Global, args: &ScaleArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let api = match &args.server {
        Some(server) => api.of_server(server.as_str()),
        None => api,
    };
    let request = proto::ScaleRequest {
        service: args.service.clone(),
        instances: args.instances,
        ..Default::default()
    };
    let scaled = api.node().scale(request).await?.into_owned();
    if !args.no_wait {
        wait(&api, args).await?;
    }
    if output.json {
        return output.json(&json!({
            "service": args.service,
            "before": scaled.before,
            "after": scaled.after,
        }));
    }
    let after = count(u64::from(scaled.after), "process", "processes");
    output.text(&format!(
        "{} has {after}, before {}\n",
        args.service, scaled.before
    ))
}

/// How far a service is on its way to the number that is wanted.
struct Progress {
    ready: usize,
    known: usize,
    troubles: Vec<String>,
}

async fn wait(api: &Api, args: &ScaleArgs) -> Result<()> {
    let end = Instant::now() + args.timeout.get();
    let wanted = args.instances as usize;
    let mut line = ProgressLine::new();
    loop {
        let progress = progress(api, &args.service).await?;
        line.show(&format!(
            "{}: {} of {wanted} ready",
            args.service, progress.ready
        ));
        if progress.ready == wanted && progress.known == wanted {
            line.end();
            return Ok(());
        }
        if Instant::now() >= end {
            line.end();
            return Err(held_up(args, &progress).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn progress(api: &Api, service: &str) -> Result<Progress> {
    let health = api
        .node()
        .health(proto::HealthRequest::default())
        .await?
        .into_owned();
    let named = |id: &ServiceId| id.to_string() == service || id.name.as_str() == service;
    let supervised = health
        .services
        .iter()
        .find(|one| supervised::id(one).is_some_and(|id| named(&id)));
    let instances = list::from_wire(&health.instances)?;
    let mine: Vec<_> = supervised
        .map(|service| supervised::instances(service, &instances).collect())
        .unwrap_or_default();
    let pattern = supervised
        .and_then(supervised::id)
        .map_or(String::new(), |id| id.to_string());
    Ok(Progress {
        ready: mine
            .iter()
            .filter(|one| one.state == InstanceState::Ready)
            .count(),
        known: mine.len(),
        troubles: supervised::troubles(&health.services, &pattern.parse().unwrap_or_default()),
    })
}

fn held_up(args: &ScaleArgs, progress: &Progress) -> Error {
    let message = format!(
        "after {} only {} of {} are ready, and {} are known{}",
        args.timeout,
        progress.ready,
        args.instances,
        progress.known,
        progress
            .troubles
            .first()
            .map_or(String::new(), |trouble| format!(": {trouble}")),
    );
    let error = Error::new(Code::DeadlineExceeded, "not_ready_in_time", message);
    if progress.troubles.is_empty() {
        error.mend(format!(
            "see `hydrant logs {}`; the node goes on trying",
            args.service
        ))
    } else {
        error
    }
}

/// A line on standard error that is written anew at a terminal, and else only when it changes.
struct ProgressLine {
    terminal: bool,
    last: String,
}

impl ProgressLine {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        self.last = text.into();
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
