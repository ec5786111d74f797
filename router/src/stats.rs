//! What the counters add up to, for people and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{InstanceId, Pattern, ServiceId, Version};

use crate::clock::Moment;
use crate::counter::Count;
use crate::endpoint::EndpointId;
use crate::histogram::Distribution;
use crate::instance::{ErrorKind, Live, Slot};
use crate::priority::Priority;
use crate::refusal::Reason;
use crate::rule::Compiled;
use crate::service::{Instance, Service};
use crate::snapshot::Snapshot;

/// The most instances that Prometheus gets by name; those beyond are in their service's sums.
const MAX_NAMED: usize = 1000;
/// The upper bounds of Prometheus' latency buckets, in milliseconds.
const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000];

/// What one instance did since the router started.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceStats {
    /// The instance.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceId,
    /// The server on which it runs.
    pub server: String,
    /// The version that it runs.
    pub version: Version,
    /// Requests that were sent to it, each retry too.
    pub requests: u64,
    /// Over the last ten seconds.
    pub requests_per_second: f64,
    /// Requests that are there now.
    pub in_flight: u64,
    /// Those of them that wait for an answer.
    pub waiting: u64,
    /// How many may wait; `None` as long as it has no queue.
    pub limit: Option<u64>,
    /// By [`ErrorKind::as_str`]; kinds that never happened are absent.
    pub errors: BTreeMap<&'static str, u64>,
    /// Time to the head of the answer.
    pub latency: Latency,
    /// Bytes of requests: their bodies, and with HTTP/1.1 their heads.
    pub bytes_in: u64,
    /// Bytes of answer bodies.
    pub bytes_out: u64,
    /// How many of its requests were repeats of ones that failed elsewhere.
    pub retries: u64,
    /// How often it was taken out of the choice.
    pub ejections: u64,
    /// It is out of the choice now.
    pub ejected: bool,
    /// Why it is out, for people; empty when it is not.
    pub ejected_because: &'static str,
    /// What its answers take in the mean of late; `None` before the first.
    pub mean_latency: Option<Duration>,
    /// By name; those that never had a request are absent.
    pub endpoints: Vec<EndpointStats>,
}

/// What one endpoint of an instance did.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStats {
    /// `package.Service/Method`, or a prefix.
    pub endpoint: Arc<str>,
    /// Requests that were sent there.
    pub requests: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Time to the head of the answer.
    pub latency: Latency,
}

/// Quantiles in microseconds, to two digits; 0 when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of all are faster.
    pub p50_us: u64,
    /// Nine in ten are faster.
    pub p90_us: u64,
    /// 99 in a hundred are faster.
    pub p99_us: u64,
}

impl From<&Distribution> for Latency {
    fn from(distribution: &Distribution) -> Self {
        Self {
            p50_us: distribution.quantile_us(0.5),
            p90_us: distribution.quantile_us(0.9),
            p99_us: distribution.quantile_us(0.99),
        }
    }
}

/// The instances that a pattern means: those of the services that it matches, or those whose id
/// it matches or begins. Sorted by service and id.
pub fn instances(snapshot: &Snapshot, pattern: &Pattern, now: Moment) -> Vec<InstanceStats> {
    let mut services: Vec<_> = snapshot.services().collect();
    services.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    services
        .into_iter()
        .flat_map(|service| {
            service
                .instances
                .iter()
                .map(move |instance| (service, instance))
        })
        .filter(|(service, instance)| pattern.matches(&service.id, instance.info.id.as_str()))
        .map(|(service, instance)| instance_stats(service, instance, now))
        .collect()
}

fn instance_stats(service: &Service, instance: &Instance, now: Moment) -> InstanceStats {
    let live = &instance.live;
    let by_endpoint = endpoints(live);
    let mut all = Distribution::default();
    by_endpoint
        .values()
        .for_each(|sums| all.merge(&sums.latency));
    InstanceStats {
        instance: instance.info.id.clone(),
        service: service.id.clone(),
        server: instance.info.server.clone(),
        version: instance.info.version.clone(),
        requests: by_endpoint.values().map(|sums| sums.requests).sum(),
        requests_per_second: live
            .used_slots()
            .map(|slot| slot.rate.per_second(now))
            .sum(),
        in_flight: live.in_flight(),
        waiting: live.waiting(),
        limit: live.limit(),
        errors: errors(live),
        latency: Latency::from(&all),
        bytes_in: sum(live, |slot| &slot.bytes_in),
        bytes_out: sum(live, |slot| &slot.bytes_out),
        retries: sum(live, |slot| &slot.retries),
        ejections: live.ejection().total(),
        ejected: live.is_ejected(now),
        ejected_because: live.ejected_because(now),
        mean_latency: Some(live.mean_latency())
            .filter(|nanos| *nanos > 0.0)
            .map(|nanos| Duration::from_nanos(nanos as u64)),
        endpoints: named(service, by_endpoint),
    }
}

