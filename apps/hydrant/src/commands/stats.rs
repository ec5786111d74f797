use std::collections::BTreeMap;

use hydrant_contracts::{Code, Error, Tier, proto};
use serde::Serialize;
use serde_json::json;

use crate::api::Api;
use crate::cli::{Global, StatsArgs};
use crate::failure::Result;
use crate::output::{Output, Table, micros, plain, printable, size};
use crate::servers::{self, Servers, Unheard, print_notes};

/// The kind of errors of requests that did not reach the node of the instance's server.
const UNREACHED: &str = "peer";

/// Shows what the routers of the fleet counted.
pub(crate) async fn run(global: &Global, args: &StatsArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let servers = Servers::of(&api, &args.server).await?;
    let answers = servers.ask(|api| counted(api, &args.pattern)).await;
    let (counted, unheard) = servers::heard(answers)?;
    let instances = Summed::of(counted);
    if instances.is_empty() && !args.pattern.is_empty() {
        return Err(no_such_instance(&args.pattern).into());
    }
    if output.json {
        let all: Vec<Shown> = instances.iter().map(Shown::from).collect();
        let unheard = servers::shown(&unheard);
        return output.json(&json!({ "instances": all, "unanswered": unheard }));
    }
    match instances.as_slice() {
        [one] => page(one, output)?,
        all => output.table(&table(all))?,
    }
    print_notes(unheard.iter().map(Unheard::note), output)
}

pub(super) async fn counted(api: &Api, pattern: &str) -> Result<Vec<proto::InstanceStats>> {
    let request = proto::StatsRequest {
        pattern: pattern.into(),
        ..Default::default()
    };
    Ok(api.node().stats(request).await?.into_owned().instances)
}

/// An instance as all routers together saw it.
pub(super) struct Summed {
    pub(super) all: proto::InstanceStats,
    /// What each router counted that counted anything, by its server.
    by_server: Vec<(String, proto::InstanceStats)>,
}

impl Summed {
    /// By service and then by instance.
    pub(super) fn of(counted: Vec<(String, Vec<proto::InstanceStats>)>) -> Vec<Self> {
        let mut instances: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (server, counted) in counted {
            for stats in counted {
                let key = (stats.service.clone(), stats.instance.clone());
                let of_instance = instances.entry(key).or_default();
                of_instance.push((server.clone(), stats));
            }
        }
        instances.into_values().filter_map(Self::of_one).collect()
    }

    /// All that an instance gets goes through the router of its own server. So that one's counts
    /// are the sums, and others add only what never got there.
    fn of_one(mut by_server: Vec<(String, proto::InstanceStats)>) -> Option<Self> {
        let own = by_server
            .iter()
            .position(|(server, stats)| *server == stats.server);
        // Without an answer of its own server, the busiest of the others comes nearest.
        let busiest = (0..by_server.len()).max_by_key(|at| by_server[*at].1.requests);
        let at = own.or(busiest)?;
        let mut all = by_server[at].1.clone();
        for (_, other) in by_server
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at)
            .map(|(_, other)| other)
        {
            if let Some(unreached) = other.errors.get(UNREACHED) {
                *all.errors.entry(UNREACHED.into()).or_default() += unreached;
            }
            all.retries += other.retries;
            all.ejections += other.ejections;
            all.ejected |= other.ejected;
        }
        by_server.retain(|(_, stats)| stats.requests > 0);
        Some(Self { all, by_server })
    }
}

fn no_such_instance(pattern: &str) -> Error {
    let message = format!("no instance matches `{pattern}`");
    Error::new(Code::NotFound, "no_such_instance", message)
        .mend("see which there are: `hydrant list`")
}

