//! What the services of this server ask of their node: Connect, gRPC and JSON on one port of the
//! loopback, reached through the router's local listener.
//!
//! Every handler goes the same way: who calls, what may they, is it within bounds, ask the port.

#![allow(
    refining_impl_trait,
    reason = "handlers name the messages that they answer with"
)]

mod election;
mod kept;
mod lock;
mod node_service;
mod registry;
mod rules;
mod state;

use std::sync::Arc;
use std::time::Duration;

use connectrpc::{ConnectError, ConnectRpcService, Limits, RequestContext, ServiceStream};
use futures::{Stream, StreamExt as _};
use hydrant_contracts::{Error, Identity, Method, proto};
use hydrant_ports::{Coordination, State};
use hydrant_runtime::{Clock, Shutdown};
use tokio::sync::mpsc;

use crate::health::Health;
use crate::identity::Authority;
use crate::leases::{Leases, millis};
use crate::near_cache::NearCache;
use crate::quota::{Permit, Quota};
use crate::registration::Registrations;
use crate::rules::Rules;
use crate::seats::Seats;
use crate::supervision::Supervision;
use crate::table::Table;
use crate::traffic::Traffic;

/// The largest request: a value of the state and the rest of its message, as JSON.
const MAX_REQUEST: usize = 6 * 1024 * 1024;

/// How long a stream that holds a lease is quiet at most.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// The longest pattern and the longest name of a holder, in bytes.
const MAX_TEXT: usize = 200;

/// The local API, behind the listener of the node.
pub(crate) struct LocalApi {
    pub(crate) authority: Authority,
    pub(crate) leases: Leases,
    pub(crate) watches: Quota,
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) state: Arc<dyn State>,
    pub(crate) near: Arc<NearCache>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) table: Arc<Table>,
    pub(crate) rules: Rules,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) supervision: Arc<dyn Supervision>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Clock,
    pub(crate) server: String,
    pub(crate) shutdown: Shutdown,
}

impl LocalApi {
    /// All methods and pages as one service of axum.
    pub(crate) fn into_router(self) -> axum::Router {
        let pages = crate::health::pages(self.health.clone());
        let api = Arc::new(self);
        let rpc = connectrpc::Router::new();
        let rpc = proto::RegistryExt::register(api.clone(), rpc);
        let rpc = proto::ElectionExt::register(api.clone(), rpc);
        let rpc = proto::LockExt::register(api.clone(), rpc);
        let rpc = proto::StateExt::register(api.clone(), rpc);
        let rpc = proto::KeptExt::register(api.clone(), rpc);
        let rpc = proto::RulesExt::register(api.clone(), rpc);
        let rpc = proto::NodeExt::register(api, rpc);
        let limits = Limits::default()
            .with_max_request_body_size(MAX_REQUEST)
            .with_max_message_size(MAX_REQUEST);
        pages.fallback_service(ConnectRpcService::new(rpc).with_limits(limits))
    }

    fn identify(&self, context: &RequestContext) -> Result<Identity, Error> {
        self.authority.identify(context.headers())
    }

    /// A stream that holds a permit for as long as it lives, and ends with the node.
    fn permitted<M: 'static>(
        &self,
        permit: Permit,
        stream: impl Stream<Item = Result<M, Error>> + Send + 'static,
    ) -> ServiceStream<M> {
        let shutdown = self.shutdown.clone();
        let until_the_end = stream.take_until(async move { shutdown.begun().await });
        Box::pin(until_the_end.map(move |item| {
            let _held = &permit;
            item.map_err(ConnectError::from)
        }))
    }

    fn keep_lease_alive(
        &self,
        context: &RequestContext,
        lease_id: &str,
    ) -> Result<proto::KeepAliveResponse, Error> {
        let who = self.identify(context)?;
        let ttl = self.leases.keep_alive(&who, lease_id)?;
        Ok(proto::KeepAliveResponse {
            ttl_ms: millis(ttl),
            ..Default::default()
        })
    }
}

