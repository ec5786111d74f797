//! The node in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use hydrant_contracts::{ServiceId, Tier, proto};

use crate::gauges::Gauge;
use crate::instances::Instances;

/// What is rendered.
pub(crate) struct Numbers {
    pub(crate) health: proto::HealthResponse,
    pub(crate) fleet: Instances,
    /// What the router counts, in the same format.
    pub(crate) traffic: String,
    pub(crate) leases: usize,
    pub(crate) watches: usize,
    pub(crate) rules_epoch: u64,
    /// What was sent to other systems, in the same format.
    pub(crate) exports: String,
    /// What services count of themselves.
    pub(crate) gauges: Vec<(ServiceId, Gauge)>,
}

/// One metric family a block, as the format asks.
pub(crate) fn render(numbers: &Numbers) -> String {
    let mut text = Text::default();
    node(&mut text, numbers);
    supervised(&mut text, &numbers.health.services);
    of_services(&mut text, &numbers.gauges);
    text.0 + &numbers.traffic + &numbers.exports
}

fn node(text: &mut Text, numbers: &Numbers) {
    let health = &numbers.health;
    text.family("hydrant_node_info", "gauge", "The node and its version.");
    text.sample(
        &[("server", &health.server), ("version", &health.version)],
        1,
    );
    text.family(
        "hydrant_node_uptime_seconds",
        "gauge",
        "Time since the node started.",
    );
    text.sample(&[], health.uptime_ms as f64 / 1000.0);
    text.family(
        "hydrant_engine_up",
        "gauge",
        "Whether the engine behind a port is well.",
    );
    for engine in &health.engines {
        let labels = [("port", &*engine.port), ("engine", &engine.engine)];
        text.sample(&labels, u8::from(engine.healthy));
    }
    text.family(
        "hydrant_leases",
        "gauge",
        "Registrations, candidacies and locks that are held.",
    );
    text.sample(&[], numbers.leases);
    text.family(
        "hydrant_watches",
        "gauge",
        "Watches of the local API that are open.",
    );
    text.sample(&[], numbers.watches);
    text.family(
        "hydrant_rules_epoch",
        "gauge",
        "The epoch of the rules by which requests are decided here.",
    );
    text.sample(&[], numbers.rules_epoch);
    text.family(
        "hydrant_instances",
        "gauge",
        "Instances of the fleet, by service and state.",
    );
    let mut counts = BTreeMap::new();
    for instance in numbers.fleet.iter() {
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
            |service| {
                service
                    .processes
                    .iter()
                    .map(|p| u64::from(p.restarts))
                    .sum()
            },
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

fn of_services(text: &mut Text, gauges: &[(ServiceId, Gauge)]) {
    text.family(
        "hydrant_service_gauge",
        "gauge",
        "What services count of themselves.",
    );
    for (service, gauge) in gauges {
        let service = service.to_string();
        let mut labels = vec![("service", &*service), ("name", &gauge.name)];
        if !gauge.of.is_empty() {
            labels.push(("of", &gauge.of));
        }
        text.sample(&labels, gauge.value);
    }
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
        let numbers = Numbers {
            health: proto::HealthResponse {
                server: "a\"b\\c\nd".into(),
                ..Default::default()
            },
            fleet: Instances::default(),
            traffic: "hydrant_refusals_total 0\n".into(),
            leases: 3,
            watches: 0,
            rules_epoch: 7,
            exports: "hydrant_export_sent_total{to=\"graphite\"} 1\n".into(),
            gauges: vec![(
                "service/shop".parse().unwrap(),
                Gauge {
                    name: "waiting".into(),
                    of: "a\"b".into(),
                    value: 2.5,
                },
            )],
        };
        let text = render(&numbers);
        for line in [
            r#"hydrant_node_info{server="a\"b\\c\nd",version=""} 1"#,
            "hydrant_leases 3",
            "hydrant_refusals_total 0",
            r#"hydrant_export_sent_total{to="graphite"} 1"#,
            r#"hydrant_service_gauge{service="service/shop",name="waiting",of="a\"b"} 2.5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
