use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use buffa::Message;
use connectrpc::{
    ConnectError, Dispatcher as _, IdempotencyLevel, JsonDeserialize, JsonSerialize, Response,
    ServiceRegister, Spec,
};
use hydrant_contracts::{
    Code, Error, Instance, InstanceId, InstanceState, Method, PathPrefix, RepeatablePath,
    ServiceId, Tier, Version,
};
use hydrant_runtime::Clock;

use crate::client::Hydrant;
use crate::idempotency::Idempotency;
use crate::server;

/// How long a service finishes what it has begun, when it does not say.
const STOP: Duration = Duration::from_secs(10);

/// A service as its author declares it: its name and version, and what it answers.
///
/// ```text
/// Service::new(Tier::Service, "greeter", "1.0.0")?
///     .endpoint(GREETER_GREET_SPEC, greet)
///     .run()
///     .await
/// ```
pub struct Service {
    id: ServiceId,
    version: Version,
    methods: connectrpc::Router,
    http: Option<axum::Router>,
    once: HashMap<String, Idempotency>,
    repeatable_paths: Vec<RepeatablePath>,
    work: Vec<Work>,
    stop_within: Duration,
    mistake: Option<Error>,
}

pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

impl Service {
    /// A service that answers nothing yet.
    ///
    /// # Errors
    ///
    /// If the name is not a DNS label, or the version not a semantic one.
    pub fn new(tier: Tier, name: &str, version: &str) -> Result<Self, Error> {
        Ok(Self {
            id: ServiceId::new(tier, name.parse()?),
            version: version.parse()?,
            methods: connectrpc::Router::new(),
            http: None,
            once: HashMap::new(),
            repeatable_paths: Vec::new(),
            work: Vec::new(),
            stop_within: STOP,
            mistake: None,
        })
    }

    /// Answers one method with an async function from one message to one message.
    ///
    /// `method` is the constant that is generated for it, as `GREETER_GREET_SPEC`; it also says
    /// whether the method has the option `NO_SIDE_EFFECTS` or `IDEMPOTENT`, which makes it safe to
    /// repeat.
    #[must_use]
    pub fn endpoint<Req, Res, E, F, Answer>(mut self, method: Spec, handler: F) -> Self
    where
        F: Fn(Req) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Res, E>> + Send + 'static,
        Req: Message + JsonDeserialize + Send + 'static,
        Res: Message + JsonSerialize + Send + 'static,
        E: Into<ConnectError>,
    {
        let handler = connectrpc::handler_fn(move |_, request| {
            let answer = handler(request);
            async move { answer.await.map(Response::new).map_err(Into::into) }
        });
        let (service, name) = (method.service(), method.method());
        let router = connectrpc::Router::new();
        let router = if method.idempotency_level == IdempotencyLevel::NoSideEffects {
            router.route_idempotent(service, name, handler)
        } else {
            router.route(service, name, handler)
        };
        self.add(router.with_spec(method));
        self
    }

    /// Answers all methods of a generated service trait.
    #[must_use]
    pub fn service<S, Marker>(mut self, implementation: Arc<S>) -> Self
    where
        Arc<S>: ServiceRegister<Marker>,
    {
        self.add(connectrpc::Router::new().add_service(implementation));
        self
    }

    /// Answers plain HTTP at `/{tier}/{service}/…`. The routes are written without that prefix, as
    /// `/v1/init`.
    #[must_use]
    pub fn http(mut self, routes: axum::Router) -> Self {
        self.http = Some(match self.http.take() {
            Some(known) => known.merge(routes),
            None => routes,
        });
        self
    }

    /// Says that every request of plain HTTP at this path is safe to repeat, whatever its method: when
    /// an instance dies with one, the router sends it to another, as it does with GET. Written as
    /// routes are; a path that ends in `/` stands for everything below it.
    ///
    /// It holds for what counts once however often it comes, too.
    #[must_use]
    pub fn safe_to_repeat(mut self, path: &str) -> Self {
        match RepeatablePath::new(&self.id, &format!("/{}{path}", self.id)) {
            Ok(path) => self.repeatable_paths.push(path),
            Err(wrong) => self.mistake = Some(wrong.into()),
        }
        self
    }

