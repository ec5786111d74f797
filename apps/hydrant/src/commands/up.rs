use std::path::Path;
use std::time::Duration;

use hydrant_contracts::{InstanceState, proto};
use serde_json::json;
use tokio::time::Instant;

use crate::api::Api;
use crate::assembly::Settings;
use crate::cli::{Global, UpArgs};
use crate::commands::serve::Serving;
use crate::commands::{list, supervised};
use crate::config::{File, Listen};
use crate::data::{self, RunningNode};
use crate::failure::Result;
use crate::output::{Output, Style};

const PUBLIC: &str = "127.0.0.1:8080";
const LOCAL: &str = "127.0.0.1:8081";

/// How long the services may take before the node is announced without them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the node is asked whether its services are ready.
const POLL: Duration = Duration::from_millis(25);

/// Runs a node with the built-in services, until it is asked to end.
pub(crate) async fn run(global: &Global, args: &UpArgs, output: &Output) -> Result<()> {
    let begun = Instant::now();
    let file = args
        .config
        .as_deref()
        .map(File::load)
        .transpose()?
        .unwrap_or_default();
    file.telemetry.start();
    let usual_data = global.data.is_none() && file.node.data.is_none();
    let settings = settings(global, args, file)?;
    let serving = Serving::start(settings, true).await?;
    let missing = ready(&serving).await?;
    if !serving.is_asked_to_end() {
        let shown = Shown {
            node: serving.addresses(),
            data: serving.data(),
            usual_data,
            took: begun.elapsed(),
            missing,
        };
        shown.print(output)?;
    }
    serving.until_asked_to_end().await
}

fn settings(global: &Global, args: &UpArgs, file: File) -> Result<Settings> {
    let address = |given: Option<Listen>, in_file: Option<Listen>, usual: &str| {
        let usual = || usual.parse().expect("our own default is an address");
        given.or(in_file).unwrap_or_else(usual).0
    };
    let data = data::folder(global.data.as_deref().or(file.node.data.as_deref()))?;
    let public = address(args.public, file.node.public, PUBLIC);
    let local = address(args.local, file.node.local, LOCAL);
    Ok(Settings::new(file, data, public, local))
}

/// Waits until every service has as many ready instances as it should; tells which have not when
/// it gives up.
async fn ready(serving: &Serving) -> Result<Vec<String>> {
    let api = Api::own(serving.addresses().local, serving.data())?;
    let end = Instant::now() + PATIENCE;
    loop {
        let health = match api.node().health(proto::HealthRequest::default()).await {
            Ok(health) => health.into_owned(),
            // The process in whose place this one came may still accept for a moment.
            Err(_) if Instant::now() < end && !serving.is_asked_to_end() => {
                tokio::time::sleep(POLL).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let missing = missing(&health)?;
        if missing.is_empty() || serving.is_asked_to_end() || Instant::now() >= end {
            let troubles = supervised::troubles(&health.services, &Default::default());
            return Ok(missing.into_iter().chain(troubles).collect());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn missing(health: &proto::HealthResponse) -> Result<Vec<String>> {
    let instances = list::from_wire(&health.instances)?;
    let ready = |service: &proto::SupervisedService| {
        let mine = supervised::instances(service, &instances);
        mine.filter(|one| one.state == InstanceState::Ready).count() as u32
    };
    let services = health
        .services
        .iter()
        .filter(|service| ready(service) < service.wanted);
    Ok(services
        .filter_map(|service| {
            let id = supervised::id(service)?;
            Some(format!(
                "{id}: {} of {} ready",
                ready(service),
                service.wanted
            ))
        })
        .collect())
}

/// What a person, or a program, is told when the node is ready.
struct Shown<'a> {
    node: RunningNode,
    data: &'a Path,
    usual_data: bool,
    took: Duration,
    missing: Vec<String>,
}

impl Shown<'_> {
    fn print(&self, output: &Output) -> Result<()> {
        if output.json {
            return output.json(&json!({
                "pid": self.node.pid,
                "public": format!("http://{}", self.node.public),
                "local": format!("http://{}", self.node.local),
                "server": self.node.server,
                "zone": self.node.zone,
                "peer": self.node.peer,
                "data": self.data,
                "ready": self.missing.is_empty(),
                "ready_after_ms": self.took.as_millis() as u64,
            }));
        }
        output.text(&self.page(output))
    }

    fn page(&self, output: &Output) -> String {
        let RunningNode { public, local, .. } = &self.node;
        let (data, seconds) = (self.data.display(), self.took.as_secs_f64());
        let ready = match self.missing.as_slice() {
            [] => output.paint(
                Style::Good,
                &format!("Hydrant is ready, after {seconds:.1} s."),
            ),
            missing => {
                let text = format!(
                    "Hydrant runs, but not all is ready:\n  {}",
                    missing.join("\n  ")
                );
                output.paint(Style::Bad, &text)
            }
        };
        let (hydrant, fleet) = (self.program(), self.fleet());
        let tls = self
            .node
            .tls
            .map(|tls| format!("tls     https://{tls}   the same\n  "));
        let tls = tls.unwrap_or_default();
        format!(
            "{ready}\n\n  \
             public  http://{public}   the outside: tier api only\n  \
             {tls}\
             local   http://{local}   services of this server, and you\n\
             {fleet}  \
             health  http://{local}/health\n  \
             data    {data}\n\n\
             Try, in another terminal:\n\n  \
             curl 'http://{public}/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US&slots=home'\n  \
             {hydrant} list\n  \
             {hydrant} explain GET /api/mobile/v1/init\n\n\
             and in a browser, a form that is sent once and never lost:\n\n  \
             http://{public}/api/submissions/\n\n\
             Ctrl-C stops it, and all that it started.\n"
        )
    }

    /// What there is to say of other servers.
    fn fleet(&self) -> String {
        let RunningNode { server, zone, .. } = &self.node;
        match self.node.peer {
            Some(peer) => format!(
                "  peer    {peer}   nodes of other servers; this one is {server}, in zone {zone}\n"
            ),
            None => String::new(),
        }
    }

    /// How the person may call this program again, for this node.
    fn program(&self) -> String {
        let called = std::env::args().next().unwrap_or_default();
        let on_path = |folder: std::path::PathBuf| folder.join("hydrant").is_file();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let name = if called.contains('/') && !std::env::split_paths(&path).any(on_path) {
            called.as_str()
        } else {
            "hydrant"
        };
        if self.usual_data {
            name.to_owned()
        } else {
            format!("{name} --data {}", self.data.display())
        }
    }
}