fn named(service: &Service, sums: BTreeMap<u16, Sums>) -> Vec<EndpointStats> {
    let stats = sums.into_iter().map(|(id, sums)| EndpointStats {
        endpoint: service.live.endpoint_name(EndpointId::from_number(id)),
        requests: sums.requests,
        errors: sums.errors,
        latency: Latency::from(&sums.latency),
    });
    let mut stats: Vec<_> = stats.collect();
    stats.sort_unstable_by(|a, b| a.endpoint.cmp(&b.endpoint));
    stats
}

/// An endpoint over all workers.
#[derive(Debug, Default)]
struct Sums {
    requests: u64,
    errors: u64,
    latency: Distribution,
}

fn endpoints(live: &Live) -> BTreeMap<u16, Sums> {
    let mut all: BTreeMap<u16, Sums> = BTreeMap::new();
    for (id, counters) in live.used_slots().flat_map(|slot| slot.endpoints.used()) {
        let sums = all.entry(id.number()).or_default();
        sums.requests += counters.requests.get();
        sums.errors += counters.errors.get();
        sums.latency.add(&counters.latency);
    }
    all
}

fn errors(live: &Live) -> BTreeMap<&'static str, u64> {
    let of = |kind: ErrorKind| sum(live, |slot| &slot.errors[kind as usize]);
    let counted = ErrorKind::ALL
        .into_iter()
        .map(|kind| (kind.as_str(), of(kind)));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn sum(live: &Live, counter: impl Fn(&Slot) -> &Count) -> u64 {
    live.used_slots().map(|slot| counter(slot).get()).sum()
}

/// Everything in Prometheus' text format. The number of series is bounded: latencies are by
/// service, and instances beyond the first thousand that had requests are not named.
pub fn prometheus(snapshot: &Snapshot, now: Moment) -> String {
    let stats = instances(snapshot, &Pattern::default(), now);
    let named: Vec<_> = stats
        .iter()
        .filter(|stats| stats.requests > 0)
        .take(MAX_NAMED)
        .collect();
    let mut out = String::new();
    write_refusals(&mut out, snapshot);
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&InstanceStats) -> u64| {
        header(&mut out, name, kind, help);
        for stats in &named {
            let _ = writeln!(out, "{name}{{{}}} {}", labels(stats), value(stats));
        }
    };
    family(
        "hydrant_instance_requests_total",
        "counter",
        "Requests sent to an instance.",
        &|s| s.requests,
    );
    family(
        "hydrant_instance_in_flight",
        "gauge",
        "Requests that an instance has now.",
        &|s| s.in_flight,
    );
    family(
        "hydrant_instance_waiting",
        "gauge",
        "Requests that wait for an instance's answer now.",
        &|s| s.waiting,
    );
    family(
        "hydrant_instance_limit",
        "gauge",
        "How many requests may wait for its answer; 0 while it has no queue.",
        &|s| s.limit.unwrap_or(0),
    );
    family(
        "hydrant_instance_bytes_in_total",
        "counter",
        "Bytes of requests: their bodies, and with HTTP/1.1 their heads.",
        &|s| s.bytes_in,
    );
    family(
        "hydrant_instance_bytes_out_total",
        "counter",
        "Bytes of answer bodies.",
        &|s| s.bytes_out,
    );
    family(
        "hydrant_instance_retries_total",
        "counter",
        "Requests that failed elsewhere before.",
        &|s| s.retries,
    );
    family(
        "hydrant_instance_ejections_total",
        "counter",
        "Times that it was taken out of the choice.",
        &|s| s.ejections,
    );
    family(
        "hydrant_instance_ejected",
        "gauge",
        "1 while it is out of the choice.",
        &|s| u64::from(s.ejected),
    );
    write_errors(&mut out, &named);
    write_services(&mut out, snapshot);
    write_rules(&mut out, snapshot);
    out
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Names and versions are validated text without quotes and backslashes.
fn labels(stats: &InstanceStats) -> String {
    let (service, instance, version) = (&stats.service, &stats.instance, &stats.version);
    format!(
        r#"tier="{}",service="{}",instance="{instance}",version="{version}""#,
        service.tier, service.name
    )
}

fn write_refusals(out: &mut String, snapshot: &Snapshot) {
    const NAME: &str = "hydrant_refusals_total";
    header(
        out,
        NAME,
        "counter",
        "Requests that the router answered itself.",
    );
    for reason in Reason::ALL {
        let count = snapshot.totals().refusals(reason);
        let _ = writeln!(out, "{NAME}{{reason=\"{}\"}} {count}", reason.as_str());
    }
}

fn write_errors(out: &mut String, named: &[&InstanceStats]) {
    const NAME: &str = "hydrant_instance_errors_total";
    header(out, NAME, "counter", "Requests that failed at an instance.");
    for stats in named {
        for (kind, count) in &stats.errors {
            let _ = writeln!(out, "{NAME}{{{},kind=\"{kind}\"}} {count}", labels(stats));
        }
    }
}

