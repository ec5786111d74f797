//! One request and its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Client;
use super::body::{AnswerBody, Deadline, Forwarded, Sent, Upload, UploadEnd};
use super::head::{self, Onward};
use super::pool::{Answered, Failure};
use crate::answer::{Answer, Style};
use crate::balance::{self, Chooser, Tried};
use crate::clock::Moment;
use crate::decide::{self, Route};
use crate::http1::head::check_host;
use crate::instance::{ErrorKind, InFlight};
use crate::refusal::{Reason, Refusal};
use crate::snapshot::Instance;
use crate::worker::Worker;

/// A request on its way: what its attempts share.
struct Exchange<'a> {
    worker: &'a Worker,
    route: Route<'a>,
    parts: Parts,
    target: Vec<u8>,
    authority: Option<String>,
    upload: Rc<Upload>,
    active: Rc<Active>,
    deadline: Option<Instant>,
    style: Style,
}

/// Answers one request.
pub(super) async fn answer(
    worker: &Worker,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (active, style) = (Rc::new(Active::begin(Rc::clone(&client))), style(&request));
    let to_head = request.method() == Method::HEAD;
    match forward(worker, &client, &active, request, style).await {
        Ok(response) => response,
        Err(refusal) => {
            worker
                .snapshot()
                .totals()
                .refused(worker.index, refusal.reason);
            own_answer(&refusal, style, to_head)
        }
    }
}

async fn forward(
    worker: &Worker,
    client: &Client,
    active: &Rc<Active>,
    request: Request<Incoming>,
    style: Style,
) -> Result<Response<AnswerBody>, Refusal> {
    let snapshot = worker.snapshot();
    let (mut parts, body) = request.into_parts();
    let (target, authority) = (target(&parts), authority(&parts)?);
    let token = head::token(&parts.headers)?;
    let who = client
        .identities
        .borrow_mut()
        .resolve(&worker.key, token)?
        .clone();
    let asked = decide::Request {
        listener: client.listener,
        caller: &who.caller,
        method: parts.method.as_str().as_bytes(),
        target: &target,
        server: None,
        to: None,
    };
    let route = decide::decide(&snapshot, &asked)?;
    let timeout = head::timeout(&parts.headers)?;
    let onward = Onward {
        caller: &who.text,
        keeps_token: route.forwards_token(),
        client: client.address.ip(),
        authority: authority.as_deref(),
    };
    head::prepare(&mut parts.headers, &onward);
    let exchange = Exchange {
        worker,
        route,
        parts,
        target,
        authority,
        upload: Upload::new(body, active),
        active: Rc::clone(active),
        deadline: timeout.map(|timeout| Instant::now() + timeout),
        style,
    };
    exchange.run().await
}

