//! The node in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use hydrant_contracts::{Tier, proto};

use crate::table::Instances;

/// What is rendered.
pub(crate) struct Numbers {
    pub(crate) health: proto::HealthResponse,
    pub(crate) fleet: Arc<Instances>,
    pub(crate) stats: Vec<proto::InstanceStats>,
    pub(crate) leases: usize,
    pub(crate) watches: usize,
}

/// One metric family a block, as the format asks.
pub(crate) fn render(numbers: &Numbers) -> String {
    let mut text = Text::default();
    node(&mut text, numbers);
    supervised(&mut text, &numbers.health.services);
    traffic(&mut text, &numbers.stats);
    text.0
}

fn node(text: &mut Text, numbers: &Numbers) {
    let health = &numbers.health;
    text.family("hydrant_node_info", "gauge", "The node and its version.");
    text.sample(&[("server", &health.server), ("version", &health.version)], 1);
    text.family("hydrant_node_uptime_seconds", "gauge", "Time since the node started.");
    text.sample(&[], health.uptime_ms as f64 / 1000.0);
    text.family("hydrant_engine_up", "gauge", "Whether the engine behind a port is well.");
    for engine in &health.engines {
        let labels = [("port", &*engine.port), ("engine", &engine.engine)];
        text.sample(&labels, u8::from(engine.healthy));
    }
    text.family("hydrant_leases", "gauge", "Registrations, candidacies and locks that are held.");
    text.sample(&[], numbers.leases);
    text.family("hydrant_watches", "gauge", "Watches of the local API that are open.");
    text.sample(&[], numbers.watches);
    text.family("hydrant_instances", "gauge", "Instances of the fleet, by service and state.");
    let mut counts = BTreeMap::new();
    for known in numbers.fleet.values() {
        let instance = &known.instance;
        let key = (instance.service.to_string(), instance.state.as_str());
        *counts.entry(key).or_insert(0) += 1;
    }
    for ((service, state), count) in counts {
        text.sample(&[("service", &service), ("state", state)], count);
    }
}

fn supervised(text: &mut Text, services: &[proto::SupervisedService]) {
    type Count = fn(&proto::SupervisedService) -> u64;
    let families: [(&str, &str, &str, Count); 3] = [
        (
            "hydrant_supervised_wanted",
            "gauge",
            "Processes that there should be.",
            |service| service.wanted.into(),
        ),
        (
            "hydrant_supervised_running",
            "gauge",
            "Processes that run.",
            |service| service.processes.iter().filter(|p| p.pid != 0).count() as u64,
        ),
        (
            "hydrant_supervised_restarts_total",
            "counter",
            "Restarts of the processes that there are.",
            |service| service.processes.iter().map(|p| u64::from(p.restarts)).sum(),
        ),
    ];
    for (name, kind, help, count) in families {
        text.family(name, kind, help);
        for service in services {
            let id = format!("{}/{}", tier(service.tier.as_known()), service.service);
            text.sample(&[("service", &id)], count(service));
        }
    }
}

fn traffic(text: &mut Text, stats: &[proto::InstanceStats]) {
    type Count = fn(&proto::InstanceStats) -> u64;
    let families: [(&str, &str, &str, Count); 7] = [
        ("hydrant_requests_total", "counter", "Requests that an instance was given.", |s| s.requests),
        ("hydrant_in_flight", "gauge", "Requests that an instance has not finished.", |s| s.in_flight.into()),
        ("hydrant_received_bytes_total", "counter", "Bytes of request bodies.", |s| s.bytes_in),
        ("hydrant_sent_bytes_total", "counter", "Bytes of response bodies.", |s| s.bytes_out),
        ("hydrant_retries_total", "counter", "Requests that were tried again elsewhere.", |s| s.retries),
        ("hydrant_ejections_total", "counter", "Times that an instance was ejected.", |s| s.ejections),
        ("hydrant_ejected", "gauge", "Whether an instance is ejected now.", |s| s.ejected.into()),
    ];
    for (name, kind, help, count) in families {
        text.family(name, kind, help);
        for one in stats {
            let service = service(one);
            text.sample(&[("service", &service), ("instance", &one.instance)], count(one));
        }
    }
    text.family("hydrant_errors_total", "counter", "Failures of an instance, by kind.");
    for one in stats {
        let service = service(one);
        let errors: BTreeMap<_, _> = one.errors.iter().collect();
        for (kind, count) in errors {
            let labels = [("service", &*service), ("instance", &one.instance), ("kind", kind)];
            text.sample(&labels, count);
        }
    }
    text.family("hydrant_latency_seconds", "gauge", "Latency of an instance, by quantile.");
    for one in stats {
        let service = service(one);
        for (quantile, us) in [("0.5", one.p50_us), ("0.9", one.p90_us), ("0.99", one.p99_us)] {
            let labels = [("service", &*service), ("instance", &one.instance), ("quantile", quantile)];
            text.sample(&labels, us as f64 / 1_000_000.0);
        }
    }
}

fn service(stats: &proto::InstanceStats) -> String {
    format!("{}/{}", tier(stats.tier.as_known()), stats.service)
}

/// The tier as people read it; empty when it is unknown.
pub(crate) fn tier(tier: Option<proto::Tier>) -> &'static str {
    tier.and_then(|tier| Tier::try_from(tier).ok())
        .map_or("", Tier::as_str)
}

#[derive(Default)]
struct Text(String, &'static str);

impl Text {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.1 = name;
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(self.1);
        for (at, (name, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{name}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_prometheus() {
        let stats = proto::InstanceStats {
            instance: "a-1".into(),
            service: "a".into(),
            tier: proto::Tier::TIER_API.into(),
            requests: 7,
            p50_us: 1500,
            errors: [("connect".to_owned(), 2)].into_iter().collect(),
            ..Default::default()
        };
        let numbers = Numbers {
            health: proto::HealthResponse {
                server: "a\"b\\c\nd".into(),
                ..Default::default()
            },
            fleet: Arc::default(),
            stats: vec![stats],
            leases: 3,
            watches: 0,
        };
        let text = render(&numbers);
        for line in [
            r#"hydrant_node_info{server="a\"b\\c\nd",version=""} 1"#,
            "hydrant_leases 3",
            r#"hydrant_requests_total{service="api/a",instance="a-1"} 7"#,
            r#"hydrant_errors_total{service="api/a",instance="a-1",kind="connect"} 2"#,
            r#"hydrant_latency_seconds{service="api/a",instance="a-1",quantile="0.5"} 0.0015"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
