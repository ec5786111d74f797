use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use buffa::Message;
use connectrpc::client::{CallOptions, ClientConfig, call_server_stream, call_unary};
use connectrpc::{HasMessageView, JsonDeserialize, JsonSerialize, Spec, StreamType};
use futures::stream::BoxStream;
use http::Uri;
use hydrant_contracts::{Code, Endpoint, Error, NODE_SERVICE, ServiceId, Tier};

use crate::clock::SteadyClock;
use crate::config::Config;
use crate::context::Context;
use crate::transport::Transport;

/// How long a call waits when no caller has said how long it waits.
const CALL: Duration = Duration::from_secs(30);
/// How many different endpoints one process may call by their text.
const MAX_PROCEDURES: usize = 4096;

/// The way from a process to its node, and through it to every other service. Cheap to clone.
#[derive(Clone)]
pub struct Hydrant(Arc<Inner>);

struct Inner {
    config: Config,
    transport: Transport,
    node: ClientConfig,
    clock: SteadyClock,
    procedures: Mutex<HashMap<String, &'static str>>,
}

impl Hydrant {
    /// The node that the environment names: see [`Config::from_env`].
    ///
    /// # Errors
    ///
    /// If the environment names none, or is broken.
    pub fn from_env() -> Result<Self, Error> {
        Config::from_env().and_then(Self::new)
    }

    /// A node of one's own choice. Does not connect yet.
    ///
    /// # Errors
    ///
    /// If the URL of the configuration has no host.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_clock(config, SteadyClock::system())
    }

    pub(crate) fn with_clock(config: Config, clock: SteadyClock) -> Result<Self, Error> {
        let node = ServiceId::new(Tier::Service, NODE_SERVICE.parse()?);
        let node = ClientConfig::new(base_of(&config.url, &node)?);
        Ok(Self(Arc::new(Inner {
            transport: Transport::new(config.token.clone()),
            node,
            config,
            clock,
            procedures: Mutex::default(),
        })))
    }

    /// What this process knows of its node.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// A generated client of another service, as
    /// `hydrant.client("service/customers", CustomersClient::new)`. Its calls have the context and
    /// the deadline of the handler that makes them, and none of their own.
    ///
    /// # Errors
    ///
    /// If `service` is not written `TIER/NAME`.
    pub fn client<C>(
        &self,
        service: &str,
        make: impl FnOnce(Transport, ClientConfig) -> C,
    ) -> Result<C, Error> {
        let base = base_of(&self.0.config.url, &service.parse()?)?;
        Ok(make(self.0.transport.clone(), ClientConfig::new(base)))
    }

    /// Calls an endpoint, as `/service/customers/customers.v1.Customers/Create`, and waits for its
    /// answer, at most 30 seconds. A call that is made inside a handler has the handler's context,
    /// and its deadline when that is nearer.
    ///
    /// # Errors
    ///
    /// What the endpoint, the router, or the way there refused.
    pub async fn call<Req, Res>(&self, endpoint: &str, request: Req) -> Result<Res, Error>
    where
        Req: Message + JsonSerialize,
        Res: Message + HasMessageView + JsonDeserialize,
        Res::View<'static>: buffa::view::MessageView<'static, Owned = Res> + Send,
    {
        let endpoint: Endpoint = endpoint.parse()?;
        let config = ClientConfig::new(base_of(&self.0.config.url, &endpoint.service)?);
        let spec = Spec::client(self.procedure(&endpoint)?, StreamType::Unary);
        unary(&self.0.transport, &config, spec, request, Some(CALL)).await
    }

    /// Begins a call and goes on at once; await what it returns to get the answer. Dropping that
    /// gives the call up.
    pub fn call_async<Req, Res>(&self, endpoint: &str, request: Req) -> Call<Res>
    where
        Req: Message + JsonSerialize + 'static,
        Res: Message + HasMessageView + JsonDeserialize + Send + 'static,
        Res::View<'static>: buffa::view::MessageView<'static, Owned = Res> + Send,
    {
        let (hydrant, endpoint) = (self.clone(), endpoint.to_owned());
        let call = async move { hydrant.call(&endpoint, request).await };
        Call(match Context::current() {
            Some(context) => tokio::spawn(context.scope(call)),
            None => tokio::spawn(call),
        })
    }

    pub(crate) fn clock(&self) -> SteadyClock {
        self.0.clock
    }

    /// Calls the node itself, outside of any request's context.
    pub(crate) async fn node<Req, Res>(
        &self,
        spec: Spec,
        request: Req,
        limit: Option<Duration>,
    ) -> Result<Res, Error>
    where
        Req: Message + JsonSerialize,
        Res: Message + HasMessageView + JsonDeserialize,
        Res::View<'static>: buffa::view::MessageView<'static, Owned = Res> + Send,
    {
        let transport = self.0.transport.without_context();
        unary(&transport, &self.0.node, as_client(spec), request, limit).await
    }

    /// Calls the node itself in the context of the current request.
    pub(crate) async fn node_in_context<Req, Res>(
        &self,
        spec: Spec,
        request: Req,
    ) -> Result<Res, Error>
    where
        Req: Message + JsonSerialize,
        Res: Message + HasMessageView + JsonDeserialize,
        Res::View<'static>: buffa::view::MessageView<'static, Owned = Res> + Send,
    {
        unary(
            &self.0.transport,
            &self.0.node,
            as_client(spec),
            request,
            None,
        )
        .await
    }

    /// Opens a stream of the node. It ends when the node ends it, or with an error; dropping it
    /// tells the node.
    pub(crate) async fn node_stream<Req, Event>(
        &self,
        spec: Spec,
        request: Req,
    ) -> Result<Events<Event>, Error>
    where
        Req: Message + JsonSerialize,
        Event: Message + HasMessageView + JsonDeserialize + Send + 'static,
        Event::View<'static>: buffa::view::MessageView<'static, Owned = Event> + Send,
    {
        let transport = self.0.transport.without_context();
        let options = CallOptions::default();
        let stream: connectrpc::client::ServerStream<_, Event::View<'static>> =
            call_server_stream(&transport, &self.0.node, as_client(spec), request, options)
                .await
                .map_err(|error| Error::from_connect(&error))?;
        let events = futures::stream::unfold(stream, |mut stream| async move {
            let event = match stream.message::<Event>().await {
                Ok(event) => Ok(event?.to_owned_message()),
                Err(error) => Err(Error::from_connect(&error)),
            };
            Some((event, stream))
        });
        Ok(Box::pin(events))
    }

    /// The text of a procedure for as long as the process lives: the protocol's runtime wants it
    /// so. Each is kept once, and their number is bounded.
    fn procedure(&self, endpoint: &Endpoint) -> Result<&'static str, Error> {
        let method = endpoint.method().ok_or_else(|| no_method(endpoint))?;
        let mut known = self
            .0
            .procedures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(procedure) = known.get(method.as_str()) {
            return Ok(procedure);
        }
        if known.len() >= MAX_PROCEDURES {
            let message = format!("this process has called {MAX_PROCEDURES} different methods");
            return Err(Error::new(
                Code::ResourceExhausted,
                "too_many_methods",
                message,
            ));
        }
        let procedure: &'static str = Box::leak(format!("/{method}").into_boxed_str());
        known.insert(method.to_string(), procedure);
        Ok(procedure)
    }
}

