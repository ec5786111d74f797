//! Bodies on their way through: of a request, kept as long as it may be repeated, and of an
//! answer.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::exchange::Active;
use super::head;
use super::pool::Place;
use crate::answer::{Answer, Style};
use crate::clock::Moment;
use crate::instance::{ErrorKind, InFlight, Live};
use crate::refusal::Refusal;

/// The largest body that is kept to repeat its request, in bytes.
const MAX_KEPT: usize = 64 * 1024;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Sent = Rc<InFlight<Arc<Live>>>;

/// The body of a request. Each attempt reads what was kept, and then goes on with the client's.
#[derive(Debug)]
pub(super) struct Upload(RefCell<State>);

#[derive(Debug)]
struct State {
    incoming: Incoming,
    active: Rc<Active>,
    size: SizeHint,
    ended: bool,
    kept: Vec<Kept>,
    kept_bytes: usize,
    replayable: bool,
    /// The attempt that reads; earlier ones get nothing more.
    attempt: usize,
    /// The answer is complete: nobody needs the rest.
    stopped: bool,
    /// Whoever waits for the client's next bytes.
    waiting: Option<Waker>,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Upload {
    pub(super) fn new(incoming: Incoming, active: &Rc<Active>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            size: incoming.size_hint(),
            ended: incoming.is_end_stream(),
            incoming,
            active: Rc::clone(active),
            kept: Vec::new(),
            kept_bytes: 0,
            replayable: true,
            attempt: 0,
            stopped: false,
            waiting: None,
        })))
    }

    /// Whether all that was read of it can be sent again.
    pub(super) fn is_replayable(&self) -> bool {
        self.0.borrow().replayable
    }

    /// Whether the client has sent all of it.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_over()
    }

    /// The body for the next attempt; an earlier one gets nothing more.
    pub(super) fn attempt(self: &Rc<Self>, sent: &Sent) -> Attempt {
        let mut state = self.0.borrow_mut();
        state.attempt += 1;
        Attempt {
            upload: Rc::clone(self),
            number: state.attempt,
            position: 0,
            sent: Rc::clone(sent),
        }
    }

    /// The answer has begun: nothing will be repeated, and nothing more is kept.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().replayable = false;
    }

    /// The answer is complete, or nobody waits for it: the rest of the upload is not awaited.
    fn stop(&self) {
        let mut state = self.0.borrow_mut();
        state.stopped = true;
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
    }
}

/// Ends an upload when the answer ends.
#[derive(Debug)]
pub(super) struct UploadEnd(Rc<Upload>);

impl UploadEnd {
    pub(super) fn of(upload: &Rc<Upload>) -> Self {
        Self(Rc::clone(upload))
    }
}

impl Drop for UploadEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Trailers are sifted, all else passes.
fn passed(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(head::trailers(trailers)),
        Err(frame) => frame,
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let len = frame.data_ref().map_or(0, Bytes::len);
        self.replayable &= self.kept_bytes + len <= MAX_KEPT;
        if !self.replayable {
            self.kept = Vec::new();
            return;
        }
        self.kept_bytes += len;
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.kept.push(kept);
    }
}

/// A request's body as one attempt sends it.
#[derive(Debug)]
pub(super) struct Attempt {
    upload: Rc<Upload>,
    number: usize,
    /// How many of the kept frames it has sent.
    position: usize,
    sent: Sent,
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut state = this.upload.0.borrow_mut();
        if state.attempt != this.number {
            return Poll::Ready(Some(Err("the request was sent elsewhere".into())));
        }
        if let Some(kept) = state.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(kept.clone().into())));
        }
        if state.is_over() {
            return Poll::Ready(None);
        }
        if state.stopped {
            return Poll::Ready(Some(Err(
                "the answer was complete before the request".into()
            )));
        }
        let Poll::Ready(frame) = Pin::new(&mut state.incoming).poll_frame(cx) else {
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match frame {
            Some(Ok(frame)) => {
                let frame = passed(frame);
                state.active.moved();
                state.keep(&frame);
                this.position = state.kept.len();
                this.sent
                    .sent(frame.data_ref().map_or(0, Bytes::len) as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                state.replayable = false;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                state.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.upload.0.borrow();
        self.position == state.kept.len() && state.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.0.borrow().size
    }
}

impl From<Kept> for Frame<Bytes> {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Data(data) => Frame::data(data),
            Kept::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// The router's own.
    Own(Full<Bytes>),
    /// An instance's.
    Forwarded(Forwarded),
}

#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) incoming: Incoming,
    pub(super) sent: Sent,
    pub(super) _upload: UploadEnd,
    /// Its place on the instance's connection.
    pub(super) _stream: Option<Place>,
    pub(super) deadline: Option<Deadline>,
    pub(super) style: Style,
    /// Keeps its connection from counting as idle.
    pub(super) active: Rc<Active>,
}

/// When the caller stops waiting.
#[derive(Debug)]
pub(super) struct Deadline(Pin<Box<Sleep>>);

impl Deadline {
    pub(super) fn at(instant: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(instant)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            AnswerBody::Own(full) => Pin::new(full)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            AnswerBody::Forwarded(forwarded) => forwarded.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own(full) => full.is_end_stream(),
            AnswerBody::Forwarded(forwarded) => forwarded.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own(full) => full.size_hint(),
            AnswerBody::Forwarded(forwarded) => forwarded.incoming.size_hint(),
        }
    }
}

impl Forwarded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Who asks for more has sent all that it was given.
        self.active.is_unread(false);
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => return self.poll_deadline(cx),
            Poll::Ready(frame) => frame,
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                self.active.moved();
                self.active.is_unread(true);
                self.sent
                    .received(frame.data_ref().map_or(0, Bytes::len) as u64);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.sent.failed(ErrorKind::Truncated, Moment::now());
                Some(Err(error.into()))
            }
            None => None,
        })
    }

    /// A gRPC caller hears of its deadline in trailers; to others the answer breaks off.
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        ready!(deadline.0.as_mut().poll(cx));
        self.deadline = None;
        self.sent.failed(ErrorKind::Timeout, Moment::now());
        let refusal = super::exchange::too_late();
        Poll::Ready(Some(match self.style {
            Style::Grpc(_) => Ok(Frame::trailers(trailers(&refusal, self.style))),
            _ => Err(refusal.into()),
        }))
    }
}

fn trailers(refusal: &Refusal, style: Style) -> HeaderMap {
    let headers = Answer::new(refusal, style).headers.into_iter();
    headers
        .filter(|(name, _)| name.starts_with("grpc-"))
        .filter_map(|(name, value)| {
            Some((http::HeaderName::from_static(name), value.parse().ok()?))
        })
        .collect()
}
