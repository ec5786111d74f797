use std::collections::HashMap;
use std::convert::Infallible;
use std::future::IntoFuture as _;
use std::net::Ipv4Addr;
use std::task::{self, Poll};
use std::time::Duration;

use axum::ServiceExt as _;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::ListenerExt as _;
use connectrpc::{ConnectRpcService, Limits};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use hydrant_contracts::{Code, Error, Instance};
use hydrant_runtime::{Shutdown, termination_signal};
use tokio::net::TcpListener;
use tower_layer::Layer as _;
use tower_service::Service;

use crate::client::Hydrant;
use crate::context::Context;
use crate::idempotency::Idempotency;
use crate::registration::Registration;
use crate::service::Work;

/// The largest message that a method takes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A service that is about to run.
pub(crate) struct Plan {
    pub(crate) hydrant: Hydrant,
    pub(crate) instance: Instance,
    pub(crate) work: Vec<Work>,
    pub(crate) stop_within: Duration,
}

impl Plan {
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        routes: axum::Router,
    ) -> Result<(), Error> {
        let stop = Shutdown::new();
        let told = stop.clone();
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let server = axum::serve(listener, InContext(routes).into_make_service())
            .with_graceful_shutdown(async move { told.begun().await })
            .into_future();
        stop.spawn(server);
        tracing::info!(
            service = %self.instance.service,
            version = %self.instance.version,
            instance = %self.instance.id,
            address = %self.instance.address,
            "answering"
        );
        let registration = Registration::start(&self.hydrant, self.instance);
        let grace = self.hydrant.config().grace;
        let ended = until_end(&registration, grace, self.work).await;
        drain(&registration, self.stop_within).await;
        stop.begin();
        if !stop.finished(self.stop_within).await {
            tracing::warn!("stopped with requests unfinished");
        }
        ended
    }
}

/// Waits for a reason to stop; an error when it is not a wish.
async fn until_end(
    registration: &Registration,
    grace: Duration,
    work: Vec<Work>,
) -> Result<(), Error> {
    tokio::select! {
        signal = termination_signal() => {
            let signal = signal.map_err(no_signals)?;
            tracing::info!(signal, "stopping");
            Ok(())
        }
        reason = registration.stop_requested() => {
            tracing::info!(reason, "stopping: the node asks for it");
            Ok(())
        }
        () = registration.abandoned(grace) => Err(abandoned(grace)),
        error = refused(registration) => Err(error),
        error = failed(work) => Err(error),
    }
}

/// Resolves when the node refuses the registration.
async fn refused(registration: &Registration) -> Error {
    match registration.registered().await {
        Err(error) => error,
        Ok(()) => std::future::pending().await,
    }
}

/// Resolves when a piece of work fails; one that ends well is done.
async fn failed(work: Vec<Work>) -> Error {
    let mut work: FuturesUnordered<_> = work.into_iter().collect();
    while let Some(ended) = work.next().await {
        if let Err(error) = ended {
            return error;
        }
    }
    std::future::pending().await
}

async fn drain(registration: &Registration, limit: Duration) {
    match registration.drain(limit).await {
        Ok(0) => {}
        Ok(left) => tracing::warn!(left, "the node still waits for requests"),
        Err(error) => tracing::warn!(%error, "could not drain"),
    }
}

/// Puts methods and plain routes behind one door.
pub(crate) fn routes(
    methods: connectrpc::Router,
    http: Option<axum::Router>,
    once: &HashMap<String, Idempotency>,
) -> axum::Router {
    let paths = methods.methods().map(|path| format!("/{path}"));
    let plain: Vec<String> = paths.filter(|path| !once.contains_key(path)).collect();
    let limits = Limits::default()
        .with_max_request_body_size(MAX_MESSAGE)
        .with_max_message_size(MAX_MESSAGE);
    let methods = ConnectRpcService::new(methods).with_limits(limits);
    let routes = match http {
        None => axum::Router::new().fallback_service(methods.clone()),
        Some(http) => plain.iter().fold(http, |routes, path| {
            routes.route_service(path, methods.clone())
        }),
    };
    once.iter().fold(routes, |routes, (path, once)| {
        routes.route_service(path, once.layer(methods.clone()))
    })
}

/// All that a service answers, each request in its context. It stands around the routes as a whole and not
/// in them, where a layer is copied for each request.
#[derive(Clone)]
struct InContext(axum::Router);

impl Service<Request> for InContext {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let context = Context::from_headers(request.headers());
        Box::pin(context.scope(self.0.call(request)))
    }
}

/// Opens the port at which the service answers; 0 takes any that is free.
pub(crate) async fn bind(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| {
            not_bound(error).mend(format!("see who uses port {port}, or leave PORT out"))
        })
}

pub(crate) fn not_bound(error: std::io::Error) -> Error {
    let message = format!("cannot open a port on the loopback: {error}");
    Error::new(Code::FailedPrecondition, "port_taken", message)
}

fn no_signals(error: std::io::Error) -> Error {
    let message = format!("cannot listen for signals: {error}");
    Error::new(Code::Internal, "no_signals", message)
}

fn abandoned(grace: Duration) -> Error {
    let message = format!("the node was away for {} seconds", grace.as_secs());
    Error::new(Code::Unavailable, "abandoned", message)
        .mend("start it again with `hydrant up`, or set HYDRANT_GRACE higher")
}
