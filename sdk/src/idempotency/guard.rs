//! A request's way through the layer.

use std::convert::Infallible;
use std::task::{self, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use hydrant_contracts::header::IDEMPOTENCY_KEY;
use tower_layer::Layer;
use tower_service::Service;

use super::attempt::Attempt;
use super::claim::{Claim, Found, Wish};
use super::record::{Outcome, Stage};
use super::refusal::{self, Refusal};
use super::{IDEMPOTENCY_REMEMBERED, IDEMPOTENCY_REPLAYED, Idempotency, key};

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What an outcome keeps of the headers.
const KEPT: [HeaderName; 3] = [
    header::LOCATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
];

/// A service behind [`Idempotency`].
#[derive(Clone)]
pub struct Guarded<S> {
    once: Idempotency,
    inner: S,
}

impl<S> Layer<S> for Idempotency {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            once: self.clone(),
            inner,
        }
    }
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Error = Infallible, Response: axum::response::IntoResponse>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready does the work; its copy is for the next request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let once = self.once.clone();
        let run = move |request| {
            let answer = inner.call(request);
            async move { answer.await.into_response() }
        };
        Box::pin(async move { Ok(once.answer(request, run).await) })
    }
}

impl Idempotency {
    async fn answer<Run, Answer>(self, request: Request, run: Run) -> Response
    where
        Run: FnOnce(Request) -> Answer + Send + 'static,
        Answer: Future<Output = Response> + Send + 'static,
    {
        let is_repeatable = [Method::POST, Method::PATCH].contains(request.method());
        let is_grpc = is_grpc(&request);
        let key = match self.key_of(&request, is_grpc) {
            _ if !is_repeatable => return run(request).await,
            Ok(Some(key)) => key,
            Ok(None) => return run(request).await,
            Err(refusal) => return refusal.into_answer(self.style, is_grpc),
        };
        let style = self.style;
        let answer = self.answer_once(key, request, run).await;
        answer.unwrap_or_else(|refusal| refusal.into_answer(style, is_grpc))
    }

    fn key_of(&self, request: &Request, is_grpc: bool) -> Result<Option<String>, Refusal> {
        let headers = request.headers();
        if is_grpc && (headers.contains_key(IDEMPOTENCY_KEY) || self.settings.is_required) {
            return Err(refusal::grpc_with_key());
        }
        let takes_id = self.settings.takes_correlation_id && !is_grpc;
        let key = match key::idempotency_key(headers)? {
            None if takes_id => key::correlation_id(headers),
            key => key,
        };
        match key {
            None if self.settings.is_required => Err(refusal::no_key(takes_id)),
            key => Ok(key),
        }
    }

    async fn answer_once<Run, Answer>(
        self,
        key: String,
        request: Request,
        run: Run,
    ) -> Result<Response, Refusal>
    where
        Run: FnOnce(Request) -> Answer + Send + 'static,
        Answer: Future<Output = Response> + Send + 'static,
    {
        let room = self.room.clone().try_acquire_owned();
        let room = room.map_err(|_| refusal::overloaded())?;
        let (head, body) = request.into_parts();
        let body = read(body, self.settings.body).await?;
        let mut request = Request::from_parts(head, Body::from(body.clone()));
        let wish = self.wish(&key, &request, &body);
        let found = wish.claim().await;
        let claim = match found.map_err(|error| refusal::no_state(&error))? {
            Found::Claimed(claim) => claim,
            other => return self.told(other),
        };
        let attempt = Attempt::new(&key, claim.epoch(), claim.held());
        request.extensions_mut().insert(attempt.clone());
        // A task of its own: a client that goes away does not stop it in the middle.
        let work = crate::context::spawn(async move {
            let _room = room;
            let limit = self.settings.answer;
            let work = attempt.scope(async move { gathered(run(request).await, limit).await });
            self.finish(claim, work).await
        });
        work.await.unwrap_or_else(|_| Err(refusal::panicked()))
    }

