//! `hydrant top`: what services, versions and instances do, shown anew every few seconds.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use hydrant_contracts::proto;
use serde_json::json;

use super::stats::{Shown, Summed, counted, tier};
use crate::api::Api;
use crate::cli::{Global, TopArgs};
use crate::failure::Result;
use crate::output::{Output, Style, Table, micros, plain};
use crate::servers::{self, Servers, Unheard, print_notes};

/// From the upper left corner, and nothing stays of what stood below.
const ANEW: &str = "\x1b[H\x1b[J";
/// Faster nobody can read.
const SHORTEST: std::time::Duration = std::time::Duration::from_millis(200);

/// Shows what the routers of the fleet see, until it is ended.
pub(crate) async fn run(global: &Global, args: &TopArgs, output: &Output) -> Result<()> {
    let api = Api::connect(global).await?;
    let mut ticks = tokio::time::interval(args.every.get().max(SHORTEST));
    let mut before = Errors::default();
    let mut left = args.times.unwrap_or(u64::MAX);
    while left > 0 {
        left -= 1;
        ticks.tick().await;
        let servers = Servers::of(&api, &args.server).await?;
        let answers = servers.ask(|api| counted(api, &args.pattern)).await;
        let (heard, unheard) = servers::heard(answers)?;
        let instances = Summed::of(heard);
        if output.json {
            let all: Vec<Shown> = instances.iter().map(Shown::from).collect();
            output.json(&json!({ "instances": all, "unanswered": servers::shown(&unheard) }))?;
            continue;
        }
        if std::io::stdout().is_terminal() {
            output.text(ANEW)?;
        }
        let errors = before.since(&instances, tokio::time::Instant::now());
        output.table_or(&table(&instances, &errors), "no instance matches\n")?;
        print_notes(unheard.iter().map(Unheard::note), output)?;
        if left > 0 && !std::io::stdout().is_terminal() {
            output.text("\n")?;
        }
    }
    Ok(())
}

/// How many requests of each instance had failed when it was last looked.
#[derive(Default)]
struct Errors {
    at: Option<tokio::time::Instant>,
    counts: BTreeMap<String, u64>,
}

impl Errors {
    /// Those of each instance in a second since the last look; nothing at the first.
    fn since(&mut self, all: &[Summed], now: tokio::time::Instant) -> BTreeMap<String, f64> {
        let count = |one: &Summed| (one.all.instance.clone(), failures(&one.all));
        let counts: BTreeMap<_, _> = all.iter().map(count).collect();
        let seconds = self.at.map(|at| (now - at).as_secs_f64().max(0.001));
        let rate = |(instance, count): (&String, &u64)| {
            let before = self.counts.get(instance).copied().unwrap_or(0);
            let more = count.saturating_sub(before) as f64;
            Some((instance.clone(), more / seconds?))
        };
        let rates = counts.iter().filter_map(rate).collect();
        (self.at, self.counts) = (Some(now), counts);
        rates
    }
}

fn failures(stats: &proto::InstanceStats) -> u64 {
    stats.errors.values().sum()
}

/// A service, its versions where there are several, and its instances.
fn table(all: &[Summed], errors: &BTreeMap<String, f64>) -> Table {
    let columns = &[
        "SERVICE",
        "VERSION",
        "SERVER",
        "PER S",
        "ERRORS/S",
        "MEAN",
        "P99",
        "IN FLIGHT",
        "STATE",
    ];
    let mut table = Table::new(columns).numbers_from(3).text_from(8);
    let mut services: BTreeMap<String, Vec<&proto::InstanceStats>> = BTreeMap::new();
    for one in all {
        let service = format!("{}/{}", tier(&one.all), one.all.service);
        services.entry(service).or_default().push(&one.all);
    }
    for (service, instances) in &services {
        let mut versions: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for one in instances {
            versions.entry(&one.version).or_default().push(*one);
        }
        table.row(sum(service, &only(versions.keys()), instances, errors));
        for (version, instances) in &versions {
            if versions.len() > 1 {
                table.row(sum("  all of", version, instances, errors));
            }
            for one in instances {
                table.row(row(one, errors));
            }
        }
    }
    table
}

/// The version, where all have the same.
fn only<'a>(mut versions: impl ExactSizeIterator<Item = &'a &'a str>) -> String {
    match versions.len() {
        1 => versions.next().map_or(String::new(), ToString::to_string),
        count => format!("{count} versions"),
    }
}

type Row = [(String, Style); 9];

fn sum(
    name: &str,
    version: &str,
    instances: &[&proto::InstanceStats],
    errors: &BTreeMap<String, f64>,
) -> Row {
    let total =
        |of: fn(&proto::InstanceStats) -> f64| instances.iter().map(|one| of(one)).sum::<f64>();
    let failing: Option<f64> = instances.iter().map(|one| errors.get(&one.instance)).sum();
    let out = instances.iter().filter(|one| one.ejected).count();
    let state = match out {
        0 => plain(format!("{} in", instances.len())),
        out => (
            format!("{} in, {out} out", instances.len() - out),
            Style::Waiting,
        ),
    };
    [
        plain(name),
        plain(version),
        plain(""),
        plain(format!("{:.1}", total(|one| one.requests_per_second))),
        rate(failing),
        plain(""),
        plain(""),
        plain(total(|one| f64::from(one.in_flight))),
        state,
    ]
}

fn row(one: &proto::InstanceStats, errors: &BTreeMap<String, f64>) -> Row {
    [
        (format!("  {}", one.instance), Style::Faint),
        (one.version.clone(), Style::Faint),
        (one.server.clone(), Style::Faint),
        plain(format!("{:.1}", one.requests_per_second)),
        rate(errors.get(&one.instance).copied()),
        plain(latency(one.mean_us)),
        plain(latency(one.p99_us)),
        plain(one.in_flight),
        state(one),
    ]
}

fn rate(per_second: Option<f64>) -> (String, Style) {
    match per_second {
        None => plain("-"),
        Some(rate) if rate > 0.0 => (format!("{rate:.1}"), Style::Bad),
        Some(_) => plain("0.0"),
    }
}

fn latency(us: u64) -> String {
    match us {
        0 => "-".into(),
        us => micros(us),
    }
}

fn state(one: &proto::InstanceStats) -> (String, Style) {
    match (one.ejected, one.limit) {
        (true, _) => (format!("out: {}", one.ejected_because), Style::Bad),
        (false, 0) => ("in".into(), Style::Good),
        (false, limit) => (
            format!("full at {limit}: {} wait", one.waiting),
            Style::Waiting,
        ),
    }
}
