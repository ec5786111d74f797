//! One request and its answer.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Client;
use super::body::{AnswerBody, Deadline, Forwarded, Sent, Upload, UploadEnd};
use super::head::{self, ForUs, Onward};
use super::pool::{Answered, Destination, Failure, speaks_http2};
use crate::answer::{Answer, Style};
use crate::balance::Tried;
use crate::clock::Moment;
use crate::decide::{self, Listener, Route};
use crate::http1::Way;
use crate::http1::head::check_host;
use crate::instance::{ErrorKind, InFlight};
use crate::passing::{self, Passing};
use crate::priority::Priority;
use crate::refusal::{Reason, Refusal, Unsent, Verdict};
use crate::retry::{Plan, Tries};
use crate::rule::{self, Asked};
use crate::service::Instance;
use crate::snapshot::Snapshot;
use crate::upstream::SILENCE;
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
    priority: Priority,
    style: Style,
    token: Option<HeaderValue>,
    /// Somebody listens.
    passing: Option<&'a Rc<Passing>>,
    /// Another node sent it, and chooses the instances.
    for_peer: bool,
}

/// Why the client gets no answer of an attempt.
enum Miss {
    /// By a rule another instance shall answer, and the budget has it.
    Unwanted,
    Failed(Failure),
}

/// Who waits no longer.
enum Late {
    Caller,
    /// This attempt alone.
    Try,
}

/// Answers one request.
pub(super) async fn answer(
    worker: &Worker,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (active, style) = (Rc::new(Active::begin(Rc::clone(&client))), style(&request));
    let to_head = request.method() == Method::HEAD;
    let heard = worker.hear(
        &client.origin,
        request.headers(),
        &mut client.visit.borrow_mut(),
    );
    let passing = worker.passing(|| passing::Asked {
        listener: client.origin.listener,
        client: client.visit.borrow().client(&client.origin).address,
        protocol: "HTTP/2",
        method: request.method().as_str(),
        target: target(request.uri()),
        host: request.uri().authority().map(|host| host.as_str()),
    });
    let forwarded = match heard {
        Ok(()) => forward(worker, &client, &active, request, style, passing.as_ref()).await,
        Err(refusal) => Err(refusal),
    };
    match forwarded {
        Ok(response) => response,
        Err(refusal) => {
            active.answers();
            if let Some(passing) = &passing {
                passing.refused(&refusal);
            }
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
    passing: Option<&Rc<Passing>>,
) -> Result<Response<AnswerBody>, Refusal> {
    let snapshot = worker.snapshot();
    let exchange = begin(worker, &snapshot, client, active, request, style, passing)?;
    exchange.run().await
}

/// Decides on a request. Nothing here waits: another one of the connection may be another client's.
fn begin<'a>(
    worker: &'a Worker,
    snapshot: &'a Snapshot,
    client: &Client,
    active: &Rc<Active>,
    request: Request<Incoming>,
    style: Style,
    passing: Option<&'a Rc<Passing>>,
) -> Result<Exchange<'a>, Refusal> {
    let visit = client.visit.borrow();
    let visitor = visit.client(&client.origin);
    let (mut parts, body) = request.into_parts();
    let (target, authority) = (target(&parts.uri).to_vec(), authority(&parts)?);
    head::check(&parts.headers, authority.as_deref())?;
    worker.check_scheme(
        &visitor,
        client.origin.listener,
        authority.as_deref(),
        std::str::from_utf8(&target).unwrap_or("/"),
    )?;
    let for_us = ForUs::of(&parts.headers)?;
    let bytes = |value: &Option<HeaderValue>| value.as_ref().map(|value| value.as_bytes().to_vec());
    let (server, to) = (bytes(&for_us.server), bytes(&for_us.to));
    let token = for_us.token.as_ref().map(HeaderValue::as_bytes);
    let who = client
        .identities
        .borrow_mut()
        .admit(&worker.key, token, |who| {
            worker.seat(client.origin.listener, who)
        })?
        .clone();
    if let Some(passing) = passing {
        passing.caller(&who.text);
    }
    let asked = decide::Request {
        listener: client.origin.listener,
        caller: &who.caller,
        method: parts.method.as_str().as_bytes(),
        target: &target,
        server: server.as_deref(),
        to: to.as_deref(),
    };
    let mut route = decide::decide(snapshot, &asked)?;
    if let Some(passing) = passing {
        passing.route(&route);
    }
    let priority = for_us.priority.as_ref().map(HeaderValue::as_bytes);
    let priority = Priority::of(priority, client.origin.listener, &who.caller);
    let timeout = head::timeout(&parts.headers)?;
    let mut rewritten = None;
    if route.service.rules.is_some() {
        let asked = Asked {
            host: authority.as_deref(),
            method: parts.method.as_str().as_bytes(),
            target: &target,
            caller: &who.caller,
            address: Some(visitor.address),
            fields: &parts.headers,
            bare: route.bare,
        };
        rewritten = rule::apply(&mut route, &asked, worker)?;
    }
    if let (Some(passing), Some(_)) = (passing, &rewritten) {
        passing.route(&route);
    }
    let rule = route.ruled.map(|ruled| ruled.compiled);
    let timeout = timeout
        .into_iter()
        .chain(rule.and_then(|rule| rule.timeout()))
        .min();
    let onward = Onward {
        caller: &who.text,
        priority,
        from_peer: client.origin.listener == Listener::Peer,
        client: visitor,
        write: worker.proxies.write,
        authority: authority.as_deref(),
    };
    head::prepare(&mut parts.headers, &onward);
    if let Some(passing) = passing {
        passing.context_of(&parts.headers);
    }
    if let Some(changes) = rule.and_then(|rule| rule.request_changes()) {
        head::change(&mut parts.headers, changes);
    }
    Ok(Exchange {
        worker,
        route,
        parts,
        target: rewritten.unwrap_or(target),
        authority,
        upload: Upload::new(body, active),
        active: Rc::clone(active),
        deadline: timeout.map(|timeout| Instant::now() + timeout),
        priority,
        style,
        token: for_us.token,
        passing,
        for_peer: client.origin.listener == Listener::Peer,
    })
}

