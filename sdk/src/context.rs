use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use hydrant_contracts::{CorrelationId, Timeout, TraceParent, header};
use hydrant_runtime::Client;
use tokio::task::JoinHandle;
use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: Context;
}

/// What travels with a piece of work: the trace, the correlation id, the deadline, who asked, and for
/// which client.
///
/// A handler runs inside its request's context. Calls that it makes forward it, and its log lines
/// carry it. A task does not inherit it by itself: start it with [`spawn`].
#[derive(Clone, Debug)]
pub struct Context {
    /// The W3C trace that the work belongs to.
    pub trace: TraceParent,
    /// Names the work through all its hops and logs.
    pub correlation_id: CorrelationId,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Who asked, as the router proved it: `tier/service`, `operator` or `outside`.
    pub caller: Option<String>,
    /// What the client says of itself, as its store, its user and its session. It is a claim, for logs: it
    /// proves nothing.
    pub client: Client,
}

impl Context {
    /// A context of one's own, for work that nobody asked for.
    pub fn new() -> Self {
        Self {
            trace: TraceParent::generate(),
            correlation_id: CorrelationId::generate(),
            deadline: None,
            caller: None,
            client: Client::default(),
        }
    }

    /// The context in which this runs.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Reads the context of a request; what is missing or malformed is made anew.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let bytes = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            trace: bytes(header::TRACEPARENT)
                .and_then(TraceParent::parse)
                .unwrap_or_else(TraceParent::generate),
            correlation_id: text(header::CORRELATION_ID)
                .and_then(|id| id.parse().ok())
                .unwrap_or_else(CorrelationId::generate),
            deadline: timeout(headers).map(|timeout| Instant::now() + timeout.duration()),
            caller: text(header::CALLER).map(str::to_owned),
            client: Client::read(bytes),
        }
    }

    /// How long the caller still waits; `None` when it did not say.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Runs work in this context; `tokio::spawn(context.scope(work))` takes it to a new task.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        use tracing::Instrument as _;
        let span = self.span();
        CURRENT.scope(self, work).instrument(span).await
    }

    /// The span whose fields stand on every log line of the work.
    fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "request",
            trace_id = %self.trace.trace_id(),
            correlation_id = %self.correlation_id,
            caller = self.caller,
            hydrant.client = (!self.client.is_empty()).then(|| tracing::field::display(&self.client)),
        )
    }

    /// Puts the context on a request that goes on to another service. A deadline that the request
    /// already has is only made shorter.
    pub fn forward(&self, headers: &mut HeaderMap) {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        if let Some(trace) = value(&self.trace.child().to_string()) {
            headers.entry(header::TRACEPARENT).or_insert(trace);
        }
        if let Some(id) = value(self.correlation_id.as_str()) {
            headers.entry(header::CORRELATION_ID).or_insert(id);
        }
        for (name, text) in self.client.headers() {
            if let Some(value) = value(text) {
                headers.entry(name).or_insert(value);
            }
        }
        if let Some(left) = self.time_left() {
            let shortest = timeout(headers).map_or(left, |own| own.duration().min(left));
            write_timeout(headers, Timeout::new(shortest));
        }
    }
}

/// Starts a task that works on behalf of whoever this task works for: within its [`Context`], and within
/// its span, so that its lines tell so.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    use tracing::Instrument as _;
    let work = work.in_current_span();
    match Context::current() {
        Some(context) => tokio::spawn(CURRENT.scope(context, work)),
        None => tokio::spawn(work),
    }
}