    fn wish(&self, key: &str, request: &Request, body: &[u8]) -> Wish {
        let uri = request.extensions().get::<OriginalUri>();
        let uri = uri.map_or(request.uri(), |original| &original.0);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Wish {
            shelf: self.shelf.clone(),
            clock: self.clock,
            times: self.settings.times,
            place: key::place(key, request.headers(), &self.settings.scopes),
            fingerprint: key::fingerprint(request.method(), path, body),
        }
    }

    /// Runs the handler while the key is held, and stores what it answers.
    async fn finish<Work>(&self, claim: Claim, work: Work) -> Result<Response, Refusal>
    where
        Work: Future<Output = Result<(Response, Bytes), Refusal>> + Send + 'static,
    {
        let work = crate::context::spawn(work);
        let done = tokio::select! {
            done = work => done.unwrap_or_else(|_| Err(refusal::panicked())),
            () = claim.keep() => Err(refusal::panicked()),
        };
        let stage = match &done {
            Ok((answer, body)) => stage_of(answer, body),
            Err(_) => Stage::Open,
        };
        let is_kept = matches!(stage, Stage::Done(_));
        match claim.store(stage).await {
            Ok(None) => done.map(|(answer, _)| self.marked(answer, is_kept)),
            Ok(Some(found)) => self.told(found),
            // It was no outcome that anybody counts on.
            Err(_) if !is_kept => done.map(|(answer, _)| answer),
            Err(error) => Err(refusal::not_stored(&error)),
        }
    }

    fn told(&self, found: Found) -> Result<Response, Refusal> {
        match found {
            Found::Done(outcome) => Ok(self.replayed(outcome)),
            Found::Running(lease) => Err(refusal::in_progress(lease)),
            Found::Reused => Err(refusal::reused()),
            Found::Claimed(_) => Err(refusal::overloaded()),
        }
    }

    fn replayed(&self, outcome: Outcome) -> Response {
        let mut answer = Response::new(Body::from(outcome.body));
        *answer.status_mut() = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::OK);
        for (name, value) in outcome.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value.parse()) {
                answer.headers_mut().insert(name, value);
            }
        }
        let yes = HeaderValue::from_static("true");
        answer.headers_mut().insert(IDEMPOTENCY_REPLAYED, yes);
        self.marked(answer, true)
    }

    fn marked(&self, mut answer: Response, is_kept: bool) -> Response {
        let seconds = self.settings.times.remembered.as_secs();
        if let Ok(seconds) = HeaderValue::try_from(seconds.to_string())
            && is_kept
        {
            answer.headers_mut().insert(IDEMPOTENCY_REMEMBERED, seconds);
        }
        answer
    }
}

/// What is remembered of an answer.
fn stage_of(answer: &Response, body: &Bytes) -> Stage {
    let status = answer.status();
    if status.is_server_error() {
        return Stage::Open;
    }
    if status.is_client_error() {
        return Stage::Free;
    }
    let kept = KEPT.iter().filter_map(|name| {
        let value = answer.headers().get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    Stage::Done(Outcome {
        status: status.as_u16(),
        headers: kept.collect(),
        body: body.clone(),
    })
}

/// The answer with its whole body.
async fn gathered(answer: Response, limit: usize) -> Result<(Response, Bytes), Refusal> {
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, limit).await;
    let body = body.map_err(|_| refusal::answer_too_large(limit))?;
    Ok((Response::from_parts(head, Body::from(body.clone())), body))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let gather = async {
        let mut stream = body.into_data_stream();
        let mut whole = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| refusal::broken_off())?;
            if whole.len() + chunk.len() > limit {
                return Err(refusal::too_large(limit));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(whole))
    };
    let read = tokio::time::timeout(BODY_TIME, gather).await;
    read.unwrap_or_else(|_| Err(refusal::too_slow()))
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