/// What a stream of the node tells.
pub(crate) type Events<Event> = BoxStream<'static, Result<Event, Error>>;

/// A call that is under way.
#[must_use = "dropping a call gives it up"]
pub struct Call<Res>(tokio::task::JoinHandle<Result<Res, Error>>);

impl<Res> Future for Call<Res> {
    type Output = Result<Res, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(ended.unwrap_or_else(|_| {
            Err(Error::new(
                Code::Internal,
                "call_failed",
                "the task of the call did not end well",
            ))
        }))
    }
}

impl<Res> Drop for Call<Res> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn unary<Req, Res>(
    transport: &Transport,
    config: &ClientConfig,
    spec: Spec,
    request: Req,
    limit: Option<Duration>,
) -> Result<Res, Error>
where
    Req: Message + JsonSerialize,
    Res: Message + HasMessageView + JsonDeserialize,
    Res::View<'static>: buffa::view::MessageView<'static, Owned = Res> + Send,
{
    let options = match limit {
        Some(limit) => CallOptions::default().with_timeout(limit),
        None => CallOptions::default(),
    };
    call_unary::<_, _, Res::View<'static>>(transport, config, spec, request, options)
        .await
        .map(|response| response.into_owned())
        .map_err(|error| Error::from_connect(&error))
}

fn as_client(spec: Spec) -> Spec {
    spec.with_origin(connectrpc::SpecOrigin::Client)
}

/// The URL below which a service answers.
fn base_of(url: &Uri, service: &ServiceId) -> Result<Uri, Error> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("http://{authority}/{service}")
        .parse()
        .map_err(|error| {
            let message = format!("`{url}` can't be the address of a node: {error}");
            Error::new(Code::InvalidArgument, "bad_environment", message)
        })
}

/// Whether the node refuses who asks, or what: asking again would not help.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(
        error.code,
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
    )
}

fn no_method(endpoint: &Endpoint) -> Error {
    let message = format!("`{endpoint}` does not name a method");
    Error::new(Code::InvalidArgument, "invalid_name", message)
        .mend("write /TIER/SERVICE/package.Service/Method")
}
