use std::collections::BTreeMap;

use hydrant_contracts::{Code, Error, Tier, proto};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::cli::{Global, StatsArgs};
use crate::failure::Result;
use crate::output::{Output, Table, micros, plain, printable, size};

/// Shows what the router counted.
pub(crate) async fn run(global: &Global, args: &StatsArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let request = proto::StatsRequest {
        pattern: args.pattern.clone(),
        ..Default::default()
    };
    let mut instances = api.node().stats(request).await?.into_owned().instances;
    instances.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    if instances.is_empty() && !args.pattern.is_empty() {
        return Err(no_such_instance(&args.pattern).into());
    }
    match instances.as_slice() {
        all if output.json => {
            let all: Vec<Shown> = all.iter().map(Shown::from).collect();
            output.json(&json!({ "instances": all }))
        }
        [one] => page(one, output),
        all => output.table(&table(all)),
    }
}

fn no_such_instance(pattern: &str) -> Error {
    let message = format!("no instance matches `{pattern}`");
    Error::new(Code::NotFound, "no_such_instance", message)
        .mend("see which there are: `hydrant list`")
}

fn table(instances: &[proto::InstanceStats]) -> Table {
    let columns = &[
        "INSTANCE",
        "SERVICE",
        "TIER",
        "REQUESTS",
        "PER S",
        "IN FLIGHT",
        "ERRORS",
        "P50",
        "P90",
        "P99",
        "RETRIES",
        "EJECTIONS",
    ];
    let mut table = Table::new(columns).numbers_from(3);
    for stats in instances {
        table.row([
            plain(&stats.instance),
            plain(&stats.service),
            plain(tier(stats)),
            plain(stats.requests),
            plain(format!("{:.1}", stats.requests_per_second)),
            plain(stats.in_flight),
            plain(stats.errors.values().sum::<u64>()),
            plain(micros(stats.p50_us)),
            plain(micros(stats.p90_us)),
            plain(micros(stats.p99_us)),
            plain(stats.retries),
            plain(stats.ejections),
        ]);
    }
    table
}

fn tier(stats: &proto::InstanceStats) -> &'static str {
    let tier = stats
        .tier
        .as_known()
        .and_then(|tier| Tier::try_from(tier).ok());
    tier.map_or("", |tier| tier.as_str())
}

fn page(stats: &proto::InstanceStats, output: &Output) -> Result<()> {
    let lines = [
        format!("{} of {}/{}", stats.instance, tier(stats), stats.service),
        format!(
            "  requests   {}, {:.1} a second, {} in flight",
            stats.requests, stats.requests_per_second, stats.in_flight
        ),
        format!(
            "  latency    p50 {}, p90 {}, p99 {}",
            micros(stats.p50_us),
            micros(stats.p90_us),
            micros(stats.p99_us)
        ),
        format!(
            "  bytes      {} in, {} out",
            size(stats.bytes_in),
            size(stats.bytes_out)
        ),
        format!("  errors     {}", errors(stats)),
        format!("  retries    {}", stats.retries),
        format!("  ejections  {}{}", stats.ejections, ejected(stats)),
    ];
    for line in lines {
        output.text(&format!("{}\n", printable(&line)))?;
    }
    if stats.endpoints.is_empty() {
        return Ok(());
    }
    output.text("\n")?;
    output.table(&endpoints(&stats.endpoints))
}

fn errors(stats: &proto::InstanceStats) -> String {
    let kinds: BTreeMap<_, _> = stats
        .errors
        .iter()
        .filter(|(_, number)| **number > 0)
        .collect();
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, number)| format!("{kind} {number}"))
        .collect();
    if kinds.is_empty() {
        "none".into()
    } else {
        kinds.join(", ")
    }
}

fn ejected(stats: &proto::InstanceStats) -> &'static str {
    if stats.ejected { ", out now" } else { "" }
}

fn endpoints(endpoints: &[proto::EndpointStats]) -> Table {
    let columns = &["ENDPOINT", "REQUESTS", "ERRORS", "P50", "P90", "P99"];
    let mut table = Table::new(columns).numbers_from(1);
    for endpoint in endpoints {
        table.row([
            plain(&endpoint.endpoint),
            plain(endpoint.requests),
            plain(endpoint.errors),
            plain(micros(endpoint.p50_us)),
            plain(micros(endpoint.p90_us)),
            plain(micros(endpoint.p99_us)),
        ]);
    }
    table
}

/// Counts as `--json` shows them.
#[derive(Serialize)]
struct Shown<'a> {
    instance: &'a str,
    service: &'a str,
    tier: &'static str,
    requests: u64,
    requests_per_second: f64,
    in_flight: u32,
    errors: BTreeMap<&'a str, u64>,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    retries: u64,
    ejections: u64,
    ejected: bool,
    endpoints: Vec<ShownEndpoint<'a>>,
}

#[derive(Serialize)]
struct ShownEndpoint<'a> {
    endpoint: &'a str,
    requests: u64,
    errors: u64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
}

impl<'a> From<&'a proto::InstanceStats> for Shown<'a> {
    fn from(stats: &'a proto::InstanceStats) -> Self {
        let errors = stats
            .errors
            .iter()
            .map(|(kind, number)| (kind.as_str(), *number));
        Self {
            instance: &stats.instance,
            service: &stats.service,
            tier: tier(stats),
            requests: stats.requests,
            requests_per_second: stats.requests_per_second,
            in_flight: stats.in_flight,
            errors: errors.collect(),
            p50_us: stats.p50_us,
            p90_us: stats.p90_us,
            p99_us: stats.p99_us,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            retries: stats.retries,
            ejections: stats.ejections,
            ejected: stats.ejected,
            endpoints: stats.endpoints.iter().map(ShownEndpoint::from).collect(),
        }
    }
}

impl<'a> From<&'a proto::EndpointStats> for ShownEndpoint<'a> {
    fn from(stats: &'a proto::EndpointStats) -> Self {
        Self {
            endpoint: &stats.endpoint,
            requests: stats.requests,
            errors: stats.errors,
            p50_us: stats.p50_us,
            p90_us: stats.p90_us,
            p99_us: stats.p99_us,
        }
    }
}
