use hydrant_contracts::{Instance, InstanceState, RepeatablePath, proto};
use hydrant_runtime::Clock;
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::cli::{Global, ListArgs};
use crate::commands::supervised;
use crate::failure::Result;
use crate::output::{Output, Style, Table, age, plain, time};
use crate::servers::{Servers, Unheard, print_notes};

/// Lists instances.
pub(crate) async fn run(global: &Global, args: &ListArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let servers = Servers::of(&api, &args.server).await?;
    // Every node knows the instances of all.
    let mut instances = discover(&api, &args.pattern).await?;
    if let Some(only) = &args.server.server {
        instances.retain(|instance| instance.server == only.as_str());
    }
    if output.json {
        let instances: Vec<Shown> = instances.iter().map(Shown::from).collect();
        return output.json(&json!({ "instances": instances }));
    }
    output.table(&table(&instances, Clock::system().unix_ms()))?;
    let pattern = args.pattern.parse().unwrap_or_default();
    let answers = servers.ask(health).await;
    let notes = answers.into_iter().flat_map(|answer| match answer.outcome {
        Ok(health) => supervised::troubles(&health.services, &pattern)
            .into_iter()
            .map(|trouble| match servers.is_one() {
                true => trouble,
                false => format!("on {}: {trouble}", answer.server),
            })
            .collect(),
        Err(error) => vec![
            Unheard {
                server: answer.server,
                error,
            }
            .note(),
        ],
    });
    print_notes(details(&instances).chain(notes), output)
}

async fn health(api: &Api) -> Result<proto::HealthResponse> {
    let health = api.node().health(proto::HealthRequest::default()).await?;
    Ok(health.into_owned())
}

/// The instances that the pattern means, by service and then by id.
pub(crate) async fn discover(api: &Api, pattern: &str) -> Result<Vec<Instance>> {
    let request = proto::DiscoverRequest {
        pattern: pattern.into(),
        ..Default::default()
    };
    let found = api.registry().discover(request).await?.into_owned();
    from_wire(&found.instances)
}

/// Reads instances, and sorts them as they are shown.
pub(crate) fn from_wire(wire: &[proto::Instance]) -> Result<Vec<Instance>> {
    let instances: std::result::Result<Vec<_>, _> = wire.iter().map(Instance::try_from).collect();
    let mut instances = instances?;
    instances.sort_by(|a, b| (&a.service, &a.id).cmp(&(&b.service, &b.id)));
    Ok(instances)
}

/// The instances as a table; `now` in milliseconds since 1970.
pub(crate) fn table(instances: &[Instance], now: i64) -> Table {
    let mut table = Table::new(&[
        "INSTANCE", "SERVICE", "VERSION", "TIER", "SERVER", "ADDRESS", "STATE", "SINCE",
    ]);
    for instance in instances {
        table.row([
            plain(&instance.id),
            plain(&instance.service.name),
            plain(&instance.version),
            plain(instance.service.tier),
            plain(&instance.server),
            plain(instance.address),
            (instance.state.as_str().into(), style(instance.state)),
            plain(age(now - instance.since_unix_ms)),
        ]);
    }
    table
}

fn style(state: InstanceState) -> Style {
    match state {
        InstanceState::Ready => Style::Good,
        InstanceState::Starting | InstanceState::Draining => Style::Waiting,
        InstanceState::Failing => Style::Bad,
    }
}

/// What people should know of the instances that are not ready.
fn details(instances: &[Instance]) -> impl Iterator<Item = String> {
    instances
        .iter()
        .filter(|instance| instance.state != InstanceState::Ready && !instance.detail.is_empty())
        .map(|instance| {
            let state = instance.state.as_str();
            format!("{} is {state}: {}", instance.id, instance.detail)
        })
}

/// An instance as `--json` shows it.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    instance: &'a str,
    service: &'a str,
    tier: &'a str,
    version: String,
    server: &'a str,
    address: String,
    state: &'a str,
    detail: &'a str,
    since: String,
    pid: Option<u32>,
    http2: bool,
    methods: Vec<&'a str>,
    prefixes: Vec<&'a str>,
    repeatable_paths: Vec<&'a str>,
}

impl<'a> From<&'a Instance> for Shown<'a> {
    fn from(instance: &'a Instance) -> Self {
        let methods = instance.methods.iter().map(|method| method.path.as_str());
        let prefixes = instance
            .prefixes
            .iter()
            .map(|prefix| prefix.prefix.as_str());
        Self {
            instance: instance.id.as_str(),
            service: instance.service.name.as_str(),
            tier: instance.service.tier.as_str(),
            version: instance.version.to_string(),
            server: &instance.server,
            address: instance.address.to_string(),
            state: instance.state.as_str(),
            detail: &instance.detail,
            since: time(instance.since_unix_ms),
            pid: Some(instance.pid).filter(|pid| *pid != 0),
            http2: instance.http2,
            methods: methods.collect(),
            prefixes: prefixes.collect(),
            repeatable_paths: instance
                .repeatable_paths
                .iter()
                .map(RepeatablePath::as_str)
                .collect(),
        }
    }
}