/// The same for work that blocks, or that computes for long.
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (span, context) = (tracing::Span::current(), Context::current());
    tokio::task::spawn_blocking(move || {
        span.in_scope(|| match context {
            Some(context) => CURRENT.sync_scope(context, work),
            None => work(),
        })
    })
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// The shortest of the deadlines that the headers name.
fn timeout(headers: &HeaderMap) -> Option<Timeout> {
    let read = |name, parse: fn(&[u8]) -> Option<Timeout>| {
        headers.get(name).and_then(|value| parse(value.as_bytes()))
    };
    [
        read(header::CONNECT_TIMEOUT, Timeout::from_millis),
        read(header::GRPC_TIMEOUT, Timeout::from_grpc),
        read(header::TIMEOUT, Timeout::from_millis),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// Writes the deadline in the notation of the request's protocol.
fn write_timeout(headers: &mut HeaderMap, timeout: Timeout) {
    let is_grpc = headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let (name, text) = if is_grpc {
        (header::GRPC_TIMEOUT, timeout.to_grpc())
    } else if headers.contains_key("connect-protocol-version") {
        (header::CONNECT_TIMEOUT, timeout.to_millis().to_string())
    } else {
        (header::TIMEOUT, timeout.to_millis().to_string())
    };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[tokio::test(start_paused = true)]
    async fn a_context_goes_on_as_it_came() {
        let incoming = headers(&[
            ("traceparent", TRACE),
            ("correlation-id", "order-7"),
            ("connect-timeout-ms", "900"),
            ("hydrant-caller", "api/shop"),
        ]);
        let context = Context::from_headers(&incoming);
        assert_eq!(context.caller.as_deref(), Some("api/shop"));
        tokio::time::advance(Duration::from_millis(300)).await;
        let mut outgoing = headers(&[("connect-protocol-version", "1")]);
        context.forward(&mut outgoing);
        assert_eq!(outgoing["correlation-id"], "order-7");
        assert_eq!(outgoing["connect-timeout-ms"], "600");
        let trace = TraceParent::parse(outgoing["traceparent"].as_bytes()).unwrap();
        assert_eq!(trace.trace_id(), context.trace.trace_id());
        assert_ne!(trace, context.trace, "a hop has a span of its own");
        assert!(
            !outgoing.contains_key("hydrant-caller"),
            "the router says who calls"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_only_becomes_shorter() {
        let context = Context::from_headers(&headers(&[("grpc-timeout", "2S")]));
        let mut shorter = headers(&[
            ("connect-protocol-version", "1"),
            ("connect-timeout-ms", "50"),
        ]);
        context.forward(&mut shorter);
        assert_eq!(shorter["connect-timeout-ms"], "50");
        let mut grpc = headers(&[
            ("content-type", "application/grpc+proto"),
            ("grpc-timeout", "1H"),
        ]);
        context.forward(&mut grpc);
        assert_eq!(grpc["grpc-timeout"], "2000m");
        let mut plain = HeaderMap::new();
        context.forward(&mut plain);
        assert_eq!(plain["hydrant-timeout-ms"], "2000");
    }

    #[tokio::test]
    async fn work_sees_its_context_and_nobody_elses() {
        assert!(Context::current().is_none());
        let context = Context::new();
        let id = context.correlation_id.clone();
        let seen = context.scope(async { Context::current() }).await;
        assert_eq!(seen.unwrap().correlation_id, id);
        assert!(Context::current().is_none());
    }

    #[tokio::test]
    async fn the_client_goes_on_with_the_work_and_its_tasks() {
        let incoming = headers(&[
            ("x-store-id", "0017"),
            ("x-user-id", "bob@example.com"),
            ("x-session-id", ""),
        ]);
        let context = Context::from_headers(&incoming);
        let work = async {
            let task = spawn(async { Context::current().unwrap().client });
            let blocking = spawn_blocking(|| Context::current().unwrap().client);
            (task.await.unwrap(), blocking.await.unwrap())
        };
        let (of_task, of_blocking) = context.clone().scope(work).await;
        assert_eq!((&of_task, &of_blocking), (&context.client, &context.client));
        let mut outgoing = headers(&[("x-store-id", "of its own")]);
        context.forward(&mut outgoing);
        assert_eq!(outgoing["x-store-id"], "of its own");
        assert_eq!(outgoing["x-user-id"], "~5ff860bf1190596c");
        assert!(!outgoing.contains_key("x-session-id"));
        let next = Context::from_headers(&outgoing).client;
        assert_eq!(
            next.get("user_id"),
            context.client.get("user_id"),
            "it stays the same"
        );
        assert!(spawn(async { Context::current() }).await.unwrap().is_none());
    }

    #[test]
    fn broken_headers_count_as_missing() {
        let broken = headers(&[
            ("traceparent", "nonsense"),
            ("correlation-id", "a b"),
            ("connect-timeout-ms", "soon"),
        ]);
        let context = Context::from_headers(&broken);
        assert_ne!(context.correlation_id.as_str(), "a b");
        assert!(context.deadline.is_none());
    }
}
