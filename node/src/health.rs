//! How the node is: for programs as JSON, for people as a plain page, for Prometheus as text.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hydrant_contracts::{Instance, proto};
use hydrant_ports::EngineError;
use tokio::time::Instant;

use crate::config::Engines;
use crate::exports::Exports;
use crate::gauges::Gauges;
use crate::leases::Leases;
use crate::metrics;
use crate::quota::Quota;
use crate::session::{Presence, Standing};
use crate::supervision::Supervision;
use crate::table::Table;
use crate::traffic::Traffic;

/// The pages that need no token.
pub(crate) const PAGES: [&str; 2] = ["/health", "/metrics"];

/// How long an engine may take to say that it is well.
const CHECK_WITHIN: Duration = Duration::from_secs(2);

/// Where the node's condition is read.
pub(crate) struct Health {
    pub(crate) server: String,
    pub(crate) zone: String,
    pub(crate) presence: Arc<Presence>,
    pub(crate) started: Instant,
    pub(crate) engines: Engines,
    pub(crate) supervision: Arc<dyn Supervision>,
    pub(crate) table: Arc<Table>,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) leases: Leases,
    pub(crate) watches: Quota,
    pub(crate) exports: Exports,
    pub(crate) gauges: Gauges,
}

impl Health {
    /// The condition of the node, its engines, its services and the instances on its server. The
    /// node is healthy when its engines are.
    pub(crate) async fn read(&self) -> proto::HealthResponse {
        let engines = self.check_engines().await;
        proto::HealthResponse {
            server: self.server.clone(),
            zone: self.zone.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            healthy: engines.iter().all(|engine| engine.healthy),
            engines: engines.into(),
            services: self.supervision.services(),
            instances: self
                .instances_here()
                .iter()
                .map(|i| (&**i).into())
                .collect(),
            servers: self.servers().servers,
            routing: self.traffic.troubles(),
            ..Default::default()
        }
    }

    /// Everything that the node counts, in Prometheus' text format.
    pub(crate) async fn metrics(&self) -> String {
        let numbers = metrics::Numbers {
            health: self.read().await,
            fleet: self.table.view().instances,
            traffic: self.traffic.metrics(),
            leases: self.leases.count(),
            watches: self.watches.count(),
            rules_epoch: self.traffic.rules_epoch(),
            exports: self.exports.metrics(),
            gauges: self.gauges.all(),
        };
        metrics::render(&numbers)
    }

    /// The servers of the fleet; asks no engine.
    pub(crate) fn servers(&self) -> proto::ServersResponse {
        let view = self.table.view();
        proto::ServersResponse {
            server: self.server.clone(),
            zone: self.zone.clone(),
            servers: view
                .servers
                .iter()
                .map(|server| (&**server).into())
                .collect(),
            ..Default::default()
        }
    }

    async fn check_engines(&self) -> [proto::EngineHealth; 2] {
        let (coordination, state) = (&self.engines.coordination, &self.engines.state);
        let (coordination_is, state_is) = tokio::join!(
            tokio::time::timeout(CHECK_WITHIN, coordination.check()),
            tokio::time::timeout(CHECK_WITHIN, state.check()),
        );
        let mut of_coordination =
            engine_health("coordination", coordination.name(), coordination_is);
        let standing = self.presence.standing().borrow().clone();
        if let Some(trouble) = trouble(&standing) {
            of_coordination.healthy = false;
            of_coordination.detail = match &*of_coordination.detail {
                "" => trouble,
                detail => format!("{trouble}; {detail}"),
            };
        }
        [
            of_coordination,
            engine_health("state", state.name(), state_is),
        ]
    }

    fn instances_here(&self) -> Vec<Arc<Instance>> {
        let instances = self.table.view().instances;
        let here = |instance: &&Arc<Instance>| instance.server == self.server;
        instances.iter().filter(here).cloned().collect()
    }
}

/// What people should know of how the node stands with coordination; `None` when all is well.
fn trouble(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Present => None,
        Standing::Away { since } => Some(format!(
            "degraded: without its session for {} s; what was known last is routed, and what happens on this server",
            since.elapsed().as_secs()
        )),
        Standing::Withdrawn { holder } => Some(format!(
            "withdrawn: another node is running as this server ({holder}); end one of the two"
        )),
    }
}