impl Exchange<'_> {
    /// Tries instances until one answers or no more may be tried.
    async fn run(&self) -> Result<Response<AnswerBody>, Refusal> {
        let budget = self.route.service.live.budget(self.worker.index);
        budget.request(Moment::now());
        let mut tried = Tried::default();
        loop {
            // While an attempt failed, other instances may have come.
            let snapshot = self.worker.snapshot();
            let route = self.route.renewed(&snapshot).unwrap_or(self.route);
            let instance = self.choose(&route, &tried)?;
            let failure = match self.attempt(&route, instance, &tried).await? {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            tried.add(instance);
            let again = self.may_repeat(&failure) && !tried.is_full();
            if !again || !budget.take_retry(Moment::now()) {
                return Err(self.failed(instance, &failure));
            }
        }
    }

    fn choose<'s>(&self, route: &Route<'s>, tried: &Tried) -> Result<&'s Arc<Instance>, Refusal> {
        let chooser = Chooser {
            worker: self.worker.index,
            now: Moment::now(),
        };
        balance::choose(route, tried, chooser, &mut self.worker.rng())
    }

    /// The outer error ends the exchange; the inner one may let another instance try.
    async fn attempt(
        &self,
        route: &Route<'_>,
        instance: &Instance,
        tried: &Tried,
    ) -> Result<Result<Response<AnswerBody>, Failure>, Refusal> {
        let (live, endpoint) = (Arc::clone(&instance.live), route.endpoint.id);
        let sent: Sent = Rc::new(InFlight::begin(
            live,
            self.worker.index,
            endpoint,
            Moment::now(),
        ));
        if !tried.is_empty() {
            sent.is_retry();
        }
        let (cut, seen) = route.split(&self.target, instance);
        let request = self.request(instance, &sent, cut, seen)?;
        let answer = self.worker.http2.pool.send(
            &instance.live,
            instance.info.http2,
            request,
            &self.worker.limits,
        );
        let until = self
            .deadline
            .unwrap_or_else(|| Instant::now() + self.longest_wait());
        match tokio::time::timeout_at(until, answer).await {
            Err(_) => {
                sent.failed(ErrorKind::Timeout, Moment::now());
                Err(too_late())
            }
            Ok(Err(failure)) => {
                sent.failed(failure.kind, Moment::now());
                Ok(Err(failure))
            }
            Ok(Ok(answered)) => {
                let status = answered.response.status().as_u16();
                sent.answered(status, Moment::now());
                self.upload.forget();
                Ok(Ok(self.forwarded(answered, sent, cut)))
            }
        }
    }

    fn request(
        &self,
        instance: &Instance,
        sent: &Sent,
        cut: &[u8],
        seen: &[u8],
    ) -> Result<Request<super::body::Attempt>, Refusal> {
        let left = self
            .deadline
            .map(|deadline| deadline.duration_since(Instant::now()));
        let mut headers = self.parts.headers.clone();
        head::finish(&mut headers, cut, left);
        let own_authority = instance.live.address().to_string();
        let authority = self.authority.as_deref().unwrap_or(&own_authority);
        let uri = head::address(&mut headers, authority, seen, instance.info.http2);
        let uri = uri.ok_or_else(|| {
            let message = "the request's host or path is not one of HTTP";
            Refusal::new(Reason::BadRequest, message)
        })?;
        let mut request = Request::new(self.upload.attempt(sent));
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn forwarded(&self, answered: Answered, sent: Sent, cut: &[u8]) -> Response<AnswerBody> {
        let (mut parts, incoming) = answered.response.into_parts();
        head::answer(parts.status, &mut parts.headers, cut);
        parts.version = http::Version::HTTP_2;
        let body = Forwarded {
            incoming,
            sent,
            _upload: UploadEnd::of(&self.upload),
            _stream: answered.stream,
            deadline: self.deadline.map(Deadline::at),
            style: self.style,
            active: Rc::clone(&self.active),
        };
        Response::from_parts(parts, AnswerBody::Forwarded(body))
    }

    /// For a caller that named no deadline. A stream may be silent for long before its first
    /// message.
    fn longest_wait(&self) -> Duration {
        match self.style {
            Style::Plain | Style::Connect => self.worker.limits.answer,
            Style::Grpc(_) | Style::ConnectStream(_) => self.worker.limits.stream_idle,
        }
    }

    fn may_repeat(&self, failure: &Failure) -> bool {
        self.upload.is_replayable() && (failure.unsent || self.route.repeatable)
    }

    fn failed(&self, instance: &Instance, failure: &Failure) -> Refusal {
        let (id, service) = (&instance.info.id, &self.route.service.id);
        let message = match failure.kind {
            ErrorKind::Connect => format!("{id} of {service} takes no connection"),
            ErrorKind::Protocol => format!("{id} of {service} answered something that is not HTTP"),
            ErrorKind::Local => "the router has no file descriptor left".into(),
            _ => format!("{id} of {service} broke off before it answered"),
        };
        let reason = match failure.kind {
            ErrorKind::Connect => Reason::NoHealthyInstance,
            ErrorKind::Local => Reason::Overloaded,
            _ => Reason::UpstreamFailed,
        };
        Refusal::new(reason, message)
    }
}

pub(super) fn too_late() -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        "the caller's deadline passed before the answer",
    )
}

fn target(parts: &Parts) -> Vec<u8> {
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    target.as_bytes().to_vec()
}

/// The host that is addressed: the pseudo-header, else the header `host`.
fn authority(parts: &Parts) -> Result<Option<String>, Refusal> {
    let host = || parts.headers.get(http::header::HOST)?.to_str().ok();
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let authority = authority.or_else(host);
    if authority.is_some_and(|authority| check_host(authority).is_err()) {
        return Err(Refusal::new(Reason::BadRequest, "the host is malformed"));
    }
    Ok(authority.map(str::to_owned))
}

fn style(request: &Request<Incoming>) -> Style {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let connect = request.headers().contains_key("connect-protocol-version");
    let target = request
        .uri()
        .path_and_query()
        .map_or("", |target| target.as_str());
    Style::of(kind.map(HeaderValue::as_bytes), connect, target.as_bytes())
}

fn own_answer(refusal: &Refusal, style: Style, to_head: bool) -> Response<AnswerBody> {
    let mut answer = Answer::new(refusal, style);
    let length = HeaderValue::from(answer.body.len());
    if to_head {
        answer.body.clear();
    }
    let body = AnswerBody::Own(Full::new(Bytes::from(answer.body)));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, length);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A request of a connection, until its answer has been sent.
#[derive(Debug)]
pub(super) struct Active(Rc<Client>);

impl Active {
    fn begin(client: Rc<Client>) -> Self {
        client.active.set(client.active.get() + 1);
        client.moved.set(true);
        Self(client)
    }

    /// A part of a body went on.
    pub(super) fn moved(&self) {
        self.0.moved.set(true);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
    }
}