/// Only of services that ever refused for load.
fn write_shed(out: &mut String, services: &[&Arc<Service>]) {
    const NAME: &str = "hydrant_shed_total";
    let help = "Requests refused because the instances had all that they can answer.";
    header(out, NAME, "counter", help);
    for service in services {
        let refused = service.live.shedding().refused();
        if refused.iter().all(|count| *count == 0) {
            continue;
        }
        for (priority, count) in Priority::ALL.iter().zip(refused) {
            let (labels, priority) = (service_labels(&service.id), priority.as_str());
            let _ = writeln!(out, "{NAME}{{{labels},priority=\"{priority}\"}} {count}");
        }
    }
}

/// Appends how many clients did not finish their TLS handshake.
pub(crate) fn write_handshakes(out: &mut String, snapshot: &Snapshot) {
    let name = "hydrant_tls_handshakes_failed_total";
    let help = "Clients that did not finish their TLS handshake.";
    header(out, name, "counter", help);
    let _ = writeln!(out, "{name} {}", snapshot.totals().handshakes_failed());
}

/// What is out of the ordinary, a line for each service.
pub fn troubles(snapshot: &Snapshot, now: Moment) -> Vec<String> {
    let troubles = snapshot.services().flat_map(|service| {
        let crowd = service.live.is_panicking().then(|| {
            format!(
                "{}: so many instances are out that all of them are used",
                service.id
            )
        });
        [shedding(service, now), crowd].into_iter().flatten()
    });
    let mut troubles: Vec<_> = troubles.collect();
    troubles.sort_unstable();
    troubles
}

fn shedding(service: &Service, now: Moment) -> Option<String> {
    let seconds = service.live.shedding().lasts(now)?.as_secs();
    let total: u64 = service.live.shedding().refused().iter().sum();
    Some(format!(
        "{}: for {seconds} s requests are refused, because the instances have all that they can \
         answer; {total} since the node started",
        service.id
    ))
}

fn write_services(out: &mut String, snapshot: &Snapshot) {
    const READY: &str = "hydrant_service_ready_instances";
    const LATENCY: &str = "hydrant_service_latency_seconds";
    let mut services: Vec<_> = snapshot.services().collect();
    services.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    header(out, READY, "gauge", "Instances that get requests.");
    for service in &services {
        let ready = service
            .instances
            .iter()
            .filter(|instance| instance.is_ready())
            .count();
        let _ = writeln!(out, "{READY}{{{}}} {ready}", service_labels(&service.id));
    }
    write_shed(out, &services);
    header(out, LATENCY, "histogram", "Time to the head of the answer.");
    for service in &services {
        write_latency(
            out,
            LATENCY,
            &service_labels(&service.id),
            &latency(service),
        );
    }
}

/// Names of rules are validated text, too.
fn write_rules(out: &mut String, snapshot: &Snapshot) {
    const DECIDED: &str = "hydrant_rule_requests_total";
    const DIVERTED: &str = "hydrant_rule_diverted_total";
    const LIMITED: &str = "hydrant_rule_limited_total";
    let mut rules: Vec<_> = snapshot.rules().all().collect();
    rules.sort_unstable_by_key(|rule| &rule.kept.rule.name);
    let label = |rule: &Compiled| {
        let labels = service_labels(&rule.kept.rule.service);
        format!(r#"{labels},rule="{}""#, rule.kept.rule.name)
    };
    header(
        out,
        DECIDED,
        "counter",
        "Requests that a rule decided over.",
    );
    for rule in &rules {
        let _ = writeln!(out, "{DECIDED}{{{}}} {}", label(rule), rule.counts()[0]);
    }
    let help =
        "Requests that went to another instance than the rule wants, of which none was well.";
    header(out, DIVERTED, "counter", help);
    for rule in &rules {
        let _ = writeln!(out, "{DIVERTED}{{{}}} {}", label(rule), rule.counts()[1]);
    }
    let help = "Requests that were more than the limit of a rule lets through.";
    header(out, LIMITED, "counter", help);
    for rule in &rules {
        let _ = writeln!(out, "{LIMITED}{{{}}} {}", label(rule), rule.counts()[2]);
    }
}

fn service_labels(id: &ServiceId) -> String {
    format!(r#"tier="{}",service="{}""#, id.tier, id.name)
}

fn latency(service: &Service) -> Distribution {
    let mut all = Distribution::default();
    let slots = service
        .instances
        .iter()
        .flat_map(|instance| instance.live.used_slots());
    for (_, counters) in slots.flat_map(|slot| slot.endpoints.used()) {
        all.add(&counters.latency);
    }
    all
}

fn write_latency(out: &mut String, name: &str, labels: &str, all: &Distribution) {
    let total = all.total();
    if total == 0 {
        return;
    }
    for ms in BOUNDS_MS {
        let (le, count) = (ms as f64 / 1000.0, all.at_most(ms * 1000));
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
    }
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {:.6}", all.sum_seconds());
    let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
}