fn engine_health(
    port: &str,
    engine: &str,
    outcome: Result<Result<(), EngineError>, tokio::time::error::Elapsed>,
) -> proto::EngineHealth {
    let detail = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", CHECK_WITHIN.as_secs())),
    };
    proto::EngineHealth {
        port: port.into(),
        engine: engine.into(),
        healthy: detail.is_none(),
        detail: detail.unwrap_or_default(),
        ..Default::default()
    }
}

/// `GET /health` and `GET /metrics`.
pub(crate) fn pages(health: Arc<Health>) -> axum::Router {
    axum::Router::new()
        .route(PAGES[0], get(health_page))
        .route(PAGES[1], get(metrics_page))
        .with_state(health)
}

async fn health_page(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    let read = health.read().await;
    let status = match read.healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let (kind, body) = match wants_page {
        true => ("text/html; charset=utf-8", to_page(&read)),
        false => ("application/json", to_json(&read)),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

async fn metrics_page(State(health): State<Arc<Health>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], health.metrics().await).into_response()
}

/// Protobuf JSON, with what is false written out: a reader must not guess.
fn to_json(health: &proto::HealthResponse) -> String {
    let mut json = serde_json::to_value(health).unwrap_or_default();
    json["healthy"] = health.healthy.into();
    for (engine, read) in health.engines.iter().enumerate() {
        json["engines"][engine]["healthy"] = read.healthy.into();
    }
    json.to_string()
}

fn to_page(health: &proto::HealthResponse) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Hydrant</title>\
         <style>body{font:15px system-ui;margin:2em}table{border-collapse:collapse;margin:1em 0}\
         td,th{padding:.25em .75em;border-bottom:1px solid #ccc;text-align:left}</style>",
    );
    let state = well(health.healthy);
    let up = Duration::from_secs(health.uptime_ms / 1000);
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<h1>{}: {state}</h1><p>Hydrant {}, up for {up:?}</p>",
        escape(&health.server),
        escape(&health.version)
    );
    for trouble in &health.routing {
        let _ = write!(page, "<p>{}</p>", escape(trouble));
    }
    table(
        &mut page,
        "Engines",
        ["port", "engine", "state", "detail"],
        {
            health.engines.iter().map(|engine| {
                let state = well(engine.healthy).to_string();
                [
                    engine.port.clone(),
                    engine.engine.clone(),
                    state,
                    engine.detail.clone(),
                ]
            })
        },
    );
    table(
        &mut page,
        "Supervised services",
        ["service", "version", "wanted", "processes"],
        {
            health.services.iter().map(|service| {
                let id = format!(
                    "{}/{}",
                    metrics::tier(service.tier.as_known()),
                    service.service
                );
                [
                    id,
                    service.version.clone(),
                    service.wanted.to_string(),
                    processes(service),
                ]
            })
        },
    );
    table(
        &mut page,
        "Instances on this server",
        ["instance", "service", "state", "address"],
        {
            health
                .instances
                .iter()
                .map(|wire| match Instance::try_from(wire) {
                    Ok(instance) => [
                        format!("{} {}", instance.id, instance.version),
                        instance.service.to_string(),
                        format!("{} {}", instance.state.as_str(), instance.detail),
                        instance.address.to_string(),
                    ],
                    Err(error) => [
                        wire.id.clone(),
                        String::new(),
                        error.to_string(),
                        String::new(),
                    ],
                })
        },
    );
    page
}

fn table<const N: usize>(
    page: &mut String,
    title: &str,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let _ = write!(page, "<h2>{title}</h2><table><tr>");
    for name in head {
        let _ = write!(page, "<th>{name}");
    }
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}", escape(&cell));
        }
    }
    page.push_str("</table>");
}

fn processes(service: &proto::SupervisedService) -> String {
    let process = |process: &proto::SupervisedProcess| {
        let ended = match &*process.last_exit {
            "" => String::new(),
            last => format!(", last {last}"),
        };
        format!("{} ({} restarts{ended})", process.state, process.restarts)
    };
    let all: Vec<_> = service.processes.iter().map(process).collect();
    all.join("; ")
}

const fn well(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "unhealthy" }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhealthy() -> proto::HealthResponse {
        proto::HealthResponse {
            server: "<one>".into(),
            engines: vec![proto::EngineHealth {
                port: "state".into(),
                detail: "<script>alert('x')</script>".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn what_came_from_outside_is_escaped() {
        let page = to_page(&unhealthy());
        assert!(
            !page.contains("<script>") && !page.contains("<one>"),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{page}");
    }

    #[test]
    fn ill_health_is_written_out() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&unhealthy())).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["engines"][0]["healthy"], false);
    }
}
