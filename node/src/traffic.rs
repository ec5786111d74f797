//! What the node asks of the router.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hydrant_contracts::{InstanceId, Pattern, proto};
use hydrant_router::stats::{prometheus, troubles};
use hydrant_router::{
    EndpointStats, Explanation, InstanceStats, Listener, Moment, Router, Sockets,
    Table as RoutingTable, Tap, explain,
};

/// The data plane, as the node sees it.
pub trait Traffic: Send + Sync + 'static {
    /// Routes to the instances of the table, and to no others, from now on.
    fn publish(&self, table: &RoutingTable);

    /// The epoch of the rules by which every request is decided that comes from now.
    fn rules_epoch(&self) -> u64;

    /// How many requests the instance has not finished yet, also after it left the table.
    fn in_flight(&self, instance: &InstanceId) -> u64;

    /// Counts of the instances that the pattern means.
    fn stats(&self, pattern: &Pattern) -> Vec<proto::InstanceStats>;

    /// Everything that it counts, in Prometheus' text format.
    fn metrics(&self) -> String;

    /// What is out of the ordinary, a line for each service.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    /// Hears of all requests from now on; `None` when there are none any more.
    fn tap(&self) -> Option<Tap> {
        None
    }

    /// What the router would do with a request, without sending it.
    fn explain(&self, request: &proto::ExplainRequest) -> proto::ExplainResponse;
}

/// A router until it is shut down.
pub(crate) struct RouterTraffic {
    router: RwLock<Option<Router>>,
    /// The table stays as it is.
    frozen: AtomicBool,
}

impl RouterTraffic {
    pub(crate) fn new(router: Router) -> Self {
        Self {
            router: RwLock::new(Some(router)),
            frozen: AtomicBool::new(false),
        }
    }

    /// Routes by the table of now for good.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Begins to accept.
    pub(crate) fn open(&self) {
        self.with(Router::open);
    }

    /// Its listening sockets, for another router.
    pub(crate) fn sockets(&self) -> io::Result<Sockets> {
        self.with(|router| Some(router.sockets()))
            .unwrap_or_else(|| Ok(Sockets::default()))
    }

    /// Leaves what comes from now on to another router.
    pub(crate) fn leave(&self) {
        self.with(Router::leave);
    }

    /// Lets requests under way end for at most `drain`, and stops. From then on nothing is
    /// routed and nothing was counted.
    pub(crate) async fn shutdown(&self, drain: Duration) {
        let router = self
            .router
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(router) = router {
            router.shutdown(drain).await;
        }
    }

    fn with<T: Default>(&self, ask: impl FnOnce(&Router) -> T) -> T {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.as_ref().map(ask).unwrap_or_default()
    }
}

impl Traffic for RouterTraffic {
    fn publish(&self, table: &RoutingTable) {
        if !self.frozen.load(Ordering::Acquire) {
            self.with(|router| router.publish(table));
        }
    }

    fn rules_epoch(&self) -> u64 {
        self.with(|router| router.snapshot().rules_epoch())
    }

    fn in_flight(&self, instance: &InstanceId) -> u64 {
        self.with(|router| router.in_flight(instance))
    }

    fn stats(&self, pattern: &Pattern) -> Vec<proto::InstanceStats> {
        self.with(|router| router.stats(pattern).iter().map(stats).collect())
    }

    fn metrics(&self) -> String {
        self.with(|router| prometheus(&router.snapshot(), Moment::now()) + &router.tls_metrics())
    }

    fn troubles(&self) -> Vec<String> {
        self.with(|router| {
            let mut troubles = troubles(&router.snapshot(), Moment::now());
            troubles.extend(router.tls_troubles());
            troubles
        })
    }

    fn tap(&self) -> Option<Tap> {
        self.with(|router| Some(router.taps().all()))
    }