fn table(instances: &[Summed]) -> Table {
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
    for Summed { all: stats, .. } in instances {
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

pub(super) fn tier(stats: &proto::InstanceStats) -> &'static str {
    let tier = stats
        .tier
        .as_known()
        .and_then(|tier| Tier::try_from(tier).ok());
    tier.map_or("", |tier| tier.as_str())
}

fn page(summed: &Summed, output: &Output) -> Result<()> {
    let stats = &summed.all;
    let lines = [
        format!("{} of {}/{}", stats.instance, tier(stats), stats.service),
        format!(
            "  requests   {}, {:.1} a second, {} in flight{}",
            stats.requests,
            stats.requests_per_second,
            stats.in_flight,
            limit(stats)
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
    if !stats.endpoints.is_empty() {
        output.text("\n")?;
        output.table(&endpoints(&stats.endpoints))?;
    }
    if summed.by_server.len() > 1 {
        output.text("\n")?;
        output.table(&routers(&summed.by_server))?;
    }
    Ok(())
}

/// What the router of each server counted.
fn routers(by_server: &[(String, proto::InstanceStats)]) -> Table {
    let columns = &[
        "ROUTER ON",
        "REQUESTS",
        "PER S",
        "IN FLIGHT",
        "ERRORS",
        "P50",
        "P90",
        "P99",
    ];
    let mut table = Table::new(columns).numbers_from(1);
    for (server, stats) in by_server {
        table.row([
            plain(server),
            plain(stats.requests),
            plain(format!("{:.1}", stats.requests_per_second)),
            plain(stats.in_flight),
            plain(stats.errors.values().sum::<u64>()),
            plain(micros(stats.p50_us)),
            plain(micros(stats.p90_us)),
            plain(micros(stats.p99_us)),
        ]);
    }
    table
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

/// As long as it has a queue.
fn limit(stats: &proto::InstanceStats) -> String {
    match stats.limit {
        0 => String::new(),
        limit => format!(", {} wait of at most {limit}", stats.waiting),
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

/// An instance as `--json` shows it.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    instance: &'a str,
    service: &'a str,
    tier: &'static str,
    #[serde(flatten)]
    counts: Counts<'a>,
    endpoints: Vec<ShownEndpoint<'a>>,
    by_server: Vec<ShownRouter<'a>>,
}

/// What one router counted, as `--json` shows it.
#[derive(Serialize)]
struct ShownRouter<'a> {
    server: &'a str,
    #[serde(flatten)]
    counts: Counts<'a>,
}

#[derive(Serialize)]
struct Counts<'a> {
    requests: u64,
    requests_per_second: f64,
    in_flight: u32,
    waiting: u32,
    limit: Option<u32>,
    errors: BTreeMap<&'a str, u64>,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    retries: u64,
    ejections: u64,
    ejected: bool,
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

impl<'a> From<&'a Summed> for Shown<'a> {
    fn from(summed: &'a Summed) -> Self {
        let all = &summed.all;
        let by_server = summed.by_server.iter();
        Self {
            instance: &all.instance,
            service: &all.service,
            tier: tier(all),
            counts: all.into(),
            endpoints: all.endpoints.iter().map(ShownEndpoint::from).collect(),
            by_server: by_server
                .map(|(server, stats)| ShownRouter {
                    server,
                    counts: stats.into(),
                })
                .collect(),
        }
    }
}

impl<'a> From<&'a proto::InstanceStats> for Counts<'a> {
    fn from(stats: &'a proto::InstanceStats) -> Self {
        let errors = stats.errors.iter();
        Self {
            requests: stats.requests,
            requests_per_second: stats.requests_per_second,
            in_flight: stats.in_flight,
            waiting: stats.waiting,
            limit: Some(stats.limit).filter(|limit| *limit != 0),
            errors: errors
                .map(|(kind, count)| (kind.as_str(), *count))
                .collect(),
            p50_us: stats.p50_us,
            p90_us: stats.p90_us,
            p99_us: stats.p99_us,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            retries: stats.retries,
            ejections: stats.ejections,
            ejected: stats.ejected,
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