impl Exchange<'_> {
    /// Tries instances until one answers or no more may be tried.
    async fn run(&self) -> Result<Response<AnswerBody>, Refusal> {
        let budget = self.route.service.live.budget(self.worker.index);
        budget.request(Moment::now());
        let mut tried = Tried::default();
        let mut late = None;
        loop {
            // While an attempt failed, other instances may have come.
            let snapshot = self.worker.snapshot();
            let route = self.route.renewed(&snapshot).unwrap_or(self.route);
            let chosen = self.worker.choose(&route, &tried, self.priority);
            let instance = chosen.map_err(|none_left| late.take().unwrap_or(none_left))?;
            if let Some(ruled) = route.ruled.filter(|_| tried.is_empty()) {
                ruled.count(self.worker.index, instance);
            }
            tried.add(instance);
            let failure = match self.attempt(&route, instance, &tried).await? {
                Ok(response) => return Ok(response),
                Err(Miss::Unwanted) => continue,
                Err(Miss::Failed(failure)) => failure,
            };
            if self.for_peer {
                return Err(tell_first_node(self.failed(instance, &failure), &failure));
            }
            let plan = Plan::of(&route);
            let again = plan.covers(failure.kind, true)
                && plan.has_more(&tried)
                && self.may_repeat(&failure);
            if !again || !budget.take_retry(Moment::now()) {
                return Err(self.failed(instance, &failure));
            }
            if failure.kind == ErrorKind::Timeout {
                late = Some(self.failed(instance, &failure));
            }
        }
    }

    /// Within the deadline, and within the time of a try where a rule says one. That begins anew as long as the client
    /// is the slow one.
    async fn in_time<T>(
        &self,
        per_try: Option<Duration>,
        answer: impl Future<Output = T>,
    ) -> Result<T, Late> {
        let longest = || Instant::now() + self.longest_wait();
        let until = self.deadline.unwrap_or_else(longest);
        let mut answer = std::pin::pin!(answer);
        loop {
            let own = per_try.map(|span| Instant::now() + span);
            let own = own.filter(|own| *own < until);
            match tokio::time::timeout_at(own.unwrap_or(until), &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if own.is_none() => return Err(Late::Caller),
                Err(_) if self.upload.is_over() => return Err(Late::Try),
                Err(_) => {}
            }
        }
    }

    /// The outer error ends the exchange; after the inner one another instance may try. `tried` has the instance already.
    async fn attempt(
        &self,
        route: &Route<'_>,
        instance: &Instance,
        tried: &Tried,
    ) -> Result<Result<Response<AnswerBody>, Miss>, Refusal> {
        let (live, endpoint) = (Arc::clone(&instance.live), route.endpoint.id);
        let in_flight = InFlight::begin(live, self.worker.index, endpoint, Moment::now());
        let sent: Sent = Rc::new(in_flight.watched(self.passing));
        if let Some(passing) = self.passing {
            passing.sent_to(instance);
        }
        if tried.len() > 1 {
            sent.is_retry();
        }
        let began = Instant::now();
        let peer = instance.reach.peer();
        let token = self.token.as_ref().map(HeaderValue::as_bytes);
        let (way, seen) = Way::to(route, instance, &self.target, token);
        let request = self.request(instance, &sent, &way, seen)?;
        let to = Destination {
            instance,
            tls: self.worker.tls.as_deref(),
            limits: &self.worker.limits,
        };
        let answer = self.worker.http2.pool.send(to, request);
        let per_try = Plan::of(route).per_try;
        match self.in_time(per_try, answer).await {
            Err(late) => {
                if let Some(peer) = peer.filter(|_| began.elapsed() >= SILENCE) {
                    peer.silent(self.worker.index, Moment::now());
                }
                sent.failed(ErrorKind::Timeout, Moment::now());
                match late {
                    Late::Caller => Err(too_late()),
                    Late::Try => Ok(Err(Miss::Failed(Failure::of_try()))),
                }
            }
            Ok(Err(mut failure)) => {
                if let Some(peer) = peer.filter(|_| failure.whole_connection) {
                    peer.eject(Moment::now());
                    failure.kind = ErrorKind::Peer;
                }
                sent.failed(failure.kind, Moment::now());
                Ok(Err(Miss::Failed(failure)))
            }
            Ok(Ok(answered)) => {
                if let Some(peer) = peer {
                    peer.answered(self.worker.index, Moment::now());
                    if let Some(verdict) = head::verdict(answered.response.headers()) {
                        return Ok(Err(Miss::Failed(failed_there(&sent, verdict))));
                    }
                }
                let status = answered.response.status().as_u16();
                sent.answered(status, Moment::now());
                if self.is_unwanted(status, Tries { route, tried }) {
                    return Ok(Err(Miss::Unwanted));
                }
                self.upload.forget();
                Ok(Ok(self.forwarded(answered, sent, way.cut)))
            }
        }
    }

    fn request(
        &self,
        instance: &Instance,
        sent: &Sent,
        way: &Way<'_>,
        seen: &[u8],
    ) -> Result<Request<super::body::Attempt>, Refusal> {
        let left = self
            .deadline
            .map(|deadline| deadline.duration_since(Instant::now()));
        let mut headers = self.parts.headers.clone();
        head::finish(&mut headers, way, left);
        let own_authority = instance.live.address().to_string();
        let authority = self.authority.as_deref().unwrap_or(&own_authority);
        let http2 = speaks_http2(instance);
        let uri = head::address(&mut headers, authority, seen, http2);
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
        self.active.answers();
        head::answer(parts.status, &mut parts.headers, cut);
        let rule = self.route.ruled.map(|ruled| ruled.compiled);
        if let Some(changes) = rule.and_then(|rule| rule.answer_changes()) {
            head::change(&mut parts.headers, changes);
        }
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

    /// By a rule another instance is asked after this status, and one can be.
    fn is_unwanted(&self, status: u16, tries: Tries<'_>) -> bool {
        tries.cover_status(status)
            && tries.route.repeatable
            && self.upload.is_replayable()
            && tries.take_another(self.worker, self.priority)
    }

    fn may_repeat(&self, failure: &Failure) -> bool {
        self.upload.is_replayable() && (failure.unsent || self.route.repeatable)
    }

    fn failed(&self, instance: &Instance, failure: &Failure) -> Refusal {
        let (id, service) = (&instance.info.id, &self.route.service.id);
        let message = match failure.kind {
            ErrorKind::Connect => format!("{id} of {service} takes no connection"),
            ErrorKind::Protocol => format!("{id} of {service} answered something that is not HTTP"),
            ErrorKind::Timeout => format!("{id} of {service} did not answer in time"),
            ErrorKind::Local => "the router has no file descriptor left".into(),
            ErrorKind::Peer => {
                format!(
                    "the node of server {} does not answer",
                    instance.info.server
                )
            }
            _ => format!("{id} of {service} broke off before it answered"),
        };
        let reason = match failure.kind {
            ErrorKind::Connect | ErrorKind::Peer => Reason::NoHealthyInstance,
            ErrorKind::Local => Reason::Overloaded,
            ErrorKind::Timeout => Reason::DeadlineExceeded,
            _ => Reason::UpstreamFailed,
        };
        Refusal::new(reason, message)
    }
}