    /// Makes a method answer a repeated request with the outcome of the first one: see [`Idempotency`]. For
    /// Connect over POST; a gRPC call with a key is refused, because its answers are not stored.
    #[must_use]
    pub fn once(mut self, method: Spec, once: Idempotency) -> Self {
        let path = method.procedure.to_owned();
        self.once.insert(path, once.for_methods());
        self
    }

    /// Does other work as long as the service runs. It is dropped when the service stops, and the
    /// service stops when it fails.
    #[must_use]
    pub fn alongside(
        mut self,
        work: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Self {
        self.work.push(Box::pin(work));
        self
    }

    /// How long to finish what was begun when the service stops; 10 seconds unless told.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.stop_within = limit;
        self
    }

    /// Runs the service on the node that the environment names, and begins to log.
    ///
    /// It registers, answers, and on SIGTERM, Ctrl-C or the node's wish drains, finishes what it
    /// has begun and returns. While the node is away it goes on answering and registers again
    /// when the node is back; after `HYDRANT_GRACE` without a node it returns an error.
    ///
    /// # Errors
    ///
    /// If the environment is broken, the port is taken, the node refuses the service, its work
    /// fails, or the node stays away.
    pub async fn run(self) -> Result<(), Error> {
        hydrant_runtime::telemetry::start();
        self.run_on(Hydrant::from_env()?).await
    }

    /// Runs the service on a node of one's own choice; else as [`Service::run`].
    ///
    /// # Errors
    ///
    /// As [`Service::run`].
    pub async fn run_on(mut self, hydrant: Hydrant) -> Result<(), Error> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        self.check_once()?;
        let listener = server::bind(hydrant.config().port).await?;
        let address = listener.local_addr().map_err(server::not_bound)?;
        let instance = self.instance(&hydrant, address)?;
        let routes = server::routes(self.methods, self.http, &self.once);
        let plan = server::Plan {
            hydrant,
            instance,
            work: self.work,
            stop_within: self.stop_within,
        };
        plan.run(listener, routes).await
    }

    fn add(&mut self, router: connectrpc::Router) {
        if let Err(conflict) = self.methods.try_merge_in_place(router) {
            let message = format!(
                "the service {} answers twice: {}",
                self.id,
                conflict.conflicting_paths().join(", ")
            );
            self.mistake = Some(Error::new(
                Code::FailedPrecondition,
                "declared_twice",
                message,
            ));
        }
    }

    /// What is guarded is there: a guard of nothing would be a promise that nobody keeps.
    fn check_once(&self) -> Result<(), Error> {
        let is_there = |path: &&String| self.methods.lookup(path.trim_start_matches('/')).is_some();
        let Some(missing) = self.once.keys().find(|path| !is_there(path)) else {
            return Ok(());
        };
        let message = format!("the service {} does not answer {missing}", self.id);
        Err(
            Error::new(Code::FailedPrecondition, "nothing_to_guard", message)
                .mend("declare the method with `endpoint` or `service`, beside `once`"),
        )
    }

    fn instance(&self, hydrant: &Hydrant, address: SocketAddr) -> Result<Instance, Error> {
        let chosen = hydrant.config().instance.clone();
        Ok(Instance {
            id: chosen.unwrap_or_else(|| InstanceId::generate(&self.id.name)),
            service: self.id.clone(),
            version: self.version.clone(),
            server: String::new(),
            address,
            http2: true,
            methods: declared_methods(&self.methods)?,
            prefixes: self.prefixes()?,
            state: InstanceState::Ready,
            detail: String::new(),
            since_unix_ms: Clock::system().unix_ms(),
            pid: std::process::id(),
            repeatable_paths: self.repeatable_paths.clone(),
        })
    }

    fn prefixes(&self) -> Result<Vec<PathPrefix>, Error> {
        if self.http.is_none() {
            return Ok(Vec::new());
        }
        let all = PathPrefix::new(&self.id, &format!("/{}/", self.id), true)?;
        Ok(vec![all])
    }
}

fn declared_methods(router: &connectrpc::Router) -> Result<Vec<Method>, Error> {
    let mut methods = router
        .methods()
        .map(|path| {
            let spec = router.lookup(path).and_then(|method| method.spec);
            let level = spec.map_or(IdempotencyLevel::Unknown, |spec| spec.idempotency_level);
            Ok(Method::declared(path.parse()?, level))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    methods.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(methods)
}