    fn explain(&self, request: &proto::ExplainRequest) -> proto::ExplainResponse {
        let header = |header: &proto::Header| (header.name.clone(), header.value.clone());
        let request = explain::Request {
            method: request.method.clone(),
            path: request.path.clone(),
            headers: request.headers.iter().map(header).collect(),
            listener: match request.public_listener {
                true => Listener::Public,
                false => Listener::Local,
            },
        };
        self.with(|router| explanation(router.explain(&request)))
    }
}

fn stats(stats: &InstanceStats) -> proto::InstanceStats {
    let errors = stats.errors.iter();
    proto::InstanceStats {
        instance: stats.instance.to_string(),
        service: stats.service.name.to_string(),
        tier: proto::Tier::from(stats.service.tier).into(),
        server: stats.server.clone(),
        requests: stats.requests,
        requests_per_second: stats.requests_per_second,
        in_flight: saturated(stats.in_flight),
        waiting: saturated(stats.waiting),
        limit: saturated(stats.limit.unwrap_or(0)),
        errors: errors
            .map(|(kind, count)| ((*kind).into(), *count))
            .collect(),
        p50_us: stats.latency.p50_us,
        p90_us: stats.latency.p90_us,
        p99_us: stats.latency.p99_us,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        retries: stats.retries,
        ejections: stats.ejections,
        ejected: stats.ejected,
        ejected_because: stats.ejected_because.into(),
        version: stats.version.to_string(),
        mean_us: stats.mean_latency.map_or(0, |mean| mean.as_micros() as u64),
        endpoints: stats.endpoints.iter().map(endpoint_stats).collect(),
        ..Default::default()
    }
}

fn endpoint_stats(stats: &EndpointStats) -> proto::EndpointStats {
    proto::EndpointStats {
        endpoint: stats.endpoint.to_string(),
        requests: stats.requests,
        errors: stats.errors,
        p50_us: stats.latency.p50_us,
        p90_us: stats.latency.p90_us,
        p99_us: stats.latency.p99_us,
        ..Default::default()
    }
}

fn explanation(explained: Explanation) -> proto::ExplainResponse {
    let refusal = explained.refusal.as_ref();
    let elsewhere = refusal.and_then(|refusal| refusal.elsewhere.as_ref());
    let outcome = match (refusal, elsewhere) {
        (None, _) => "forward",
        (Some(_), None) => "refuse",
        (Some(_), Some(_)) => "redirect",
    };
    proto::ExplainResponse {
        outcome: outcome.into(),
        status: refusal.map_or(0, |refusal| refusal.status()).into(),
        reason: refusal.map_or("", |refusal| refusal.reason.as_str()).into(),
        location: elsewhere.map(|to| to.location.clone()).unwrap_or_default(),
        rules: explained.rules.into_iter().map(rule_verdict).collect(),
        rule: explained.rule,
        caller: explained.caller,
        candidates: explained.candidates.into_iter().map(candidate).collect(),
        chosen: explained.chosen.unwrap_or_default(),
        upstream_path: explained.upstream_path,
        on_failure: explained.on_failure,
        ..Default::default()
    }
}

fn rule_verdict(rule: explain::RuleVerdict) -> proto::RuleVerdict {
    proto::RuleVerdict {
        name: rule.name,
        decides: rule.decides,
        verdict: rule.verdict,
        ..Default::default()
    }
}

fn candidate(candidate: explain::Candidate) -> proto::Candidate {
    proto::Candidate {
        instance: candidate.instance,
        address: candidate.address,
        version: candidate.version,
        excluded: candidate.excluded,
        load: candidate.load,
        in_flight: saturated(candidate.in_flight),
        waiting: saturated(candidate.waiting),
        limit: saturated(candidate.limit.unwrap_or(0)),
        latency_us: candidate.latency_us,
        server: candidate.server,
        zone: candidate.zone,
        nearness: candidate.nearness.into(),
        ..Default::default()
    }
}

fn saturated(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}