/// The node of another server says what became of the request at its instance.
fn failed_there(sent: &Sent, verdict: Verdict) -> Failure {
    Failure {
        kind: verdict.note(sent, Moment::now()),
        unsent: matches!(verdict, Verdict::Unsent(_)),
        whole_connection: false,
    }
}

/// Another node has chosen the instance, so it chooses the next one too. It must know whether the
/// instance may have seen anything.
fn tell_first_node(refusal: Refusal, failure: &Failure) -> Refusal {
    match (failure.kind, failure.unsent) {
        (ErrorKind::Local, true) => refusal.unsent(Unsent::Overloaded),
        (_, true) => refusal.unsent(Unsent::Refused),
        (ErrorKind::Protocol, false) => refusal.broken(ErrorKind::Protocol),
        (ErrorKind::Timeout, false) => refusal,
        (_, false) => refusal.broken(ErrorKind::Closed),
    }
}

pub(super) fn too_late() -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        "the caller's deadline passed before the answer",
    )
}

fn target(uri: &Uri) -> &[u8] {
    let target = uri.path_and_query().map(|target| target.as_str());
    target.unwrap_or_default().as_bytes()
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
    let kind = kind.map(HeaderValue::as_bytes);
    Style::of(kind, connect, target(request.uri()))
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
pub(super) struct Active {
    client: Rc<Client>,
    /// Its answer has begun.
    answers: Cell<bool>,
    /// Some of its answer waits for the client.
    unread: Cell<bool>,
}

impl Active {
    fn begin(client: Rc<Client>) -> Self {
        client.active.set(client.active.get() + 1);
        client.moved.set(true);
        Self {
            client,
            answers: Cell::new(false),
            unread: Cell::new(false),
        }
    }

    /// A part of a body went on.
    pub(super) fn moved(&self) {
        self.client.moved.set(true);
    }

    fn answers(&self) {
        self.answers.set(true);
    }

    /// Whether what there is of its answer waits until the client takes it.
    pub(super) fn is_unread(&self, unread: bool) {
        let all = &self.client.unread;
        match (self.unread.replace(unread), unread) {
            (false, true) => all.set(all.get() + 1),
            (true, false) => all.set(all.get().saturating_sub(1)),
            _ => {}
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.is_unread(false);
        self.client
            .active
            .set(self.client.active.get().saturating_sub(1));
        self.client.ended(!self.answers.get());
    }
}