/// The methods of the local API, as the router routes them.
pub(crate) fn methods() -> Vec<Method> {
    let specs = [
        proto::REGISTRY_REGISTER_INSTANCE_SPEC,
        proto::REGISTRY_KEEP_ALIVE_SPEC,
        proto::REGISTRY_REPORT_SPEC,
        proto::REGISTRY_DRAIN_SPEC,
        proto::REGISTRY_DISCOVER_SPEC,
        proto::REGISTRY_WATCH_SPEC,
        proto::ELECTION_CAMPAIGN_SPEC,
        proto::ELECTION_KEEP_ALIVE_SPEC,
        proto::ELECTION_OBSERVE_SPEC,
        proto::LOCK_ACQUIRE_SPEC,
        proto::LOCK_KEEP_ALIVE_SPEC,
        proto::STATE_GET_SPEC,
        proto::STATE_PUT_SPEC,
        proto::STATE_COMPARE_AND_PUT_SPEC,
        proto::STATE_DELETE_SPEC,
        proto::STATE_LIST_SPEC,
        proto::STATE_WATCH_SPEC,
        proto::KEPT_READ_KEPT_SPEC,
        proto::KEPT_WRITE_KEPT_SPEC,
        proto::RULES_LIST_RULES_SPEC,
        proto::RULES_APPLY_RULES_SPEC,
        proto::RULES_REMOVE_RULES_SPEC,
        proto::RULES_SERVED_RULES_SPEC,
        proto::NODE_HEALTH_SPEC,
        proto::NODE_SERVERS_SPEC,
        proto::NODE_STATS_SPEC,
        proto::NODE_EXPLAIN_SPEC,
        proto::NODE_LOGS_SPEC,
        proto::NODE_TAP_SPEC,
        proto::NODE_SCALE_SPEC,
        proto::NODE_ISSUE_TOKEN_SPEC,
        proto::NODE_MEASURE_SPEC,
    ];
    let method = |spec: &connectrpc::Spec| {
        let path = spec.procedure[1..].parse();
        Method::declared(
            path.expect("a generated path is valid"),
            spec.idempotency_level,
        )
    };
    specs.iter().map(method).collect()
}

/// A pattern, or a name for people, within bounds and without what could forge a line of a log.
fn checked_text<'a>(what: &str, text: &'a str) -> Result<&'a str, Error> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        let message = format!("the {what} has at most {MAX_TEXT} bytes and no control characters");
        return Err(crate::identity::invalid("invalid_text", message));
    }
    Ok(text)
}

pub(crate) fn pattern(text: &str) -> Result<hydrant_contracts::Pattern, Error> {
    let Ok(pattern) = checked_text("pattern", text)?.parse();
    Ok(pattern)
}

/// What a task tells, as the stream of an answer. Dropping the stream closes the channel, which
/// the task sees.
///
/// A lease may be held for days without news, and whatever lies between takes a stream on which
/// nothing moves for dead: so an empty message is sent from time to time.
fn told<T: Send + 'static, M: Default + Send + 'static>(
    events: mpsc::Receiver<Result<T, Error>>,
    to_message: impl Fn(T) -> M + Send + Sync + 'static,
) -> ServiceStream<M> {
    let to_message = Arc::new(to_message);
    Box::pin(futures::stream::unfold(events, move |mut events| {
        let to_message = to_message.clone();
        async move {
            let message = match tokio::time::timeout(SIGN_OF_LIFE, events.recv()).await {
                Ok(event) => event?.map(&*to_message).map_err(ConnectError::from),
                Err(_) => Ok(M::default()),
            };
            Some((message, events))
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_lease_gives_a_sign_of_life() {
        let (events, told_to) = mpsc::channel(1);
        let mut stream = told(told_to, |text: &str| text.to_owned());
        assert_eq!(
            stream.next().await.unwrap().unwrap(),
            "",
            "nothing happened"
        );
        events.send(Ok("news")).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "news");
        drop(events);
        assert!(stream.next().await.is_none());
    }

    #[test]
    fn every_method_is_routed() {
        let methods = methods();
        let has = |path: &str, safe| {
            methods
                .iter()
                .any(|method| method.path.as_str() == path && method.idempotent == safe)
        };
        assert!(has("hydrant.v1.Registry/RegisterInstance", false));
        assert!(has("hydrant.v1.State/Get", true));
        assert_eq!(methods.len(), 32);
    }
}
